/* The ring of one channel and the conference port that fills it.
 *
 * put_frame() runs on the media clock's thread for every call at once, so it
 * may neither block nor take the GIL: it copies a frame and publishes it.
 */
#include "tap.h"

#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

int64_t tap_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static tap_slot *slot_at(const tap_ring *ring, uint32_t index)
{
    return (tap_slot *)(void *)(ring->memory + (size_t)(index & (ring->capacity - 1)) * ring->stride);
}

/* A ring that is full loses the new frame: what was recorded is never overwritten. */
static pj_status_t on_put_frame(pjmedia_port *port, pjmedia_frame *frame)
{
    tap_ring *ring = (tap_ring *)port;
    uint32_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    uint32_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
    size_t bytes = ring->samples * sizeof(int16_t);
    tap_slot *slot;

    atomic_store_explicit(&ring->last_timestamp, frame->timestamp.u64, memory_order_relaxed);
    if (head - tail >= ring->capacity) {
        atomic_fetch_add_explicit(&ring->overruns, 1, memory_order_relaxed);
        return PJ_SUCCESS;
    }

    slot = slot_at(ring, head);
    slot->timestamp = frame->timestamp.u64;
    slot->written_at_ns = tap_now_ns();
    if (frame->type == PJMEDIA_FRAME_TYPE_AUDIO && frame->buf && frame->size >= bytes) {
        memcpy(slot->samples, frame->buf, bytes);
    } else {
        memset(slot->samples, 0, bytes);
        atomic_fetch_add_explicit(&ring->silences, 1, memory_order_relaxed);
    }
    atomic_store_explicit(&ring->head, head + 1, memory_order_release);
    return PJ_SUCCESS;
}

static pj_status_t on_get_frame(pjmedia_port *port, pjmedia_frame *frame)
{
    (void)port;
    frame->type = PJMEDIA_FRAME_TYPE_NONE;
    frame->size = 0;
    return PJ_SUCCESS;
}

static void memory_release(tap_ring *ring)
{
    if (!ring->memory)
        return;
    explicit_bzero(ring->memory, ring->memory_bytes);
    munmap(ring->memory, ring->memory_bytes);
    ring->memory = NULL;
}

static void owner_release(tap *owner)
{
    if (atomic_fetch_sub(&owner->references, 1) == 1)
        free(owner);
}

/* Called when the bridge has let go as well: its queue of operations may hold
 * the port for a tick after tap_free(). Any thread, no GIL. */
static pj_status_t on_destroy(pjmedia_port *port)
{
    tap_ring *ring = (tap_ring *)port;
    memory_release(ring);
    pj_pool_safe_release(&ring->pool);
    owner_release(ring->owner);
    return PJ_SUCCESS;
}

/* Page-aligned, out of core dumps, and out of swap where the limit allows it. */
static pj_status_t memory_acquire(tap_ring *ring)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t bytes = (ring->stride * ring->capacity + page - 1) / page * page;
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED)
        return PJ_ENOMEM;
    if (madvise(memory, bytes, MADV_DONTDUMP) != 0) {
        munmap(memory, bytes);
        return PJ_RETURN_OS_ERROR(errno);
    }
    ring->locked = mlock(memory, bytes) == 0;
    ring->memory = memory;
    ring->memory_bytes = bytes;
    return PJ_SUCCESS;
}

static uint32_t power_of_two(uint32_t least)
{
    uint32_t value = 1;
    while (value < least)
        value <<= 1;
    return value;
}

static pj_status_t port_open(tap_ring *ring, unsigned rate_hz)
{
    pj_str_t name = native_str("tap");
    pj_status_t status;

    ring->pool = pjsua_pool_create("tap", 1024, 512);
    if (!ring->pool)
        return PJ_ENOMEM;
    pjmedia_port_info_init(&ring->port.info, &name, PJMEDIA_SIG_CLASS_APP('T', 'A', 'P'), rate_hz, 1, 16,
                           ring->samples);
    ring->port.put_frame = &on_put_frame;
    ring->port.get_frame = &on_get_frame;
    ring->port.on_destroy = &on_destroy;
    status = pjmedia_port_init_grp_lock(&ring->port, ring->pool, NULL);
    if (status != PJ_SUCCESS)
        pj_pool_safe_release(&ring->pool);
    return status;
}

/* On failure nothing is held; on success the ring holds a reference to `owner`
 * until the bridge and tap_ring_close() have both let go. */
pj_status_t tap_ring_open(tap_ring *ring, tap *owner, unsigned rate_hz, unsigned ring_ms, unsigned ptime_ms)
{
    pj_status_t status;

    ring->owner = owner;
    ring->source = PJSUA_INVALID_ID;
    ring->samples = owner->samples;
    ring->stride = (sizeof(tap_slot) + ring->samples * sizeof(int16_t) + 15) / 16 * 16;
    ring->capacity = power_of_two((ring_ms + ptime_ms - 1) / ptime_ms);
    status = memory_acquire(ring);
    if (status != PJ_SUCCESS)
        return status;
    status = port_open(ring, rate_hz);
    if (status != PJ_SUCCESS) {
        memory_release(ring);
        return status;
    }
    atomic_fetch_add(&owner->references, 1);
    status = pjsua_conf_add_port(ring->pool, &ring->port, &ring->slot);
    if (status != PJ_SUCCESS)
        pjmedia_port_destroy(&ring->port);
    return status;
}

/* After libDestroy the bridge and its pools are gone and with them every lock:
 * then only our own memory is left to give back. */
void tap_ring_close(tap_ring *ring)
{
    if (pjsua_get_state() == PJSUA_STATE_NULL) {
        memory_release(ring);
        owner_release(ring->owner);
        return;
    }
    pjsua_conf_remove_port(ring->slot);
    pjmedia_port_destroy(&ring->port);
}

uint32_t tap_ring_waiting(tap_ring *ring)
{
    return atomic_load_explicit(&ring->head, memory_order_acquire) -
           atomic_load_explicit(&ring->tail, memory_order_relaxed);
}

tap_slot *tap_ring_peek(tap_ring *ring)
{
    return tap_ring_waiting(ring) ? slot_at(ring, atomic_load_explicit(&ring->tail, memory_order_relaxed)) : NULL;
}

void tap_ring_consume(tap_ring *ring)
{
    uint32_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    atomic_store_explicit(&ring->tail, tail + 1, memory_order_release);
}
