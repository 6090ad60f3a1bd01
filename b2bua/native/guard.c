/* The guard's state: what is allowed, whom to tell, and what was refused. */
#include "native.h"

#include <stdatomic.h>

native_guard guard;

static _Atomic uint64_t refusals[REFUSAL_COUNT], events[EVENT_COUNT];

static const char *const refusal_names[REFUSAL_COUNT] = {
    [REFUSED_UNVERIFIED_TRANSPORT] = "unverified_transport",
    [REFUSED_METHOD_NOT_ALLOWED] = "method_not_allowed",
    [REFUSED_METHOD_UNKNOWN] = "method_unknown",
    [REFUSED_OVERSIZE] = "oversize",
    [REFUSED_GARBLED] = "garbled",
    [REFUSED_CONTENT_LENGTH] = "content_length",
    [REFUSED_PLAINTEXT_TRANSPORT] = "plaintext_transport",
    [REFUSED_CALLBACK_FAILED] = "callback_failed",
    [REFUSED_UNVERIFIED_SEND] = "unverified_send",
    [REFUSED_FOREIGN_SEND] = "foreign_send",
    [REFUSED_FOREIGN_CANCEL] = "foreign_cancel",
    [REFUSED_FOREIGN_ROUTE] = "foreign_route",
};

static const char *const event_names[EVENT_COUNT] = {
    [EVENT_CONNECTIONS_VERIFIED] = "connections_verified",
    [EVENT_CONNECTIONS_REFUSED] = "connections_refused",
    [EVENT_REQUESTS_REFUSED_BY_GATE] = "requests_refused_by_gate",
    [EVENT_BODIES_STRIPPED_BY_GATE] = "bodies_stripped_by_gate",
    [EVENT_CONTACTS_PINNED] = "contacts_pinned",
    [EVENT_KEEPALIVES_ANSWERED] = "keepalives_answered",
};

void guard_count(native_event event)
{
    atomic_fetch_add(&events[event], 1);
}

bool guard_can_call(void)
{
    return guard.active && Py_IsInitialized() && !_Py_IsFinalizing();
}

void guard_callback_failed(PyObject *callback)
{
    PyErr_WriteUnraisable(callback);
    atomic_fetch_add(&refusals[REFUSED_CALLBACK_FAILED], 1);
}

void guard_refuse(native_refusal reason, pjsip_transport *transport, const pj_str_t *method, int status)
{
    PyGILState_STATE gil;
    PyObject *name, *result = NULL;

    atomic_fetch_add(&refusals[reason], 1);
    if (!guard_can_call())
        return;
    gil = PyGILState_Ensure();
    name = method ? native_text(method->ptr, method->slen) : PyUnicode_FromString("");
    if (name)
        result = PyObject_CallFunction(guard.on_refused, "LKsNi", (long long)flow_token(transport),
                                       (unsigned long long)(uintptr_t)transport, refusal_names[reason], name,
                                       status);
    if (!result)
        guard_callback_failed(guard.on_refused);
    Py_XDECREF(result);
    PyGILState_Release(gil);
}

PyObject *guard_reasons(void)
{
    PyObject *tuple = PyTuple_New(REFUSAL_COUNT);

    for (int i = 0; tuple && i < REFUSAL_COUNT; i++) {
        PyObject *name = PyUnicode_FromString(refusal_names[i]);
        if (name)
            PyTuple_SET_ITEM(tuple, i, name);
        else
            Py_CLEAR(tuple);
    }
    return tuple;
}

static bool set_methods(native_guard *next, PyObject *methods)
{
    PyObject *list = PySequence_Fast(methods, "methods: a sequence of method names");
    size_t used = 0;

    if (!list)
        return false;
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(list); i++) {
        const char *name = PyUnicode_AsUTF8(PySequence_Fast_GET_ITEM(list, i));
        if (name && (!*name || strlen(name) >= GUARD_METHOD_BYTES || strpbrk(name, " \t\r\n,:")))
            PyErr_Format(PyExc_ValueError, "methods: %R is not a method name", PySequence_Fast_GET_ITEM(list, i));
        else if (name && next->method_count == GUARD_METHODS_MAX)
            PyErr_Format(PyExc_ValueError, "methods: more than %d", GUARD_METHODS_MAX);
        if (PyErr_Occurred())
            break;
        strcpy(next->methods[next->method_count++], name);
        used += (size_t)snprintf(next->allow + used, sizeof(next->allow) - used, "%s%s", used ? ", " : "", name);
    }
    Py_DECREF(list);
    return !PyErr_Occurred();
}

static bool set_callbacks(native_guard *next)
{
    PyObject *callbacks[] = { next->on_connected, next->on_disconnected, next->gate, next->on_refused,
                              next->may_send };

    for (size_t i = 0; i < PJ_ARRAY_SIZE(callbacks); i++)
        if (!PyCallable_Check(callbacks[i])) {
            PyErr_Format(PyExc_TypeError, "%R is not callable", callbacks[i]);
            return false;
        }
    for (size_t i = 0; i < PJ_ARRAY_SIZE(callbacks); i++)
        Py_INCREF(callbacks[i]);
    return true;
}

static void clear_callbacks(void)
{
    Py_CLEAR(guard.on_connected);
    Py_CLEAR(guard.on_disconnected);
    Py_CLEAR(guard.gate);
    Py_CLEAR(guard.on_refused);
    Py_CLEAR(guard.may_send);
}

/* pjsua wraps the transport callback at its first transport: ours must be the
 * one it wraps, or the two would call each other for ever. */
static bool no_transport_yet(void)
{
    pjsua_transport_id ids[8];
    unsigned count = PJ_ARRAY_SIZE(ids);
    return pjsua_enum_transports(ids, &count) == PJ_SUCCESS && count == 0;
}

PyObject *guard_install(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = { "on_connected", "on_disconnected", "gate", "on_refused", "may_send",
                             "methods", "max_message_bytes", NULL };
    native_guard next = { 0 };
    PyObject *methods;
    Py_ssize_t limit;
    pj_status_t status;
    pjsip_endpoint *endpoint;

    (void)self;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "$OOOOOOn:guard_install", names, &next.on_connected,
                                     &next.on_disconnected, &next.gate, &next.on_refused, &next.may_send, &methods, &limit))
        return NULL;
    if (limit < 1024 || limit > PJSIP_MAX_PKT_LEN)
        return PyErr_Format(PyExc_ValueError, "max_message_bytes %zd: 1024 to %d", limit, PJSIP_MAX_PKT_LEN);
    if (guard.active)
        return native_raise(PJ_EEXISTS, "guard_install: the guard is in place");
    native_adopt_thread();
    endpoint = pjsua_get_pjsip_endpt();
    if (!endpoint || !no_transport_yet())
        return native_raise(PJ_EINVALIDOP, "guard_install: after libInit and before the first transport");
    if (!set_methods(&next, methods) || !set_callbacks(&next))
        return NULL;
    next.max_message_bytes = (size_t)limit;
    next.active = true;
    clear_callbacks();
    guard = next;
    Py_BEGIN_ALLOW_THREADS
    status = gate_register(endpoint);
    if (status == PJ_SUCCESS) {
        flow_start(pjsip_endpt_get_tpmgr(endpoint));
        input_start(pjsip_endpt_get_tpmgr(endpoint));
    }
    Py_END_ALLOW_THREADS
    if (status != PJ_SUCCESS) {
        guard.active = false;
        clear_callbacks();
        return native_raise(status, "guard_install: no module could be registered");
    }
    Py_RETURN_NONE;
}

/* The transport callback stays in pjsua's chain and passes everything on. */
PyObject *guard_remove(PyObject *self, PyObject *unused)
{
    pjsip_endpoint *endpoint = pjsua_get_pjsip_endpt();

    (void)self;
    (void)unused;
    if (guard.active && endpoint) {
        native_adopt_thread();
        Py_BEGIN_ALLOW_THREADS
        input_stop(pjsip_endpt_get_tpmgr(endpoint));
        gate_unregister(endpoint);
        Py_END_ALLOW_THREADS
    }
    clear_callbacks();
    Py_RETURN_NONE;
}

PyObject *guard_counters(PyObject *self, PyObject *unused)
{
    PyObject *counters = PyDict_New();
    bool failed = counters == NULL;

    (void)self;
    (void)unused;
    for (int i = 0; !failed && i < REFUSAL_COUNT + EVENT_COUNT; i++) {
        bool refusal = i < REFUSAL_COUNT;
        uint64_t count = atomic_load(refusal ? &refusals[i] : &events[i - REFUSAL_COUNT]);
        PyObject *value = PyLong_FromUnsignedLongLong(count);
        const char *name = refusal ? refusal_names[i] : event_names[i - REFUSAL_COUNT];
        failed = !value || PyDict_SetItemString(counters, name, value) != 0;
        Py_XDECREF(value);
    }
    if (failed)
        Py_CLEAR(counters);
    return counters;
}

/* A pointer is followed only after the table of live transports vouched for it. */
static pjsip_transport *known_transport(PyObject *argument)
{
    void *pointer = PyLong_AsVoidPtr(argument);

    if (!pointer && PyErr_Occurred())
        return NULL;
    if (!flow_is_known(pointer)) {
        native_raise(PJ_ENOTFOUND, "no such transport");
        return NULL;
    }
    return pointer;
}

PyObject *transport_token(PyObject *self, PyObject *argument)
{
    void *pointer = PyLong_AsVoidPtr(argument);

    (void)self;
    if (!pointer && PyErr_Occurred())
        return NULL;
    return PyLong_FromLongLong(flow_token(pointer));
}

PyObject *transport_shutdown(PyObject *self, PyObject *argument)
{
    pjsip_transport *transport = known_transport(argument);

    (void)self;
    if (!transport)
        return NULL;
    native_adopt_thread();
    Py_BEGIN_ALLOW_THREADS
    flow_close(transport, false);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

PyObject *request_transport(PyObject *self, PyObject *argument)
{
    const pjsip_rx_data *rdata = PyLong_AsVoidPtr(argument);

    (void)self;
    if (!rdata)
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_ValueError, "rdata: no pjsip_rx_data");
    if (!flow_is_known(rdata->tp_info.transport))
        return native_raise(PJ_ENOTFOUND, "the request's transport is not known");
    return PyLong_FromVoidPtr(rdata->tp_info.transport);
}
