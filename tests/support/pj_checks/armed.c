/* A datagram socket of an ioqueue whose owner asks for the next packet in the
 * callback of the last, then stops to ask, then asks again. epoll_ctl() and
 * epoll_wait() of this program count the library's calls.
 *
 * Prints how often epoll was told of the socket while twenty packets were read,
 * how often a packet that nobody asked for woke the poll, and whether it was
 * read when it was asked for.
 */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <pjlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum { PACKETS = 20, POLLS = 5 };

static pj_ioqueue_op_key_t operation;
static char buffer[64];
static pj_sockaddr source;
static int source_length;
static int told, woken, taken, asks = 1;

int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
    static int (*real)(int, int, int, struct epoll_event *);

    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "epoll_ctl");
    told++;
    return real(epfd, op, fd, event);
}

int epoll_wait(int epfd, struct epoll_event *events, int room, int timeout_ms)
{
    static int (*real)(int, struct epoll_event *, int, int);
    int count;

    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "epoll_wait");
    count = real(epfd, events, room, timeout_ms);
    woken += count > 0;
    return count;
}

static void ask(pj_ioqueue_key_t *key)
{
    pj_ssize_t size = sizeof(buffer);

    source_length = sizeof(source);
    pj_ioqueue_recvfrom(key, &operation, buffer, &size, PJ_IOQUEUE_ALWAYS_ASYNC, &source, &source_length);
}

static void on_read(pj_ioqueue_key_t *key, pj_ioqueue_op_key_t *op_key, pj_ssize_t size)
{
    (void)op_key;
    taken += size > 0;
    if (asks)
        ask(key);
}

int main(void)
{
    pj_caching_pool pools;
    pj_pool_t *pool;
    pj_ioqueue_t *ioqueue;
    pj_ioqueue_key_t *key;
    pj_ioqueue_callback callbacks = {.on_read_complete = on_read};
    pj_sock_t socket_of_key = PJ_INVALID_SOCKET;
    struct sockaddr_in local = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(local);
    pj_time_val second = {1, 0}, moment = {0, 10};
    int peer = socket(AF_INET, SOCK_DGRAM, 0), turn, told_before, woken_before;

    pj_log_set_level(0);
    pj_init();
    pj_caching_pool_init(&pools, NULL, 0);
    pool = pj_pool_create(&pools.factory, "check", 4000, 4000, NULL);
    if (pj_sock_socket(pj_AF_INET(), pj_SOCK_DGRAM(), 0, &socket_of_key) != PJ_SUCCESS ||
        bind((int)socket_of_key, (struct sockaddr*)&local, sizeof(local)) != 0 ||
        getsockname((int)socket_of_key, (struct sockaddr*)&local, &length) != 0 ||
        pj_ioqueue_create(pool, 8, &ioqueue) != PJ_SUCCESS ||
        pj_ioqueue_register_sock(pool, ioqueue, socket_of_key, NULL, &callbacks, &key) != PJ_SUCCESS)
        return 4;
    pj_ioqueue_op_key_init(&operation, sizeof(operation));
    ask(key);

    told_before = told;
    for (turn = 0; turn < PACKETS; ++turn) {
        sendto(peer, "packet", 6, 0, (struct sockaddr*)&local, sizeof(local));
        pj_ioqueue_poll(ioqueue, &second);
    }
    printf("%d ", told - told_before);

    asks = 0;
    sendto(peer, "packet", 6, 0, (struct sockaddr*)&local, sizeof(local));
    pj_ioqueue_poll(ioqueue, &second);
    sendto(peer, "packet", 6, 0, (struct sockaddr*)&local, sizeof(local));
    woken_before = woken;
    for (turn = 0; turn < POLLS; ++turn)
        pj_ioqueue_poll(ioqueue, &moment);
    printf("%d ", woken - woken_before);

    ask(key);
    pj_ioqueue_poll(ioqueue, &second);
    printf("%d\n", taken - PACKETS - 1);
    return 0;
}
