/* What a call's SRTP transport really does: pjmedia has a branch that passes
 * media in clear when a policy is empty, so its own success is not proof. */
#include "native.h"

static PyObject *suite_name(const pjmedia_srtp_crypto *policy)
{
    return PyUnicode_FromStringAndSize(policy->name.ptr ? policy->name.ptr : "", (Py_ssize_t)policy->name.slen);
}

PyObject *srtp_state(PyObject *self, PyObject *args)
{
    int call_id, media_index;
    pjmedia_transport_info info;
    const pjmedia_srtp_info *srtp = NULL;
    pj_status_t status;

    (void)self;
    if (!PyArg_ParseTuple(args, "ii:srtp_state", &call_id, &media_index))
        return NULL;
    native_adopt_thread();
    if (media_index < 0 || call_id < 0 || (unsigned)call_id >= pjsua_call_get_max_count())
        return PyErr_Format(PyExc_ValueError, "call %d, medium %d: no such call or medium", call_id, media_index);
    pjmedia_transport_info_init(&info);
    Py_BEGIN_ALLOW_THREADS
    status = pjsua_call_get_med_transport_info(call_id, (unsigned)media_index, &info);
    Py_END_ALLOW_THREADS
    if (status != PJ_SUCCESS)
        return native_raise(status, "srtp_state: the call has no such medium");
    srtp = pjmedia_transport_info_get_spc_info(&info, PJMEDIA_TRANSPORT_TYPE_SRTP);
    if (!srtp)
        return Py_BuildValue("(Oss)", Py_False, "", "");
    return Py_BuildValue("(ONN)", srtp->active ? Py_True : Py_False, suite_name(&srtp->tx_policy),
                         suite_name(&srtp->rx_policy));
}

enum { AUDIO_INDEX = 0 };

/* What has come in on a leg since its stream began, and since its transport was made. */
typedef struct leg_count {
    int call_id;
    bool found;
    unsigned packets, bursts, last_burst_ms, unauthenticated, elsewhere, replayed;
} leg_count;

static void count_leg(leg_count *leg)
{
    pjsua_stream_stat stream;
    pjmedia_transport_info info;
    const pjmedia_srtp_info *srtp;

    if (pjsua_call_get_stream_stat(leg->call_id, AUDIO_INDEX, &stream) != PJ_SUCCESS)
        return;
    pjmedia_transport_info_init(&info);
    if (pjsua_call_get_med_transport_info(leg->call_id, AUDIO_INDEX, &info) != PJ_SUCCESS)
        return;
    srtp = pjmedia_transport_info_get_spc_info(&info, PJMEDIA_TRANSPORT_TYPE_SRTP);
    if (!srtp)
        return;
    leg->found = true;
    leg->packets = stream.rtcp.rx.pkt;
    leg->bursts = (unsigned)stream.rtcp.rx.loss_period.n;
    leg->last_burst_ms = (unsigned)stream.rtcp.rx.loss_period.last / 1000;
    leg->unauthenticated = srtp->rx_unauthenticated;
    leg->elsewhere = srtp->rx_elsewhere;
    leg->replayed = srtp->rx_replayed;
}

static PyObject *leg_tuple(const leg_count *leg)
{
    if (!leg->found)
        Py_RETURN_NONE;
    return Py_BuildValue("(IIIIII)", leg->packets, leg->bursts, leg->last_burst_ms, leg->unauthenticated,
                         leg->elsewhere, leg->replayed);
}

static bool read_call_ids(PyObject *sequence, leg_count *legs, Py_ssize_t count)
{
    Py_ssize_t i;

    for (i = 0; i < count; ++i) {
        long call_id = PyLong_AsLong(PySequence_Fast_GET_ITEM(sequence, i));

        if (call_id == -1 && PyErr_Occurred())
            return false;
        if (call_id < 0 || call_id >= (long)pjsua_call_get_max_count()) {
            PyErr_Format(PyExc_ValueError, "call %ld: no such call", call_id);
            return false;
        }
        legs[i].call_id = (int)call_id;
    }
    return true;
}

PyObject *legs_received(PyObject *self, PyObject *argument)
{
    PyObject *sequence = PySequence_Fast(argument, "legs_received: a sequence of call ids"), *result = NULL;
    Py_ssize_t i, count = sequence ? PySequence_Fast_GET_SIZE(sequence) : 0;
    leg_count *legs = sequence ? PyMem_Calloc((size_t)count + 1, sizeof(*legs)) : NULL;

    (void)self;
    if (sequence && !legs)
        PyErr_NoMemory();
    if (!legs || !read_call_ids(sequence, legs, count))
        goto done;
    native_adopt_thread();
    Py_BEGIN_ALLOW_THREADS
    for (i = 0; i < count; ++i)
        count_leg(&legs[i]);
    Py_END_ALLOW_THREADS
    result = PyList_New(count);
    for (i = 0; result && i < count; ++i) {
        PyObject *entry = leg_tuple(&legs[i]);

        if (entry)
            PyList_SET_ITEM(result, i, entry);
        else
            Py_CLEAR(result);
    }
done:
    PyMem_Free(legs);
    Py_XDECREF(sequence);
    return result;
}
