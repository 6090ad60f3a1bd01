/* The media of many call legs on one thread: a packet of G.711 every 20 ms each way, protected and opened with
 * libsrtp, with a count of everything that a receiver can count. It shares nothing with the program that it loads but
 * the library.
 *
 * Every leg has two UDP sockets of its own (RTP on an even port, RTCP on the next). Time is cut into ticks of 1 ms; a
 * leg sends in one tick of twenty, so that packets arrive spread out as they do from independent callers. Datagrams
 * are taken once in a tick, which keeps the generator's own wake-ups off the machine that is measured.
 *
 * Any thread may call the functions; a mutex makes them take turns with a tick.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <srtp2/srtp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    MAX_LEGS = 4096,
    TICKS_PER_PACKET = 20,
    TICK_NS = 1000000,
    LATE_NS = 5000000, /* a tick this late is counted: the far end's jitter buffer begins to matter */
    SAMPLES = 160,
    RTP_HEADER = 12,
    DATAGRAM = 1500,
    RECEIVE_BUFFER = 262144,
    PORT_TRIES = 200,
    EVENTS = 512,
    VOICED_OCTETS = 8
};

struct counts {
    uint64_t sent, send_errors;
    uint64_t received, expected; /* authentic RTP packets; what their sequence numbers span */
    uint64_t voiced;             /* of the received: those that hold more than silence */
    uint64_t refused;            /* datagrams that failed authentication or were replays */
    uint64_t reports;            /* RTCP reports on our packets */
    int64_t far_lost;            /* our packets that the far end misses, as its last report says */
    uint64_t far_expected;       /* our packets that the far end expected by then */
};

struct health {
    uint64_t ticks, late_ticks;
    int64_t worst_late_ns;
};

struct leg {
    int rtp, rtcp; /* -1: the place is free */
    int open;      /* it has keys and moves packets */
    srtp_t out, in;
    struct sockaddr_in remote;
    uint16_t sequence, first_sequence;
    uint32_t timestamp, ssrc;
    size_t position;
    uint32_t first_received, highest_received; /* extended sequence numbers */
    int has_received;
    struct counts counts;
};

static struct {
    pthread_mutex_t lock;
    pthread_t thread;
    _Atomic int running;
    int epoll;
    struct leg legs[MAX_LEGS];
    int places; /* one past the highest place ever used */
    unsigned char *source;
    size_t source_packets;
    struct health health;
} media = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int64_t now_ns(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (int64_t)at.tv_sec * 1000000000 + at.tv_nsec;
}

static void send_packet(struct leg *leg)
{
    unsigned char packet[DATAGRAM];
    int length = RTP_HEADER + SAMPLES;
    uint16_t sequence = htons(leg->sequence);
    uint32_t timestamp = htonl(leg->timestamp), ssrc = htonl(leg->ssrc);

    packet[0] = 0x80;
    packet[1] = 0; /* PCMU */
    memcpy(packet + 2, &sequence, 2);
    memcpy(packet + 4, &timestamp, 4);
    memcpy(packet + 8, &ssrc, 4);
    memcpy(packet + RTP_HEADER, media.source + leg->position * SAMPLES, SAMPLES);
    leg->position = (leg->position + 1) % media.source_packets;
    leg->sequence++;
    leg->timestamp += SAMPLES;
    if (srtp_protect(leg->out, packet, &length) != srtp_err_status_ok ||
        sendto(leg->rtp, packet, (size_t)length, 0, (struct sockaddr *)&leg->remote, sizeof leg->remote) != length)
        leg->counts.send_errors++;
    else
        leg->counts.sent++;
}

/* Mu-law codes magnitude inverted: 0x7f is zero, and everything down to 0x70 is nearly that. */
static int is_voiced(const unsigned char *octets, int count)
{
    int loud = 0;
    for (int i = 0; i < count; i++)
        loud += (octets[i] & 0x7f) < 0x60;
    return loud >= VOICED_OCTETS;
}

static void take_rtp(struct leg *leg, unsigned char *packet, int length)
{
    uint16_t sequence;
    uint32_t extended;

    if (srtp_unprotect(leg->in, packet, &length) != srtp_err_status_ok || length <= RTP_HEADER) {
        leg->counts.refused++;
        return;
    }
    memcpy(&sequence, packet + 2, 2);
    sequence = ntohs(sequence);
    if (!leg->has_received) {
        leg->has_received = 1;
        leg->first_received = leg->highest_received = extended = 0x10000u + sequence;
    } else {
        extended = leg->highest_received + (uint32_t)(int16_t)(sequence - (uint16_t)leg->highest_received);
        if ((int32_t)(extended - leg->highest_received) > 0)
            leg->highest_received = extended;
    }
    if ((int32_t)(extended - leg->first_received) < 0)
        leg->first_received = extended;
    leg->counts.received++;
    leg->counts.expected = leg->highest_received - leg->first_received + 1;
    leg->counts.voiced += (uint64_t)is_voiced(packet + RTP_HEADER, length - RTP_HEADER);
}

/* Report blocks on our stream in a compound packet. Source: RFC 3550 section 6.4. */
static void take_rtcp(struct leg *leg, unsigned char *packet, int length)
{
    int at = 0;

    if (srtp_unprotect_rtcp(leg->in, packet, &length) != srtp_err_status_ok)
        return;
    while (at + 8 <= length) {
        int blocks = packet[at] & 0x1f, kind = packet[at + 1];
        int size = 4 * (1 + (packet[at + 2] << 8 | packet[at + 3]));
        int block = at + (kind == 200 ? 28 : 8);
        for (; (kind == 200 || kind == 201) && blocks > 0 && block + 24 <= length; blocks--, block += 24) {
            uint32_t ssrc, lost, highest;
            memcpy(&ssrc, packet + block, 4);
            memcpy(&lost, packet + block + 4, 4);
            memcpy(&highest, packet + block + 8, 4);
            if (ntohl(ssrc) != leg->ssrc)
                continue;
            leg->counts.reports++;
            leg->counts.far_lost = (int32_t)(ntohl(lost) << 8) >> 8;
            leg->counts.far_expected = ntohl(highest) - leg->first_sequence + 1u;
        }
        at += size;
    }
}

/* epoll's datum: place * 2, and 1 more for RTCP. */
static void take_datagrams(void)
{
    struct epoll_event events[EVENTS];
    unsigned char packet[DATAGRAM];
    int count;

    do {
        count = epoll_wait(media.epoll, events, EVENTS, 0);
        for (int i = 0; i < count; i++) {
            struct leg *leg = &media.legs[events[i].data.u32 / 2];
            int is_rtcp = events[i].data.u32 & 1;
            ssize_t length = recv(is_rtcp ? leg->rtcp : leg->rtp, packet, sizeof packet, MSG_DONTWAIT);
            if (length <= 0 || !leg->open)
                continue;
            if (is_rtcp)
                take_rtcp(leg, packet, (int)length);
            else
                take_rtp(leg, packet, (int)length);
        }
    } while (count == EVENTS);
}

static void *run(void *unused)
{
    int64_t due = now_ns();

    (void)unused;
    prctl(PR_SET_NAME, "generator");
    prctl(PR_SET_TIMERSLACK, 1000);
    for (uint64_t tick = 0; media.running; tick++) {
        struct timespec at = {.tv_sec = due / 1000000000, .tv_nsec = due % 1000000000};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
        int64_t late = now_ns() - due;

        pthread_mutex_lock(&media.lock);
        media.health.ticks++;
        media.health.late_ticks += late > LATE_NS;
        if (late > media.health.worst_late_ns)
            media.health.worst_late_ns = late;
        for (int place = (int)(tick % TICKS_PER_PACKET); place < media.places; place += TICKS_PER_PACKET)
            if (media.legs[place].open)
                send_packet(&media.legs[place]);
        take_datagrams();
        pthread_mutex_unlock(&media.lock);
        due += TICK_NS;
    }
    return NULL;
}

/* Two sockets on an even port and the next (RFC 3550 section 11); 0, or an errno. */
static int bind_pair(const char *address, int *rtp, int *rtcp, int *port)
{
    struct sockaddr_in local = {.sin_family = AF_INET};
    int room = RECEIVE_BUFFER;

    if (inet_pton(AF_INET, address, &local.sin_addr) != 1)
        return EINVAL;
    for (int tries = 0; tries < PORT_TRIES; tries++) {
        struct sockaddr_in bound;
        socklen_t size = sizeof bound;
        int first = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        int second = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (first < 0 || second < 0)
            return errno;
        local.sin_port = 0;
        if (bind(first, (struct sockaddr *)&local, sizeof local) == 0 &&
            getsockname(first, (struct sockaddr *)&bound, &size) == 0) {
            int number = ntohs(bound.sin_port);
            local.sin_port = htons((uint16_t)(number ^ 1));
            if (bind(second, (struct sockaddr *)&local, sizeof local) == 0) {
                *rtp = number % 2 ? second : first;
                *rtcp = number % 2 ? first : second;
                *port = number & ~1;
                setsockopt(*rtp, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
                return 0;
            }
        }
        close(first);
        close(second);
    }
    return EADDRINUSE;
}

static srtp_t session(int profile, const unsigned char *key, srtp_ssrc_type_t direction)
{
    srtp_policy_t policy = {.ssrc = {.type = direction}, .key = (unsigned char *)key, .window_size = 1024};
    srtp_t made = NULL;

    srtp_crypto_policy_set_from_profile_for_rtp(&policy.rtp, (srtp_profile_t)profile);
    srtp_crypto_policy_set_from_profile_for_rtcp(&policy.rtcp, (srtp_profile_t)profile);
    return srtp_create(&made, &policy) == srtp_err_status_ok ? made : NULL;
}

static int in_use(int place)
{
    return place >= 0 && place < media.places && media.legs[place].rtp >= 0;
}

static void stop_moving(struct leg *leg)
{
    leg->open = 0;
    if (leg->out)
        srtp_dealloc(leg->out);
    if (leg->in)
        srtp_dealloc(leg->in);
    leg->out = leg->in = NULL;
}

static int add(struct leg *leg, int place, const char *address, int *port)
{
    int rtp = -1, rtcp = -1, error = bind_pair(address, &rtp, &rtcp, port);

    if (error)
        return error;
    memset(leg, 0, sizeof *leg);
    leg->rtp = rtp;
    leg->rtcp = rtcp;
    struct epoll_event media_event = {.events = EPOLLIN, .data.u32 = (uint32_t)place * 2};
    struct epoll_event report_event = {.events = EPOLLIN, .data.u32 = (uint32_t)place * 2 + 1};
    if (epoll_ctl(media.epoll, EPOLL_CTL_ADD, rtp, &media_event) < 0 ||
        epoll_ctl(media.epoll, EPOLL_CTL_ADD, rtcp, &report_event) < 0) {
        error = errno;
        close(rtp);
        close(rtcp);
        leg->rtp = leg->rtcp = -1;
        return error;
    }
    return 0;
}

/* Start the thread; every leg says the same `packets` packets over and over, each from another place. 0, or -errno. */
int media_open(const unsigned char *octets, size_t packets)
{
    if (media.running || packets == 0)
        return -EINVAL;
    if (srtp_init() != srtp_err_status_ok)
        return -ENOTRECOVERABLE;
    media.source = malloc(packets * SAMPLES);
    media.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!media.source || media.epoll < 0)
        return -errno;
    memcpy(media.source, octets, packets * SAMPLES);
    media.source_packets = packets;
    media.places = 0;
    memset(&media.health, 0, sizeof media.health);
    media.running = 1;
    int error = pthread_create(&media.thread, NULL, run, NULL);
    if (error)
        media.running = 0;
    return -error;
}

/* A leg with sockets but no keys; its place (0 and up), or -errno. */
int media_add(const char *address, int *port)
{
    int place = 0, error;

    pthread_mutex_lock(&media.lock);
    while (place < media.places && media.legs[place].rtp >= 0)
        place++;
    error = place == MAX_LEGS ? ENFILE : add(&media.legs[place], place, address, port);
    if (error == 0 && place == media.places)
        media.places++;
    pthread_mutex_unlock(&media.lock);
    return error ? -error : place;
}

/* Move packets from now on; once in the life of a leg. 0, or -errno. */
int media_start(int place, const char *address, int port, int profile, const unsigned char *out_key,
                const unsigned char *in_key)
{
    struct leg *leg;
    int result = -EINVAL;

    pthread_mutex_lock(&media.lock);
    if (in_use(place) && !media.legs[place].open) {
        leg = &media.legs[place];
        stop_moving(leg); /* what a start that failed left */
        leg->out = session(profile, out_key, ssrc_any_outbound);
        leg->in = session(profile, in_key, ssrc_any_inbound);
        leg->remote = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
        if (leg->out && leg->in && inet_pton(AF_INET, address, &leg->remote.sin_addr) == 1) {
            uint32_t chance[3] = {0};
            if (getrandom(chance, sizeof chance, 0) < 0)
                chance[0] = (uint32_t)now_ns();
            leg->ssrc = chance[0];
            leg->sequence = leg->first_sequence = (uint16_t)(chance[1] & 0x3fff);
            leg->timestamp = chance[2];
            leg->position = chance[1] % media.source_packets;
            leg->open = 1;
            result = 0;
        }
    }
    pthread_mutex_unlock(&media.lock);
    return result;
}

int media_counts(int place, struct counts *counts)
{
    int result = -EINVAL;

    pthread_mutex_lock(&media.lock);
    if (in_use(place)) {
        *counts = media.legs[place].counts;
        result = 0;
    }
    pthread_mutex_unlock(&media.lock);
    return result;
}

int media_remove(int place)
{
    int result = -EINVAL;

    pthread_mutex_lock(&media.lock);
    if (in_use(place)) {
        struct leg *leg = &media.legs[place];
        stop_moving(leg);
        close(leg->rtp);
        close(leg->rtcp);
        leg->rtp = leg->rtcp = -1;
        result = 0;
    }
    pthread_mutex_unlock(&media.lock);
    return result;
}

/* What the generator did late since the last call. */
void media_health(struct health *health)
{
    pthread_mutex_lock(&media.lock);
    *health = media.health;
    memset(&media.health, 0, sizeof media.health);
    pthread_mutex_unlock(&media.lock);
}

void media_close(void)
{
    if (!media.running)
        return;
    media.running = 0;
    pthread_join(media.thread, NULL);
    for (int place = 0; place < media.places; place++)
        if (media.legs[place].rtp >= 0)
            media_remove(place);
    close(media.epoll);
    free(media.source);
    srtp_shutdown();
}
