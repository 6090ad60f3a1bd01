/* The module: its functions, its one exception, and what every part needs. */
#include "native.h"
#include "tap.h"

static PyObject *native_error;

PyObject *native_raise(pj_status_t status, const char *what)
{
    char reason[PJ_ERR_MSG_SIZE];
    pj_str_t text = pj_strerror(status, reason, sizeof(reason));
    PyObject *words = native_text(text.ptr, text.slen);
    PyObject *message = words ? PyUnicode_FromFormat("%s: %U", what, words) : NULL;
    PyObject *error = message ? PyObject_CallFunction(native_error, "iO", (int)status, message) : NULL;
    PyObject *number = error ? PyLong_FromLong(status) : NULL;

    if (number && PyObject_SetAttrString(error, "status", number) == 0)
        PyErr_SetObject(native_error, error);
    Py_XDECREF(number);
    Py_XDECREF(error);
    Py_XDECREF(message);
    Py_XDECREF(words);
    return NULL;
}

/* Before libCreate pjlib has no thread list yet, and nothing of it is called. */
void native_adopt_thread(void)
{
    static _Thread_local pj_thread_desc description;
    pj_thread_t *thread;

    if (pjsua_get_state() != PJSUA_STATE_NULL && !pj_thread_is_registered())
        pj_thread_register("native", description, &thread);
}

PyObject *native_text(const char *text, pj_ssize_t length)
{
    return PyUnicode_DecodeUTF8(text ? text : "", text ? (Py_ssize_t)length : 0, "surrogateescape");
}

#define KEYWORDS(function) { #function, (PyCFunction)(void (*)(void))function, METH_VARARGS | METH_KEYWORDS, NULL }

static PyMethodDef methods[] = {
    KEYWORDS(guard_install),
    { "guard_remove", guard_remove, METH_NOARGS, NULL },
    { "guard_counters", guard_counters, METH_NOARGS, NULL },
    { "transport_token", transport_token, METH_O, NULL },
    { "transport_shutdown", transport_shutdown, METH_O, NULL },
    { "request_transport", request_transport, METH_O, NULL },
    KEYWORDS(listener_create),
    { "listener_port", listener_port, METH_O, NULL },
    KEYWORDS(listener_swap),
    { "listener_restart", listener_restart, METH_O, NULL },
    { "hosts_set", hosts_set, METH_O, NULL },
    { "srtp_state", srtp_state, METH_VARARGS, NULL },
    { "legs_received", legs_received, METH_O, NULL },
    { "log_keep", log_keep, METH_O, NULL },
    { "log_take", log_take, METH_NOARGS, NULL },
    KEYWORDS(tap_new),
    { "tap_attach", tap_attach, METH_VARARGS, NULL },
    { "tap_drain_all", tap_drain_all, METH_O, NULL },
    { "tap_stats", tap_stats, METH_O, NULL },
    { "tap_free", tap_free, METH_O, NULL },
    { NULL, NULL, 0, NULL },
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_native",
    .m_doc = "Taps, transport guard, TLS listeners, SRTP state, pjsip's log, host table; _native.pyi is the reference.",
    .m_size = -1,
    .m_methods = methods,
};

static bool fill(PyObject *module)
{
    PyObject *reasons;
    bool filled;

    native_error = PyErr_NewExceptionWithDoc("b2bua.native._native.NativeError",
                                             "A pjsip call failed; `status` is its pj_status_t.", NULL, NULL);
    if (!native_error || PyModule_AddObjectRef(module, "NativeError", native_error) != 0)
        return false;
    reasons = guard_reasons();
    filled = reasons && PyModule_AddObjectRef(module, "REFUSAL_REASONS", reasons) == 0 &&
             PyModule_AddIntConstant(module, "MIXED", TAP_MIXED) == 0 &&
             PyModule_AddIntConstant(module, "SPLIT", TAP_SPLIT) == 0;
    Py_XDECREF(reasons);
    return filled;
}

PyMODINIT_FUNC PyInit__native(void)
{
    PyObject *module = PyModule_Create(&definition);

    /* pjlib writes to standard output from libCreate on, before its level can be
     * set through pjsua; and what it writes names peers. */
    pj_log_set_level(0);
    if (module && !fill(module))
        Py_CLEAR(module);
    return module;
}
