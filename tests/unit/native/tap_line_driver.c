/* Feeds the time line of a tap with frames and clock readings that a test
 * chose, and prints what it made of them.
 *
 *   p CHANNEL TIMESTAMP AT_NS VALUE   a frame of one value; a full ring counts an overrun
 *   d NOW_NS BYTES                    a drain into so large a buffer
 *
 * A drain prints one line a span, "s FRAMES GAP OVERRUNS", then the samples of
 * all spans as "a VALUE COUNT" runs (SPLIT: channel 0, then channel 1 as "b"),
 * then "." with the frames dropped as late so far.
 */
#include "tap.h"

#include <stdio.h>
#include <stdlib.h>

enum { SAMPLES = 160, UNIT_NS = 20000000 };

static void ring_init(tap_ring *ring, uint32_t capacity)
{
    ring->samples = SAMPLES;
    ring->stride = (sizeof(tap_slot) + SAMPLES * sizeof(int16_t) + 15) / 16 * 16;
    ring->capacity = capacity;
    ring->memory = calloc(capacity, ring->stride);
}

static void put(tap_ring *ring, uint64_t timestamp, int64_t at_ns, int value)
{
    uint32_t head = atomic_load(&ring->head);
    tap_slot *slot = (void *)(ring->memory + (size_t)(head & (ring->capacity - 1)) * ring->stride);

    if (tap_ring_waiting(ring) >= ring->capacity) {
        atomic_fetch_add(&ring->overruns, 1);
        return;
    }
    slot->timestamp = timestamp;
    slot->written_at_ns = at_ns;
    for (int i = 0; i < SAMPLES; i++)
        slot->samples[i] = (int16_t)value;
    atomic_store(&ring->head, head + 1);
}

static void print_runs(char name, const int16_t *samples, size_t count, size_t step)
{
    for (size_t start = 0, end; start < count; start = end) {
        for (end = start; end < count && samples[end * step] == samples[start * step]; end++)
            ;
        printf("%c %d %zu\n", name, samples[start * step], end - start);
    }
}

static void drain(tap *tap, int64_t now_ns, size_t bytes)
{
    size_t width = tap->layout == TAP_SPLIT ? 2 : 1;
    tap_output output = { .buffer = malloc(bytes), .size = bytes };
    const int16_t *samples = (void *)output.buffer;

    tap_line_drain(tap, now_ns, &output);
    for (size_t i = 0, used = 0; i < output.span_count; i++) {
        const tap_span *span = &output.spans[i];
        if (span->offset != used)
            printf("! span at %zu, not %zu\n", span->offset, used);
        used += span->frames * width * sizeof(int16_t);
        printf("s %llu %llu %u\n", (unsigned long long)span->frames, (unsigned long long)span->gap_frames,
               span->overruns);
    }
    print_runs('a', samples, output.used / sizeof(int16_t) / width, width);
    if (width == 2)
        print_runs('b', samples + 1, output.used / sizeof(int16_t) / width, width);
    printf(". %llu\n", (unsigned long long)tap->line.late_dropped);
    fflush(stdout);
    free(output.spans);
    free(output.buffer);
}

int main(int argc, char **argv)
{
    tap *tap = aligned_alloc(64, (sizeof(*tap) + 63) / 64 * 64);
    char line[128];

    memset(tap, 0, sizeof(*tap));
    tap->id = 1;
    tap->samples = SAMPLES;
    tap->layout = argc > 2 && strcmp(argv[2], "split") == 0 ? TAP_SPLIT : TAP_MIXED;
    tap->line.unit_ns = UNIT_NS;
    tap->line.started_at_ns = 1000000000;
    for (int i = 0; i < 2; i++)
        ring_init(&tap->ring[i], (uint32_t)atoi(argv[1]));
    while (fgets(line, sizeof(line), stdin)) {
        unsigned long long timestamp;
        long long at_ns;
        size_t bytes;
        int channel, value;
        if (sscanf(line, "p %d %llu %lld %d", &channel, &timestamp, &at_ns, &value) == 4)
            put(&tap->ring[channel], timestamp, at_ns, value);
        else if (sscanf(line, "d %lld %zu", &at_ns, &bytes) == 2)
            drain(tap, at_ns, bytes);
        else
            return 2;
    }
    for (int i = 0; i < 2; i++)
        free(tap->ring[i].memory);
    free(tap);
    return 0;
}
