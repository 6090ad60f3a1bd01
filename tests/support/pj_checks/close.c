/* A media transport is closed by one thread while another is about to send on
 * it, and a socket opened right behind gets the number of the closed one.
 * sendto() of this program holds the sender until the transport is closed, but
 * not longer than 300 ms.
 *
 * Prints through whose socket the packet left: own, foreign or none, and then
 * the same of a packet that is sent after the close.
 */
#include <arpa/inet.h>
#include <pjlib-util.h>
#include <pjlib.h>
#include <pjmedia.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static sem_t is_sending, is_closed;
static pjmedia_transport *transport;

ssize_t sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *to, socklen_t length)
{
    struct timespec limit;

    sem_post(&is_sending);
    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_nsec += 300000000;
    limit.tv_sec += limit.tv_nsec / 1000000000;
    limit.tv_nsec %= 1000000000;
    sem_timedwait(&is_closed, &limit);
    return syscall(SYS_sendto, fd, data, size, flags, to, length);
}

static void on_rtp(void *user_data, void *pkt, pj_ssize_t size)
{
    (void)user_data, (void)pkt, (void)size;
}

static int send_one(void *arg)
{
    char packet[64] = {(char)0x80};

    (void)arg;
    pjmedia_transport_send_rtp(transport, packet, sizeof(packet));
    return 0;
}

static int open_socket(struct sockaddr_in *name)
{
    struct timeval limit = {0, 100000};
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

static const char *source(int peer, const struct sockaddr_in *own)
{
    struct sockaddr_in from;
    socklen_t length = sizeof(from);
    char packet[64];

    if (recvfrom(peer, packet, sizeof(packet), 0, (struct sockaddr*)&from, &length) < 0)
        return "none";
    return from.sin_port == own->sin_port ? "own" : "foreign";
}

int main(void)
{
    pj_caching_pool pools;
    pj_pool_t *pool;
    pj_ioqueue_t *ioqueue;
    pjmedia_endpt *endpt;
    pjmedia_sock_info sockets;
    pj_thread_t *thread;
    struct sockaddr_in peer_addr, own, next;
    int peer, number;

    pj_log_set_level(0);
    pj_init();
    pjlib_util_init();
    pj_caching_pool_init(&pools, NULL, 0);
    pool = pj_pool_create(&pools.factory, "check", 4000, 4000, NULL);
    sem_init(&is_sending, 0, 0);
    sem_init(&is_closed, 0, 0);
    peer = open_socket(&peer_addr);
    if (pj_ioqueue_create(pool, 64, &ioqueue) != PJ_SUCCESS ||
        pjmedia_endpt_create(&pools.factory, ioqueue, 0, &endpt) != PJ_SUCCESS)
        return 4;
    memset(&sockets, 0, sizeof(sockets));
    sockets.rtp_sock = number = open_socket(&own);
    memcpy(&sockets.rtp_addr_name, &own, sizeof(own));
    sockets.rtcp_sock = open_socket((struct sockaddr_in*)&sockets.rtcp_addr_name);
    if (pjmedia_transport_udp_attach(endpt, NULL, &sockets, 0, &transport) != PJ_SUCCESS ||
        pjmedia_transport_attach(transport, &pools, &peer_addr, &peer_addr, sizeof(peer_addr), on_rtp, on_rtp) !=
            PJ_SUCCESS ||
        pjmedia_transport_media_start(transport, NULL, NULL, NULL, 0) != PJ_SUCCESS ||
        pj_thread_create(pool, "sender", send_one, NULL, 0, 0, &thread) != PJ_SUCCESS)
        return 4;

    /* As a stream holds it. */
    pj_grp_lock_add_ref(transport->grp_lock);
    sem_wait(&is_sending);
    pjmedia_transport_close(transport);
    if (open_socket(&next) != number)
        return 5;
    sem_post(&is_closed);
    pj_thread_join(thread);
    printf("%s ", source(peer, &own));
    sem_post(&is_closed);
    send_one(NULL);
    printf("%s\n", source(peer, &own));
    return 0;
}
