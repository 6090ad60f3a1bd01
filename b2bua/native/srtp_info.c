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
