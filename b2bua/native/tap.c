/* The taps of the process and their Python side.
 *
 * The registry's mutex is held by one drain, or by a change of the list; the
 * GIL is never waited for while it is held.
 */
#include "tap.h"

#include <pthread.h>
#include <stdlib.h>

static pthread_mutex_t registry_mutex = PTHREAD_MUTEX_INITIALIZER;
static tap **registry;
static size_t registry_count, registry_capacity, registry_next;
static int64_t last_id;

static tap *registry_find(int64_t id, size_t *index)
{
    for (size_t i = 0; i < registry_count; i++)
        if (registry[i]->id == id) {
            if (index)
                *index = i;
            return registry[i];
        }
    return NULL;
}

static bool registry_add(tap *tap)
{
    bool added = true;

    pthread_mutex_lock(&registry_mutex);
    if (registry_count == registry_capacity) {
        size_t capacity = registry_capacity ? registry_capacity * 2 : 64;
        void *grown = realloc(registry, capacity * sizeof(*registry));
        added = grown != NULL;
        if (added) {
            registry = grown;
            registry_capacity = capacity;
        }
    }
    if (added) {
        tap->id = ++last_id;
        registry[registry_count++] = tap;
    }
    pthread_mutex_unlock(&registry_mutex);
    return added;
}

/* From here on no drain touches the tap. `waiting`: frames not drained. */
static tap *registry_remove(int64_t id, uint64_t *waiting)
{
    size_t index;
    tap *tap;

    pthread_mutex_lock(&registry_mutex);
    tap = registry_find(id, &index);
    if (tap) {
        uint32_t a = tap_ring_waiting(&tap->ring[0]), b = tap_ring_waiting(&tap->ring[1]);
        *waiting = (a > b ? a : b) + tap->line.gap_pending;
        registry[index] = registry[--registry_count];
    }
    pthread_mutex_unlock(&registry_mutex);
    return tap;
}

static PyObject *no_such_tap(long long id)
{
    return PyErr_Format(PyExc_KeyError, "no tap %lld: it was freed, or never made", id);
}

static void drop_reference(tap *tap)
{
    if (atomic_fetch_sub(&tap->references, 1) == 1)
        free(tap);
}

static pj_status_t tap_open(tap *tap, unsigned rate_hz, unsigned ring_ms, unsigned ptime_ms)
{
    pj_status_t status = tap_ring_open(&tap->ring[0], tap, rate_hz, ring_ms, ptime_ms);
    if (status != PJ_SUCCESS)
        return status;
    status = tap_ring_open(&tap->ring[1], tap, rate_hz, ring_ms, ptime_ms);
    if (status != PJ_SUCCESS) {
        tap_ring_close(&tap->ring[0]);
        return status;
    }
    tap->line.started_at_ns = tap_now_ns();
    if (registry_add(tap))
        return PJ_SUCCESS;
    tap_ring_close(&tap->ring[0]);
    tap_ring_close(&tap->ring[1]);
    return PJ_ENOMEM;
}

/* The bridge re-frames for a port of another frame length, and then frames of
 * the two channels no longer fall on the same tick. */
static pj_status_t bridge_ptime_ms(unsigned *ptime_ms)
{
    pjsua_conf_port_info master;
    pj_status_t status = pjsua_conf_get_port_info(0, &master);
    if (status == PJ_SUCCESS)
        *ptime_ms = master.samples_per_frame * 1000 / master.channel_count / master.clock_rate;
    return status;
}

static bool tap_arguments_are_valid(int rate_hz, int ptime_ms, int ring_ms, int layout)
{
    if (rate_hz < 8000 || rate_hz > 48000 || ptime_ms < 10 || ptime_ms > 120 || rate_hz * ptime_ms % 1000 != 0)
        PyErr_Format(PyExc_ValueError, "rate_hz %d, ptime_ms %d: a tap takes 8000 to 48000 Hz and whole frames "
                                       "of 10 to 120 ms", rate_hz, ptime_ms);
    else if (ring_ms < 5000 || ring_ms > 60000)
        PyErr_Format(PyExc_ValueError, "ring_ms %d: a ring holds 5000 to 60000 ms", ring_ms);
    else if (layout != TAP_MIXED && layout != TAP_SPLIT)
        PyErr_Format(PyExc_ValueError, "layout %d: MIXED or SPLIT", layout);
    else
        return true;
    return false;
}

PyObject *tap_new(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = { "rate_hz", "ptime_ms", "ring_ms", "layout", NULL };
    int rate_hz, ptime_ms, ring_ms, layout;
    unsigned bridge_ms = 0;
    pj_status_t status;
    tap *tap;

    (void)self;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "$iiii:tap_new", names, &rate_hz, &ptime_ms, &ring_ms, &layout))
        return NULL;
    if (!tap_arguments_are_valid(rate_hz, ptime_ms, ring_ms, layout))
        return NULL;
    if (pjsua_get_state() == PJSUA_STATE_NULL)
        return native_raise(PJ_EINVALIDOP, "tap_new: libInit has not run");
    native_adopt_thread();
    status = bridge_ptime_ms(&bridge_ms);
    if (status != PJ_SUCCESS)
        return native_raise(status, "tap_new: no conference bridge");
    if (bridge_ms != (unsigned)ptime_ms)
        return PyErr_Format(PyExc_ValueError, "ptime_ms %d: the bridge ticks every %u ms and a tap must as well",
                            ptime_ms, bridge_ms);
    tap = aligned_alloc(64, (sizeof(*tap) + 63) / 64 * 64);
    if (!tap)
        return PyErr_NoMemory();
    memset(tap, 0, sizeof(*tap));
    tap->samples = (unsigned)(rate_hz * ptime_ms / 1000);
    tap->layout = layout;
    tap->line.unit_ns = (int64_t)ptime_ms * 1000000;
    atomic_store(&tap->references, 1);
    Py_BEGIN_ALLOW_THREADS
    status = tap_open(tap, (unsigned)rate_hz, (unsigned)ring_ms, (unsigned)ptime_ms);
    Py_END_ALLOW_THREADS
    if (status != PJ_SUCCESS) {
        drop_reference(tap);
        return native_raise(status, "tap_new: the bridge took no port");
    }
    return PyLong_FromLongLong(tap->id);
}

/* The old source's slot may be gone or belong to someone else by now, so only
 * the new connection can fail. Connecting what is connected changes nothing. */
static pj_status_t ring_attach(tap_ring *ring, int source)
{
    pj_status_t status = PJ_SUCCESS;

    if (ring->source != PJSUA_INVALID_ID && ring->source != source)
        pjsua_conf_disconnect(ring->source, ring->slot);
    ring->source = PJSUA_INVALID_ID;
    if (source >= 0) {
        status = pjsua_conf_connect(source, ring->slot);
        if (status == PJ_SUCCESS)
            ring->source = source;
    }
    return status;
}

PyObject *tap_attach(PyObject *self, PyObject *args)
{
    long long id;
    int slots[2];
    pj_status_t status = PJ_SUCCESS;
    tap *tap;

    (void)self;
    if (!PyArg_ParseTuple(args, "Lii:tap_attach", &id, &slots[0], &slots[1]))
        return NULL;
    native_adopt_thread();
    Py_BEGIN_ALLOW_THREADS
    pthread_mutex_lock(&registry_mutex);
    tap = registry_find(id, NULL);
    pthread_mutex_unlock(&registry_mutex);
    for (int i = 0; tap && i < 2; i++) {
        pj_status_t one = ring_attach(&tap->ring[i], slots[i]);
        status = status == PJ_SUCCESS ? one : status;
    }
    Py_END_ALLOW_THREADS
    if (!tap)
        return no_such_tap(id);
    if (status != PJ_SUCCESS)
        return native_raise(status, "tap_attach: no such conference slot");
    Py_RETURN_NONE;
}

/* Starts where the last drain ran out of room, so that no tap is starved. */
static bool drain_registry(tap_output *output)
{
    bool fits = true;

    pthread_mutex_lock(&registry_mutex);
    for (size_t i = 0; fits && i < registry_count; i++)
        fits = output->size >= registry[i]->samples * sizeof(int16_t) * 2;
    if (registry_next >= registry_count)
        registry_next = 0;
    for (size_t i = 0, start = registry_next; fits && i < registry_count && !output->failed; i++) {
        size_t index = (start + i) % registry_count;
        tap_line_drain(registry[index], tap_now_ns(), output);
        if (output->size - output->used < registry[index]->samples * sizeof(int16_t) * 2) {
            registry_next = index;
            break;
        }
    }
    pthread_mutex_unlock(&registry_mutex);
    return fits;
}

static PyObject *span_list(const tap_output *output)
{
    PyObject *list = PyList_New((Py_ssize_t)output->span_count);

    for (size_t i = 0; list && i < output->span_count; i++) {
        const tap_span *span = &output->spans[i];
        PyObject *item = Py_BuildValue("(LnKKI)", (long long)span->tap_id, (Py_ssize_t)span->offset,
                                       (unsigned long long)span->frames, (unsigned long long)span->gap_frames,
                                       (unsigned int)span->overruns);
        if (item)
            PyList_SET_ITEM(list, (Py_ssize_t)i, item);
        else
            Py_CLEAR(list);
    }
    return list;
}

PyObject *tap_drain_all(PyObject *self, PyObject *argument)
{
    tap_output output = { 0 };
    PyObject *spans = NULL;
    Py_buffer view;
    bool fits;

    (void)self;
    if (PyObject_GetBuffer(argument, &view, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS) != 0)
        return NULL;
    output.buffer = view.buf;
    output.size = (size_t)view.len;
    Py_BEGIN_ALLOW_THREADS
    fits = drain_registry(&output);
    Py_END_ALLOW_THREADS
    if (!fits)
        PyErr_Format(PyExc_ValueError, "a buffer of %zd bytes holds not one frame of every tap", view.len);
    else if (output.failed)
        PyErr_NoMemory();
    else
        spans = span_list(&output);
    free(output.spans);
    PyBuffer_Release(&view);
    return spans;
}

PyObject *tap_stats(PyObject *self, PyObject *argument)
{
    long long id = PyLong_AsLongLong(argument);
    unsigned long long value[8] = { 0 };
    tap *tap;

    (void)self;
    if (id == -1 && PyErr_Occurred())
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    pthread_mutex_lock(&registry_mutex);
    tap = registry_find(id, NULL);
    if (tap) {
        uint32_t waiting = tap_ring_waiting(&tap->ring[0]);
        value[0] = tap->line.position * tap->samples;
        value[1] = (tap->ring[0].silences + tap->ring[1].silences) * tap->samples;
        value[2] = tap->ring[0].overruns + tap->ring[1].overruns;
        value[3] = tap->line.gap_total * tap->samples;
        value[4] = tap->line.late_dropped * tap->samples;
        value[5] = (uint64_t)waiting * (uint64_t)tap->line.unit_ns / 1000000;
        value[6] = tap->ring[0].last_timestamp;
        value[7] = tap->ring[0].locked && tap->ring[1].locked;
    }
    pthread_mutex_unlock(&registry_mutex);
    Py_END_ALLOW_THREADS
    if (!tap)
        return no_such_tap(id);
    return Py_BuildValue("{sKsKsKsKsKsKsKsK}", "frames", value[0], "silence_frames", value[1], "overruns", value[2],
                         "gap_frames", value[3], "late_dropped_frames", value[4], "waiting_ms", value[5],
                         "last_timestamp", value[6], "memory_locked", value[7]);
}

PyObject *tap_free(PyObject *self, PyObject *argument)
{
    long long id = PyLong_AsLongLong(argument);
    uint64_t waiting = 0;
    unsigned samples = 0;
    tap *tap;

    (void)self;
    if (id == -1 && PyErr_Occurred())
        return NULL;
    native_adopt_thread();
    Py_BEGIN_ALLOW_THREADS
    tap = registry_remove(id, &waiting);
    if (tap) {
        samples = tap->samples;
        tap_ring_close(&tap->ring[0]);
        tap_ring_close(&tap->ring[1]);
        drop_reference(tap);
    }
    Py_END_ALLOW_THREADS
    if (!tap)
        return no_such_tap(id);
    return PyLong_FromUnsignedLongLong(waiting * samples);
}
