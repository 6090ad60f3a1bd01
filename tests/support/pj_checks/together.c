/* Ten media transports and the worker thread of a media endpoint. A packet for
 * one of them wakes the worker; while it rests after that, packets for all of
 * them come: usleep() of this program sends them in place of the rest.
 *
 * Prints with how many wake-ups the worker took those ten, and how many of them
 * were heard.
 */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <pjlib-util.h>
#include <pjlib.h>
#include <pjmedia.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

enum { TRANSPORTS = 10, WAIT_S = 10 };

static struct sockaddr_in locals[TRANSPORTS];
static int peer, rested;
static volatile int wakes, heard;
static sem_t all_heard;

int usleep(useconds_t microseconds)
{
    int to;

    (void)microseconds;
    if (!rested++) {
        wakes = 0;
        for (to = 0; to < TRANSPORTS; ++to)
            sendto(peer, "\x80packet", 7, 0, (struct sockaddr*)&locals[to], sizeof(locals[to]));
    }
    return 0;
}

int epoll_wait(int epfd, struct epoll_event *events, int room, int timeout_ms)
{
    static int (*real)(int, struct epoll_event *, int, int);
    int count;

    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "epoll_wait");
    count = real(epfd, events, room, timeout_ms);
    wakes += count > 0;
    return count;
}

static void on_rtp(void *user_data, void *pkt, pj_ssize_t size)
{
    (void)user_data, (void)pkt;
    if (size > 0 && ++heard == 1 + TRANSPORTS)
        sem_post(&all_heard);
}

static int open_socket(struct sockaddr_in *name)
{
    socklen_t length = sizeof(*name);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);

    memset(name, 0, sizeof(*name));
    name->sin_family = AF_INET;
    name->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(fd, (struct sockaddr*)name, sizeof(*name)) != 0 ||
        getsockname(fd, (struct sockaddr*)name, &length) != 0)
        return -1;
    return fd;
}

int main(void)
{
    pj_caching_pool pools;
    pjmedia_endpt *endpt;
    pjmedia_sock_info sockets;
    pjmedia_transport *transport;
    struct sockaddr_in peer_addr;
    struct timespec until;
    int number, in_time;

    pj_log_set_level(0);
    pj_init();
    pjlib_util_init();
    pj_caching_pool_init(&pools, NULL, 0);
    sem_init(&all_heard, 0, 0);
    peer = open_socket(&peer_addr);
    if (pjmedia_endpt_create(&pools.factory, NULL, 1, &endpt) != PJ_SUCCESS)
        return 4;
    for (number = 0; number < TRANSPORTS; ++number) {
        memset(&sockets, 0, sizeof(sockets));
        sockets.rtcp_sock = open_socket((struct sockaddr_in*)&sockets.rtcp_addr_name);
        sockets.rtp_sock = open_socket(&locals[number]);
        memcpy(&sockets.rtp_addr_name, &locals[number], sizeof(locals[number]));
        if (pjmedia_transport_udp_attach(endpt, NULL, &sockets, 0, &transport) != PJ_SUCCESS ||
            pjmedia_transport_attach(transport, &pools, &peer_addr, &peer_addr, sizeof(peer_addr), on_rtp, on_rtp) !=
                PJ_SUCCESS ||
            pjmedia_transport_media_start(transport, NULL, NULL, NULL, 0) != PJ_SUCCESS)
            return 4;
    }
    sendto(peer, "\x80packet", 7, 0, (struct sockaddr*)&locals[0], sizeof(locals[0]));
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_S;
    in_time = sem_timedwait(&all_heard, &until) == 0;
    printf("%d %d\n", in_time ? wakes : -1, heard - 1);
    return 0;
}
