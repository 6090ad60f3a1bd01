/* Socket options made from temporaries, as every caller of the Python module
 * makes them. Prints the values that reach the library.
 */
#include <cstdio>
#include <cstring>
#include <pjsua2.hpp>

static void __attribute__((noinline)) fill(pj::SockOptParams &params)
{
    for (int value = 1; value <= 3; ++value)
        params.sockOpts.push_back(pj::SockOpt(6, value, 1000 + value));
}

static int __attribute__((noinline)) use_the_stack(int depth)
{
    volatile char room[4096];

    std::memset((char*)room, 0x5a, sizeof(room));
    return depth ? use_the_stack(depth - 1) + room[7] : room[9];
}

int main()
{
    pj::SockOptParams params;

    fill(params);
    pj::SockOptParams copy = params;
    params.sockOpts.clear();
    params.sockOpts.shrink_to_fit();
    use_the_stack(8);

    pj_sockopt_params result = copy.toPj();
    for (unsigned i = 0; i < result.cnt; ++i)
        std::printf("%d ", result.options[i].optlen == sizeof(int) ? *(int*)result.options[i].optval : -1);
    std::printf("\n");
    return 0;
}
