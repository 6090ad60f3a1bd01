/* One tap: two rings on the bridge, and the time line that they are laid on.
 *
 * tap_ring.c  the ring and the port: written by the media clock's thread
 * tap_line.c  the time line: read by the pump, pure arithmetic and copying
 * tap.c       the registry and the Python side
 */
#ifndef SEALTRUNK_TAP_H
#define SEALTRUNK_TAP_H

#include "native.h"

#include <stdatomic.h>

enum { TAP_MIXED = 1, TAP_SPLIT = 2 };

/* One frame of one channel: the bridge's timestamp and the wall clock's. */
typedef struct tap_slot {
    uint64_t timestamp;
    int64_t written_at_ns;
    int16_t samples[];
} tap_slot;

/* Single producer (the media clock), single consumer (the drain). `head` and
 * `tail` count slots for ever; their difference is what waits. */
typedef struct tap_ring {
    pjmedia_port port;
    pj_pool_t *pool;
    struct tap *owner;
    pjsua_conf_port_id slot, source;
    unsigned char *memory;
    size_t memory_bytes, stride;
    uint32_t capacity;
    unsigned samples;
    bool locked;
    _Alignas(64) _Atomic uint32_t head;
    _Atomic uint64_t overruns, silences, last_timestamp;
    _Alignas(64) _Atomic uint32_t tail;
} tap_ring;

/* What the drain knows of a tap between two drains. Units are frames. */
typedef struct tap_line {
    int64_t started_at_ns, unit_ns;
    uint64_t position;
    uint64_t expected_timestamp;
    bool has_expected;
    int64_t late_since_ns;
    uint64_t gap_pending, gap_since_frame;
    uint64_t gap_total, late_dropped;
    uint64_t overruns_reported[2];
} tap_line;

typedef struct tap {
    int64_t id;
    unsigned samples;
    int layout;
    _Atomic int references;
    tap_ring ring[2];
    tap_line line;
} tap;

/* One entry of what tap_drain_all returns. */
typedef struct tap_span {
    int64_t tap_id;
    size_t offset;
    uint64_t frames, gap_frames;
    uint32_t overruns;
} tap_span;

/* Spans and the caller's buffer, both filled from the front. */
typedef struct tap_output {
    unsigned char *buffer;
    size_t size, used;
    tap_span *spans;
    size_t span_count, span_capacity;
    bool failed;
} tap_output;

pj_status_t tap_ring_open(tap_ring *ring, tap *owner, unsigned rate_hz, unsigned ring_ms, unsigned ptime_ms);
void tap_ring_close(tap_ring *ring);
tap_slot *tap_ring_peek(tap_ring *ring);
void tap_ring_consume(tap_ring *ring);
uint32_t tap_ring_waiting(tap_ring *ring);
int64_t tap_now_ns(void);

/* Everything that waits in the rings, as far as the buffer has room. `now_ns` is
 * the wall clock read before the rings are: what is older has been published. */
void tap_line_drain(tap *tap, int64_t now_ns, tap_output *output);

#endif
