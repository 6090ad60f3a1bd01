/* What a mandatory SRTP transport does when media starts.
 *
 * srtp keys       the answer is made as it should: prints the status of
 *                 starting and whether a packet is protected
 * srtp nokeys     media starts without an answer made: no keys were agreed
 * srtp again      media starts a second time, after starting has failed
 */
#include <pjlib-util.h>
#include <pjlib.h>
#include <pjmedia.h>
#include <stdio.h>
#include <string.h>

static const char *OFFER =
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=audio 4000 RTP/SAVP 0\r\n"
    "a=crypto:1 AEAD_AES_256_GCM inline:QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=\r\n";
static const char *PLAIN =
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=audio 4000 RTP/SAVP 0\r\n";

int main(int argc, char **argv)
{
    pj_caching_pool pools;
    pj_pool_t *pool;
    pjmedia_endpt *endpt;
    pjmedia_transport *loop, *srtp;
    pjmedia_srtp_setting setting;
    pjmedia_sdp_session *remote, *local;
    pjmedia_transport_info info;
    pjmedia_srtp_info *srtp_info;
    char offer[1024], plain[1024];
    pj_status_t status;

    if (argc != 2)
        return 2;
    pj_log_set_level(0);
    pj_init();
    pjlib_util_init();
    pj_caching_pool_init(&pools, NULL, 0);
    pool = pj_pool_create(&pools.factory, "check", 4000, 4000, NULL);
    if (pjmedia_endpt_create(&pools.factory, NULL, 1, &endpt) != PJ_SUCCESS ||
        pjmedia_transport_loop_create(endpt, &loop) != PJ_SUCCESS)
        return 4;
    pjmedia_srtp_setting_default(&setting);
    setting.use = PJMEDIA_SRTP_MANDATORY;
    if (pjmedia_transport_srtp_create(endpt, loop, &setting, &srtp) != PJ_SUCCESS)
        return 4;

    snprintf(offer, sizeof(offer), "%s", OFFER);
    snprintf(plain, sizeof(plain), "%s", PLAIN);
    if (pjmedia_sdp_parse(pool, offer, strlen(offer), &remote) != PJ_SUCCESS ||
        pjmedia_sdp_parse(pool, plain, strlen(plain), &local) != PJ_SUCCESS)
        return 4;
    remote = pjmedia_sdp_session_clone(pool, remote);
    local = pjmedia_sdp_session_clone(pool, local);

    if (strcmp(argv[1], "again") == 0) {
        /* Our offer, answered without a=crypto: starting fails. */
        if (pjmedia_transport_media_create(srtp, pool, 0, NULL, 0) != PJ_SUCCESS ||
            pjmedia_transport_encode_sdp(srtp, pool, local, NULL, 0) != PJ_SUCCESS)
            return 4;
        snprintf(plain, sizeof(plain), "%s", PLAIN);
        if (pjmedia_sdp_parse(pool, plain, strlen(plain), &remote) != PJ_SUCCESS ||
            pjmedia_transport_media_start(srtp, pool, local, remote, 0) == PJ_SUCCESS)
            return 4;
    } else if (pjmedia_transport_media_create(srtp, pool, 0, remote, 0) != PJ_SUCCESS) {
        return 4;
    }
    if (strcmp(argv[1], "keys") == 0 &&
        pjmedia_transport_encode_sdp(srtp, pool, local, remote, 0) != PJ_SUCCESS)
        return 4;
    status = pjmedia_transport_media_start(srtp, pool, local, remote, 0);

    pjmedia_transport_info_init(&info);
    pjmedia_transport_get_info(srtp, &info);
    srtp_info = pjmedia_transport_info_get_spc_info(&info, PJMEDIA_TRANSPORT_TYPE_SRTP);
    printf("%d %d\n", status, srtp_info ? (int)srtp_info->active : -1);
    return 0;
}
