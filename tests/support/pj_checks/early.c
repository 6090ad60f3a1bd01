/* A packet is in the socket of a media transport before the transport starts,
 * as when the far end speaks before its answer has been read, and a thread
 * polls while the transport is starting. pthread_mutex_unlock() of this program
 * lets that thread poll once after each lock that the start gives back.
 *
 * Prints whether the packet was taken during the start, and whether one sent
 * afterwards was heard.
 */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <pjlib-util.h>
#include <pjlib.h>
#include <pjmedia.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static pj_ioqueue_t *ioqueue;
static pthread_t starter;
static sem_t may_poll, has_polled;
static volatile int is_starting, heard;

int pthread_mutex_unlock(pthread_mutex_t *mutex)
{
    static int (*real)(pthread_mutex_t *);
    int status;

    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "pthread_mutex_unlock");
    status = real(mutex);
    if (is_starting && !heard && pthread_equal(pthread_self(), starter)) {
        sem_post(&may_poll);
        sem_wait(&has_polled);
    }
    return status;
}

static int poll_when_told(void *arg)
{
    pj_time_val none = {0, 0};

    (void)arg;
    for (;;) {
        sem_wait(&may_poll);
        if (!is_starting)
            return 0;
        pj_ioqueue_poll(ioqueue, &none);
        sem_post(&has_polled);
    }
}

static void on_rtp(void *user_data, void *pkt, pj_ssize_t size)
{
    (void)user_data, (void)pkt;
    heard += size > 0;
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
        _exit(4);
    return fd;
}

int main(void)
{
    pj_caching_pool pools;
    pj_pool_t *pool;
    pj_thread_t *poller;
    pjmedia_endpt *endpt;
    pjmedia_sock_info sockets;
    pjmedia_transport *transport;
    struct sockaddr_in peer_addr, local;
    pj_time_val wait = {0, 100};
    char packet[64] = {(char)0x80};
    int peer, early, turn;

    pj_log_set_level(0);
    pj_init();
    pjlib_util_init();
    pj_caching_pool_init(&pools, NULL, 0);
    pool = pj_pool_create(&pools.factory, "check", 4000, 4000, NULL);
    sem_init(&may_poll, 0, 0);
    sem_init(&has_polled, 0, 0);
    starter = pthread_self();
    peer = open_socket(&peer_addr);
    memset(&sockets, 0, sizeof(sockets));
    sockets.rtcp_sock = open_socket((struct sockaddr_in*)&sockets.rtcp_addr_name);
    sockets.rtp_sock = open_socket(&local);
    memcpy(&sockets.rtp_addr_name, &local, sizeof(local));
    if (pj_ioqueue_create(pool, 8, &ioqueue) != PJ_SUCCESS ||
        pjmedia_endpt_create(&pools.factory, ioqueue, 0, &endpt) != PJ_SUCCESS ||
        pjmedia_transport_udp_attach(endpt, NULL, &sockets, 0, &transport) != PJ_SUCCESS ||
        pjmedia_transport_attach(transport, &pools, &peer_addr, &peer_addr, sizeof(peer_addr), on_rtp, on_rtp) !=
            PJ_SUCCESS ||
        pj_thread_create(pool, "poller", poll_when_told, NULL, 0, 0, &poller) != PJ_SUCCESS)
        return 4;

    sendto(peer, packet, sizeof(packet), 0, (struct sockaddr*)&local, sizeof(local));
    is_starting = 1;
    if (pjmedia_transport_media_start(transport, NULL, NULL, NULL, 0) != PJ_SUCCESS)
        return 4;
    is_starting = 0;
    sem_post(&may_poll);
    pj_thread_join(poller);

    early = heard;
    sendto(peer, packet, sizeof(packet), 0, (struct sockaddr*)&local, sizeof(local));
    for (turn = 0; turn < 10 && heard == early; ++turn)
        pj_ioqueue_poll(ioqueue, &wait);
    printf("%d %d\n", early, heard - early);
    return 0;
}
