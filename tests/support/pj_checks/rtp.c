/* A UDP media transport whose user attaches again while a packet is under way.
 *
 * rtp switch     in the callback of a packet, attach with another remote
 *                address and ask to switch to where the packet came from:
 *                prints whether the next packet of ours goes there
 * rtp stay       the same without asking: it goes where attach said
 */
#include <arpa/inet.h>
#include <pjlib-util.h>
#include <pjlib.h>
#include <pjmedia.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static pjmedia_transport *transport;
static struct sockaddr_in elsewhere_addr;
static int again, wants_switch;

static void on_rtp(pjmedia_tp_cb_param *param);

static void on_rtcp(void *user_data, void *pkt, pj_ssize_t size)
{
    (void)user_data, (void)pkt, (void)size;
}

static void attach(const struct sockaddr_in *to)
{
    pjmedia_transport_attach_param param;

    memset(&param, 0, sizeof(param));
    param.media_type = PJMEDIA_TYPE_AUDIO;
    memcpy(&param.rem_addr, to, sizeof(*to));
    memcpy(&param.rem_rtcp, to, sizeof(*to));
    param.addr_len = sizeof(*to);
    param.user_data = &again;
    param.rtp_cb2 = on_rtp;
    param.rtcp_cb = on_rtcp;
    if (pjmedia_transport_attach2(transport, &param) != PJ_SUCCESS)
        _exit(4);
}

static void on_rtp(pjmedia_tp_cb_param *param)
{
    if (param->size <= 0 || again++)
        return;
    attach(&elsewhere_addr);
    param->rem_switch = wants_switch;
}

static int open_socket(struct sockaddr_in *name)
{
    struct timeval limit = {0, 300000};
    socklen_t length = sizeof(*name);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);

    memset(name, 0, sizeof(*name));
    name->sin_family = AF_INET;
    name->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(fd, (struct sockaddr*)name, sizeof(*name)) != 0 ||
        getsockname(fd, (struct sockaddr*)name, &length) != 0)
        _exit(4);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    return fd;
}

int main(int argc, char **argv)
{
    pj_caching_pool pools;
    pj_ioqueue_t *ioqueue;
    pjmedia_endpt *endpt;
    pjmedia_sock_info sockets;
    struct sockaddr_in peer_addr, local;
    pj_time_val wait = {0, 100};
    char packet[64] = {(char)0x80}, buffer[64];
    int peer, elsewhere, turn;

    if (argc != 2)
        return 2;
    wants_switch = strcmp(argv[1], "switch") == 0;
    pj_log_set_level(0);
    pj_init();
    pjlib_util_init();
    pj_caching_pool_init(&pools, NULL, 0);
    peer = open_socket(&peer_addr);
    elsewhere = open_socket(&elsewhere_addr);
    memset(&sockets, 0, sizeof(sockets));
    sockets.rtcp_sock = open_socket((struct sockaddr_in*)&sockets.rtcp_addr_name);
    sockets.rtp_sock = open_socket(&local);
    memcpy(&sockets.rtp_addr_name, &local, sizeof(local));
    if (pj_ioqueue_create(pj_pool_create(&pools.factory, "check", 4000, 4000, NULL), 8, &ioqueue) != PJ_SUCCESS ||
        pjmedia_endpt_create(&pools.factory, ioqueue, 0, &endpt) != PJ_SUCCESS ||
        pjmedia_transport_udp_attach(endpt, NULL, &sockets, 0, &transport) != PJ_SUCCESS)
        return 4;

    attach(&peer_addr);
    if (pjmedia_transport_media_start(transport, NULL, NULL, NULL, 0) != PJ_SUCCESS)
        return 4;
    sendto(peer, packet, sizeof(packet), 0, (struct sockaddr*)&local, sizeof(local));
    for (turn = 0; turn < 20 && !again; ++turn)
        pj_ioqueue_poll(ioqueue, &wait);
    pjmedia_transport_send_rtp(transport, packet, sizeof(packet));
    printf("%d %d\n", recv(peer, buffer, sizeof(buffer), 0) > 0, recv(elsewhere, buffer, sizeof(buffer), 0) > 0);
    return 0;
}
