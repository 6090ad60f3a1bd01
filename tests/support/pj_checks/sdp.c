/* What the SDP parser and the negotiator make of input, one question a run.
 *
 * sdp rtpmap VALUE     status of a=rtpmap:VALUE, then its clock rate
 * sdp fmtp VALUE NEXT  status of a=fmtp:VALUE when NEXT follows in memory, and
 *                      the length of its parameters
 * sdp reoffer OLD NEW  status of a new offer with NEW media of a kind that the
 *                      OLD media of the session are not, and the media count
 */
#include <pjlib-util.h>
#include <pjlib.h>
#include <pjmedia.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pj_caching_pool pools;
static pj_pool_t *pool;

static int rtpmap(char *value)
{
    pjmedia_sdp_attr attr = {{"rtpmap", 6}, {NULL, 0}};
    pjmedia_sdp_rtpmap map;
    pj_status_t status;

    memset(&map, 0x5a, sizeof(map));
    attr.value = pj_str(value);
    status = pjmedia_sdp_attr_get_rtpmap(&attr, &map);
    printf("%d %u\n", status, map.clock_rate);
    return 0;
}

static int fmtp(const char *value, const char *next)
{
    pjmedia_sdp_attr attr = {{"fmtp", 4}, {NULL, 0}};
    pjmedia_sdp_fmtp map;
    char memory[128];
    pj_status_t status;

    memset(&map, 0, sizeof(map));
    snprintf(memory, sizeof(memory), "%s%s", value, next);
    attr.value.ptr = memory;
    attr.value.slen = (pj_ssize_t)strlen(value);
    status = pjmedia_sdp_attr_get_fmtp(&attr, &map);
    printf("%d %ld\n", status, (long)map.fmt_param.slen);
    return 0;
}

static pjmedia_sdp_session *session(const char *type, int count)
{
    static char text[8192];
    pjmedia_sdp_session *sdp;
    int used, i;

    used = snprintf(text, sizeof(text), "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\n"
                    "c=IN IP4 127.0.0.1\r\nt=0 0\r\n");
    for (i = 0; i < count; ++i)
        used += snprintf(text + used, sizeof(text) - used, "m=%s 4000 RTP/AVP 0\r\n", type);
    if (pjmedia_sdp_parse(pool, text, used, &sdp) != PJ_SUCCESS)
        exit(4);
    return pjmedia_sdp_session_clone(pool, sdp);
}

static int reoffer(int before, int after)
{
    const pjmedia_sdp_session *result = NULL;
    pjmedia_sdp_neg *neg;
    pj_status_t status;

    if (pjmedia_sdp_neg_create_w_remote_offer(pool, session("audio", before),
                                              session("audio", before), &neg) != PJ_SUCCESS ||
        pjmedia_sdp_neg_negotiate(pool, neg, 0) != PJ_SUCCESS)
        return 4;
    status = pjmedia_sdp_neg_modify_local_offer2(pool, neg, 0, session("video", after));
    if (status == PJ_SUCCESS)
        pjmedia_sdp_neg_get_neg_local(neg, &result);
    printf("%d %u\n", status, result ? result->media_count : 0);
    return 0;
}

int main(int argc, char **argv)
{
    pj_log_set_level(0);
    pj_init();
    pjlib_util_init();
    pj_caching_pool_init(&pools, NULL, 0);
    pool = pj_pool_create(&pools.factory, "check", 4000, 4000, NULL);
    if (argc == 3 && strcmp(argv[1], "rtpmap") == 0)
        return rtpmap(argv[2]);
    if (argc == 4 && strcmp(argv[1], "fmtp") == 0)
        return fmtp(argv[2], argv[3]);
    if (argc == 4 && strcmp(argv[1], "reoffer") == 0)
        return reoffer(atoi(argv[2]), atoi(argv[3]));
    return 2;
}
