/* Parse the message on standard input and print it into buffers of every size
 * from 256 bytes up. Each ends where the next page may not be written.
 *
 * print message        the whole message
 * print empty          a multipart body without a part
 * Prints the number of sizes that were enough.
 */
#include <pjlib-util.h>
#include <pjlib.h>
#include <pjsip.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

enum { ROOM = 16 * 4096, PAGE = 4096 };

int main(int argc, char **argv)
{
    static char text[ROOM];
    pj_caching_pool pools;
    pj_pool_t *pool;
    pjsip_endpoint *endpt;
    pjsip_msg *msg;
    char *end;
    size_t length, size, enough = 0;

    if (argc != 2)
        return 2;
    length = fread(text, 1, sizeof(text) - 1, stdin);
    pj_log_set_level(0);
    pj_init();
    pjlib_util_init();
    pj_caching_pool_init(&pools, NULL, 0);
    if (pjsip_endpt_create(&pools.factory, "check", &endpt) != PJ_SUCCESS)
        return 4;
    pool = pj_pool_create(&pools.factory, "check", 4000, 4000, NULL);
    end = mmap(NULL, ROOM + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (end == MAP_FAILED || mprotect(end + ROOM, PAGE, PROT_NONE) != 0)
        return 4;
    end += ROOM;

    msg = pjsip_parse_msg(pool, text, length, NULL);
    if (!msg)
        return 4;
    if (strcmp(argv[1], "empty") == 0)
        msg->body = pjsip_multipart_create(pool, NULL, NULL);
    for (size = 256; size < length + 1024; ++size)
        enough += pjsip_msg_print(msg, end - size, size) > 0;
    printf("%zu\n", enough);
    return 0;
}
