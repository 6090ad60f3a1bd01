/* The time line of a tap: what waits in two rings becomes one run of audio
 * that lasts as long as the wall clock says.
 *
 * The media clock ticks by CLOCK_MONOTONIC. When it is late by up to 500 ms it
 * catches up in a burst; when it is later it skips, and its timestamps know
 * nothing of the time that passed. So a frame is laid where its own clock
 * reading says: lateness that a burst may still make good is waited for,
 * lateness that is final becomes silence, and a frame for a time that silence
 * already covers is dropped. Position and wall clock so never part by more
 * than 100 ms for longer than the wait.
 */
#include "tap.h"

#define MS INT64_C(1000000)

/* More than this behind is a gap once it lasts: the promise of the interface. */
#define LATE_NS (100 * MS)
/* pjmedia's clock skips when over 500 ms late; a tick of slack on top. */
#define SKIPPED_NS (520 * MS)
/* Burst over: lateness that is still there is final. */
#define LASTING_NS (500 * MS)
/* Two frames: the clock fires one late tick before it notices that it skipped. */
#define EARLY_NS (-40 * MS)
/* A channel this many frames ahead no longer waits for the other: ticks write
 * both within milliseconds, so the other's port is gone or not yet there. */
enum { ALONE_AFTER = 10 };
/* A larger step of the timestamp is a restarted clock, not lost frames. */
enum { STEP_MAX = 1 << 16 };

static size_t unit_bytes(const tap *tap)
{
    return tap->samples * sizeof(int16_t) * (tap->layout == TAP_SPLIT ? 2 : 1);
}

static tap_span *span_add(tap *tap, tap_output *output)
{
    tap_span *span;

    if (output->span_count == output->span_capacity) {
        size_t capacity = output->span_capacity ? output->span_capacity * 2 : 64;
        tap_span *spans = realloc(output->spans, capacity * sizeof(*spans));
        if (!spans) {
            output->failed = true;
            return NULL;
        }
        output->spans = spans;
        output->span_capacity = capacity;
    }
    span = &output->spans[output->span_count++];
    *span = (tap_span){ .tap_id = tap->id, .offset = output->used };
    return span;
}

/* The span to append to: a gap may only stand at the front of one. */
static tap_span *span_for(tap *tap, tap_output *output, size_t first_span, bool gap)
{
    if (output->span_count > first_span) {
        tap_span *last = &output->spans[output->span_count - 1];
        if (!gap || last->gap_frames == last->frames)
            return last;
    }
    return span_add(tap, output);
}

/* False when the buffer or memory is full; what is left stays pending. */
static bool write_gap(tap *tap, tap_output *output, size_t first_span)
{
    tap_line *line = &tap->line;
    size_t bytes = unit_bytes(tap);
    uint64_t units = (output->size - output->used) / bytes;
    tap_span *span;

    if (line->gap_pending == 0)
        return true;
    if (units > line->gap_pending)
        units = line->gap_pending;
    if (units == 0)
        return false;
    span = span_for(tap, output, first_span, true);
    if (!span)
        return false;
    memset(output->buffer + output->used, 0, units * bytes);
    output->used += units * bytes;
    span->frames += units * tap->samples;
    span->gap_frames += units * tap->samples;
    line->gap_pending -= units;
    line->gap_total += units;
    return line->gap_pending == 0;
}

/* Eight samples at a time, whatever the level of optimisation of the rest: 1,000
 * taps make 8 million samples a second. */
#if defined(__GNUC__) && !defined(__clang__)
#   define VECTORISED __attribute__((optimize("O3")))
#else
#   define VECTORISED
#endif

VECTORISED
static void mix(int16_t *restrict out, const int16_t *restrict a, const int16_t *restrict b, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        int32_t sum = (int32_t)a[i] + b[i];
        sum = sum > INT16_MAX ? INT16_MAX : sum;
        out[i] = (int16_t)(sum < INT16_MIN ? INT16_MIN : sum);
    }
}

static void interleave(int16_t *restrict out, const int16_t *restrict a, const int16_t *restrict b,
                       unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        out[2 * i] = a[i];
        out[2 * i + 1] = b[i];
    }
}

/* One frame of both channels; a channel that has none is silent. */
static bool write_unit(tap *tap, tap_output *output, size_t first_span, tap_slot *const pair[2])
{
    static const int16_t silence[48000 / 1000 * 120];
    const int16_t *a = pair[0] ? pair[0]->samples : silence;
    const int16_t *b = pair[1] ? pair[1]->samples : silence;
    size_t bytes = unit_bytes(tap);
    int16_t *out = (int16_t *)(void *)(output->buffer + output->used);
    tap_span *span;

    if (output->size - output->used < bytes)
        return false;
    span = span_for(tap, output, first_span, false);
    if (!span)
        return false;
    if (tap->layout == TAP_SPLIT)
        interleave(out, a, b, tap->samples);
    else
        mix(out, a, b, tap->samples);
    output->used += bytes;
    span->frames += tap->samples;
    return true;
}

static void add_gap(tap_line *line, uint64_t units)
{
    line->gap_pending += units;
    line->gap_since_frame += units;
    line->position += units;
}

/* Oldest first: the slots of the next tick, NULL for a channel without one.
 * False while the other channel's frame of that tick may still come. */
static bool next_pair(tap *tap, tap_slot *pair[2])
{
    pair[0] = tap_ring_peek(&tap->ring[0]);
    pair[1] = tap_ring_peek(&tap->ring[1]);
    if (!pair[0] && !pair[1])
        return false;
    if (!pair[0] || !pair[1])
        return tap_ring_waiting(&tap->ring[pair[0] ? 0 : 1]) > ALONE_AFTER;
    if (pair[0]->timestamp != pair[1]->timestamp) {
        uint64_t step = pair[1]->timestamp - pair[0]->timestamp;
        bool a_first = (int64_t)step > 0;
        if (step + (uint64_t)tap->samples * STEP_MAX > 2 * (uint64_t)tap->samples * STEP_MAX)
            a_first = pair[0]->written_at_ns < pair[1]->written_at_ns;
        pair[a_first ? 1 : 0] = NULL;
    }
    return true;
}

/* Frames that found a ring full are missing from the run of timestamps. Silence
 * put in since the last frame, while the clock seemed to stand, covers them. */
static void account_lost(tap *tap, tap_slot *const pair[2])
{
    tap_line *line = &tap->line;
    uint64_t timestamp = (pair[0] ? pair[0] : pair[1])->timestamp;
    uint64_t missing = (timestamp - line->expected_timestamp) / tap->samples;

    if (line->has_expected && timestamp >= line->expected_timestamp && missing <= STEP_MAX &&
        missing > line->gap_since_frame)
        add_gap(line, missing - line->gap_since_frame);
    line->has_expected = true;
    line->expected_timestamp = timestamp;
}

/* Compare with the wall clock. False: this frame's time is already covered. */
static bool keep_time(tap_line *line, int64_t at_ns)
{
    int64_t behind = at_ns - line->started_at_ns - (int64_t)line->position * line->unit_ns;

    if (behind <= LATE_NS) {
        line->late_since_ns = 0;
        return behind >= EARLY_NS;
    }
    if (line->late_since_ns == 0)
        line->late_since_ns = at_ns;
    if (behind > SKIPPED_NS || at_ns - line->late_since_ns > LASTING_NS) {
        add_gap(line, (uint64_t)(behind / line->unit_ns));
        line->late_since_ns = 0;
    }
    return true;
}

static void consume(tap *tap, tap_slot *const pair[2])
{
    tap->line.expected_timestamp += tap->samples;
    tap->line.gap_since_frame = 0;
    for (int i = 0; i < 2; i++)
        if (pair[i])
            tap_ring_consume(&tap->ring[i]);
}

/* Frames lost on either channel since the last report; both channels lose the
 * same ticks unless the drain freed a slot between the two writes of a tick. */
static void report_lost(tap *tap, tap_output *output, size_t first_span)
{
    tap_line *line = &tap->line;
    uint64_t most = 0;

    if (output->span_count == first_span)
        return;
    for (int i = 0; i < 2; i++) {
        uint64_t total = atomic_load_explicit(&tap->ring[i].overruns, memory_order_relaxed);
        uint64_t fresh = total - line->overruns_reported[i];
        line->overruns_reported[i] = total;
        most = fresh > most ? fresh : most;
    }
    output->spans[output->span_count - 1].overruns = (uint32_t)most;
}

void tap_line_drain(tap *tap, int64_t now_ns, tap_output *output)
{
    tap_line *line = &tap->line;
    size_t first_span = output->span_count;
    tap_slot *pair[2];

    while (write_gap(tap, output, first_span) && next_pair(tap, pair)) {
        account_lost(tap, pair);
        if (!keep_time(line, (pair[0] ? pair[0] : pair[1])->written_at_ns)) {
            line->late_dropped++;
            consume(tap, pair);
            continue;
        }
        if (!write_gap(tap, output, first_span) || !write_unit(tap, output, first_span, pair))
            break;
        line->position++;
        consume(tap, pair);
    }

    /* A clock that stands still gives no frame to tell its lateness by. */
    if (line->gap_pending == 0 && !tap_ring_waiting(&tap->ring[0]) && !tap_ring_waiting(&tap->ring[1])) {
        int64_t behind = now_ns - line->started_at_ns - (int64_t)line->position * line->unit_ns;
        if (behind > SKIPPED_NS) {
            add_gap(line, (uint64_t)(behind / line->unit_ns));
            write_gap(tap, output, first_span);
        }
    }
    report_lost(tap, output, first_span);
}
