/* The two pjsip modules.
 *
 * The first stands before the transaction layer: nothing passes it in either
 * direction but over a verified connection, and no request whose method is not
 * allowed. The second stands between transactions and dialogs, so it sees each
 * request once; there Python's gate decides, and a refusal gets a transaction
 * of its own, which also absorbs the ACK.
 */
#include "native.h"

typedef struct verdict {
    bool refused;
    int status;
    pj_str_t reason;
    pjsip_hdr headers;
} verdict;

static pj_bool_t on_rx_message(pjsip_rx_data *rdata);
static pj_status_t on_tx_message(pjsip_tx_data *tdata);
static pj_bool_t on_rx_gated_request(pjsip_rx_data *rdata);
static pj_status_t on_unload(void);

static pjsip_module flow_module = {
    .name = { "mod-flow-guard", 14 },
    .id = -1,
    .priority = PJSIP_MOD_PRIORITY_TSX_LAYER - 1,
    .unload = &on_unload,
    .on_rx_request = &on_rx_message,
    .on_rx_response = &on_rx_message,
    .on_tx_request = &on_tx_message,
    .on_tx_response = &on_tx_message,
};

static pjsip_module gate_module = {
    .name = { "mod-sdp-gate", 12 },
    .id = -1,
    .priority = PJSIP_MOD_PRIORITY_TSX_LAYER + 8,
    .on_rx_request = &on_rx_gated_request,
};

/* ---- Python's gate ---- */

/* Where pjsip's parser begins the body: after the first empty line, by its own
 * idea of a line's end. Only a multipart body needs it, of which pjsip keeps
 * the parts and not the text. */
static pj_str_t raw_body(const pjsip_rx_data *rdata)
{
    const char *text = rdata->msg_info.msg_buf, *end = text + rdata->msg_info.len;
    bool at_line_start = false;
    pj_str_t body = { NULL, 0 };

    while (text < end) {
        bool newline = *text == '\r' || *text == '\n';
        const char *next = text + (end - text > 1 && text[0] == '\r' && text[1] == '\n' ? 2 : 1);
        if (newline && at_line_start) {
            pj_strset(&body, (char *)next, end - next);
            return body;
        }
        at_line_start = newline;
        text = next;
    }
    return body;
}

static pj_str_t body_of(const pjsip_rx_data *rdata)
{
    static const pj_str_t multipart = { "multipart", 9 };
    const pjsip_msg_body *body = rdata->msg_info.msg->body;
    pj_str_t text = { NULL, 0 };

    if (!body)
        return text;
    if (pj_stricmp(&body->content_type.type, &multipart) == 0)
        return raw_body(rdata);
    pj_strset(&text, body->data, (pj_ssize_t)body->len);
    return text;
}

static PyObject *content_type_of(const pjsip_rx_data *rdata)
{
    const pjsip_ctype_hdr *header = rdata->msg_info.ctype;
    PyObject *type, *subtype, *text = NULL;

    if (!header)
        return PyUnicode_FromString("");
    type = native_text(header->media.type.ptr, header->media.type.slen);
    subtype = native_text(header->media.subtype.ptr, header->media.subtype.slen);
    if (type && subtype)
        text = PyUnicode_FromFormat("%U/%U", type, subtype);
    Py_XDECREF(type);
    Py_XDECREF(subtype);
    return text;
}

static PyObject *call_gate(const pjsip_rx_data *rdata)
{
    const pjsip_msg *message = rdata->msg_info.msg;
    bool is_request = message->type == PJSIP_REQUEST_MSG;
    const pj_str_t *method = is_request ? &message->line.req.method.name : &rdata->msg_info.cseq->method.name;
    int status = is_request ? 0 : message->line.status.code;
    bool initial = rdata->msg_info.to->tag.slen == 0;
    pj_str_t body = body_of(rdata);
    pjsip_transport *transport = rdata->tp_info.transport;
    PyObject *method_name = native_text(method->ptr, method->slen);
    PyObject *call_id = native_text(rdata->msg_info.cid->id.ptr, rdata->msg_info.cid->id.slen);
    PyObject *content_type = content_type_of(rdata);
    PyObject *result = NULL;

    if (method_name && call_id && content_type)
        result = PyObject_CallFunction(guard.gate, "LKOOiOOOy#y#", (long long)flow_token(transport),
                                       (unsigned long long)(uintptr_t)transport, is_request ? Py_True : Py_False,
                                       method_name, status, initial ? Py_True : Py_False, call_id, content_type,
                                       body.ptr ? body.ptr : "", (Py_ssize_t)body.slen, rdata->msg_info.msg_buf,
                                       (Py_ssize_t)rdata->msg_info.len);
    Py_XDECREF(method_name);
    Py_XDECREF(call_id);
    Py_XDECREF(content_type);
    return result;
}

/* Copied into `pool`; a line break would let a reason write headers of its own. */
static bool copy_line(pj_pool_t *pool, PyObject *text, pj_str_t *line)
{
    Py_ssize_t size;
    const char *bytes = PyUnicode_AsUTF8AndSize(text, &size);
    pj_str_t source;

    if (!bytes)
        return false;
    for (Py_ssize_t i = 0; i < size; i++)
        if ((unsigned char)bytes[i] < ' ' || bytes[i] == 0x7f) {
            PyErr_Format(PyExc_ValueError, "gate: a control character in %R", text);
            return false;
        }
    pj_strset(&source, (char *)bytes, size);
    pj_strdup_with_null(pool, line, &source);
    return true;
}

static bool copy_headers(pj_pool_t *pool, PyObject *headers, pjsip_hdr *list)
{
    PyObject *items = PySequence_Fast(headers, "gate: headers are a sequence of pairs");
    bool ok = items != NULL;

    for (Py_ssize_t i = 0; ok && i < PySequence_Fast_GET_SIZE(items); i++) {
        PyObject *pair = PySequence_Fast_GET_ITEM(items, i), *name_text, *value_text;
        pj_str_t name, value;
        if (!PyTuple_Check(pair)) {
            PyErr_Format(PyExc_TypeError, "gate: a header is a tuple of two, not %R", pair);
            ok = false;
            break;
        }
        ok = PyArg_ParseTuple(pair, "UU:gate header", &name_text, &value_text) &&
             copy_line(pool, name_text, &name) && copy_line(pool, value_text, &value);
        if (ok)
            pj_list_push_back(list, pjsip_generic_string_hdr_create(pool, &name, &value));
    }
    Py_XDECREF(items);
    return ok;
}

static bool read_verdict(pj_pool_t *pool, PyObject *result, verdict *out)
{
    PyObject *reason, *headers;

    if (!PyTuple_Check(result)) {
        PyErr_Format(PyExc_TypeError, "gate: None or (status, reason, headers), not %R", result);
        return false;
    }
    if (!PyArg_ParseTuple(result, "iUO:gate", &out->status, &reason, &headers))
        return false;
    if (out->status < 300 || out->status > 699) {
        PyErr_Format(PyExc_ValueError, "gate: status %d refuses nothing", out->status);
        return false;
    }
    return copy_line(pool, reason, &out->reason) && copy_headers(pool, headers, &out->headers);
}

static void ask_gate(pjsip_rx_data *rdata, verdict *out)
{
    PyGILState_STATE gil;
    PyObject *result;

    *out = (verdict){ .refused = true, .status = PJSIP_SC_INTERNAL_SERVER_ERROR };
    pj_list_init(&out->headers);
    if (!guard_can_call())
        return;
    gil = PyGILState_Ensure();
    result = call_gate(rdata);
    if (result == Py_None) {
        out->refused = false;
    } else if (!result || !read_verdict(rdata->tp_info.pool, result, out)) {
        guard_callback_failed(guard.gate);
        out->status = PJSIP_SC_INTERNAL_SERVER_ERROR;
        out->reason.slen = 0;
        pj_list_init(&out->headers);
    }
    Py_XDECREF(result);
    PyGILState_Release(gil);
}

/* ---- before the transaction layer ---- */

/* The peer's own spelling: pjsip has already put a known name in capitals, and
 * method names are case-sensitive (RFC 3261 section 7.1). */
static pj_str_t method_as_sent(const pjsip_rx_data *rdata)
{
    pj_str_t name = { rdata->msg_info.msg_buf, 0 };

    while (name.slen < rdata->msg_info.len && name.ptr[name.slen] != ' ')
        name.slen++;
    return name;
}

/* Source: IANA registry "Methods" of the SIP Parameters. */
static bool is_registered_method(const pj_str_t *method)
{
    static const char *const registered[] = { "ACK", "BYE", "CANCEL", "INFO", "INVITE", "MESSAGE", "NOTIFY",
                                              "OPTIONS", "PRACK", "PUBLISH", "REFER", "REGISTER", "SUBSCRIBE",
                                              "UPDATE" };

    for (size_t i = 0; i < PJ_ARRAY_SIZE(registered); i++)
        if (pj_strcmp2(method, registered[i]) == 0)
            return true;
    return false;
}

static bool method_is_allowed(const pj_str_t *method)
{
    for (unsigned i = 0; i < guard.method_count; i++)
        if (pj_strcmp2(method, guard.methods[i]) == 0)
            return true;
    return false;
}

/* Set while a refusal goes out: it answers its own request on that one's
 * connection, whoever the dialog belongs to that the request names. */
static bool refusing;

static void respond(pjsip_rx_data *rdata, int status, const pjsip_hdr *headers)
{
    if (rdata->msg_info.msg->line.req.method.id == PJSIP_ACK_METHOD)
        return;
    refusing = true;
    pjsip_endpt_respond_stateless(pjsua_get_pjsip_endpt(), rdata, status, NULL, headers, NULL);
    refusing = false;
}

static void refuse_method(pjsip_rx_data *rdata, const pj_str_t *method)
{
    bool registered = is_registered_method(method);
    int status = registered ? PJSIP_SC_METHOD_NOT_ALLOWED : PJSIP_SC_NOT_IMPLEMENTED;
    pj_str_t name = native_str("Allow"), value = native_str(guard.allow);
    pjsip_hdr headers;

    guard_refuse(registered ? REFUSED_METHOD_NOT_ALLOWED : REFUSED_METHOD_UNKNOWN, rdata->tp_info.transport, method,
                 status);
    pj_list_init(&headers);
    pj_list_push_back(&headers, pjsip_generic_string_hdr_create(rdata->tp_info.pool, &name, &value));
    respond(rdata, status, &headers);
}

/* Source: RFC 3261 section 8.1.1.5: the two methods match. pjsip looks some
 * things up by the one and some by the other, and the gate is told the first. */
static void refuse_garbled(pjsip_rx_data *rdata, const pj_str_t *method)
{
    guard_refuse(REFUSED_GARBLED, rdata->tp_info.transport, method, PJSIP_SC_BAD_REQUEST);
    respond(rdata, PJSIP_SC_BAD_REQUEST, NULL);
}

/* pjsip finds the INVITE of a CANCEL by the branch alone: it must also have come
 * from the same trunk, or whoever learned a branch could end another's attempt. */
static bool cancels_for_another(pjsip_rx_data *rdata)
{
    pj_str_t key;
    pjsip_transaction *invite = NULL;
    bool foreign;

    if (rdata->msg_info.msg->line.req.method.id != PJSIP_CANCEL_METHOD)
        return false;
    if (pjsip_tsx_create_key(rdata->tp_info.pool, &key, PJSIP_ROLE_UAS, pjsip_get_invite_method(), rdata) ==
        PJ_SUCCESS)
        invite = pjsip_tsx_layer_find_tsx2(&key, PJ_TRUE);
    if (!invite)
        return false;
    foreign = flow_token(invite->transport) != flow_token(rdata->tp_info.transport);
    pj_grp_lock_dec_ref(invite->grp_lock);
    return foreign;
}

/* Leave the response itself: the dialog must see that it was answered. */
static void strip_body(pjsip_rx_data *rdata)
{
    rdata->msg_info.msg->body = NULL;
    if (rdata->msg_info.ctype) {
        pj_list_erase(rdata->msg_info.ctype);
        rdata->msg_info.ctype = NULL;
    }
    if (rdata->msg_info.clen)
        rdata->msg_info.clen->len = 0;
    guard_count(EVENT_BODIES_STRIPPED_BY_GATE);
}

static void gate_response(pjsip_rx_data *rdata)
{
    verdict result;

    if (!rdata->msg_info.msg->body && !rdata->msg_info.ctype)
        return;
    ask_gate(rdata, &result);
    if (result.refused)
        strip_body(rdata);
}

static pj_bool_t on_rx_message(pjsip_rx_data *rdata)
{
    pjsip_transport *transport = rdata->tp_info.transport;

    if (!flow_may_receive(transport)) {
        bool secure = PJSIP_TRANSPORT_IS_SECURE(transport);
        guard_refuse(secure ? REFUSED_UNVERIFIED_TRANSPORT : REFUSED_PLAINTEXT_TRANSPORT, transport, NULL, 0);
        flow_close(transport, true);
        return PJ_TRUE;
    }
    if (rdata->msg_info.msg->type == PJSIP_REQUEST_MSG) {
        pj_str_t method = method_as_sent(rdata);
        if (!method_is_allowed(&method)) {
            refuse_method(rdata, &method);
            return PJ_TRUE;
        }
        if (pjsip_method_cmp(&rdata->msg_info.msg->line.req.method, &rdata->msg_info.cseq->method) != 0) {
            refuse_garbled(rdata, &method);
            return PJ_TRUE;
        }
        if (cancels_for_another(rdata)) {
            guard_refuse(REFUSED_FOREIGN_CANCEL, transport, &method, PJSIP_SC_CALL_TSX_DOES_NOT_EXIST);
            respond(rdata, PJSIP_SC_CALL_TSX_DOES_NOT_EXIST, NULL);
            return PJ_TRUE;
        }
        if (!pin_to_flow(rdata)) {
            guard_refuse(REFUSED_FOREIGN_ROUTE, transport, &method, PJSIP_SC_FORBIDDEN);
            respond(rdata, PJSIP_SC_FORBIDDEN, NULL);
            return PJ_TRUE;
        }
    } else {
        pin_to_flow(rdata);
        gate_response(rdata);
    }
    return PJ_FALSE;
}

/* pjsua says of every message that it takes REFER, SUBSCRIBE, Replaces and more;
 * what the guard refuses must not be offered (RFC 3261 section 20.5 and 20.37). */
static void keep_values(pjsip_generic_array_hdr *header, bool (*is_kept)(const pj_str_t *))
{
    unsigned kept = 0;

    for (unsigned i = 0; header && i < header->count; i++)
        if (is_kept(&header->values[i]))
            header->values[kept++] = header->values[i];
    if (header)
        header->count = kept;
}

static bool extension_is_supported(const pj_str_t *tag)
{
    return pj_stricmp2(tag, "timer") == 0 || pj_stricmp2(tag, "100rel") == 0;
}

static void trim_capabilities(pjsip_msg *message)
{
    keep_values(pjsip_msg_find_hdr(message, PJSIP_H_ALLOW, NULL), &method_is_allowed);
    keep_values(pjsip_msg_find_hdr(message, PJSIP_H_SUPPORTED, NULL), &extension_is_supported);
}

/* pjsip looks for a connection by address and port when the one that a message
 * belongs on is gone; whoever came from there since may be somebody else. */
static bool may_send(pjsip_transport *transport, pjsip_msg *message)
{
    const pjsip_cid_hdr *call_id = PJSIP_MSG_CID_HDR(message);
    int64_t token = flow_token(transport);
    PyGILState_STATE gil;
    PyObject *id, *result = NULL;
    int allowed = 0;

    if (token <= 0 || !call_id) /* not connected yet: judged when it is */
        return true;
    if (!guard_can_call())
        return false;
    gil = PyGILState_Ensure();
    id = native_text(call_id->id.ptr, call_id->id.slen);
    if (id)
        result = PyObject_CallFunction(guard.may_send, "LN", (long long)token, id);
    if (result)
        allowed = PyObject_IsTrue(result);
    if (!result || allowed < 0)
        guard_callback_failed(guard.may_send);
    Py_XDECREF(result);
    PyGILState_Release(gil);
    return allowed > 0;
}

static pj_status_t on_tx_message(pjsip_tx_data *tdata)
{
    pjsip_transport *transport = tdata->tp_info.transport;
    pjsip_msg *message = tdata->msg;
    bool is_request = message->type == PJSIP_REQUEST_MSG;

    bool verified = transport && flow_may_send(transport);

    if (verified && (refusing || may_send(transport, message))) {
        trim_capabilities(message);
        return PJ_SUCCESS;
    }
    if (transport)
        guard_refuse(verified ? REFUSED_FOREIGN_SEND : REFUSED_UNVERIFIED_SEND, transport, is_request ? &message->line.req.method.name : NULL,
                     is_request ? 0 : message->line.status.code);
    return PJSIP_ESESSIONINSECURE;
}

/* ---- between transactions and dialogs ---- */

static pj_bool_t on_rx_gated_request(pjsip_rx_data *rdata)
{
    verdict result;

    ask_gate(rdata, &result);
    if (!result.refused)
        return PJ_FALSE;
    guard_count(EVENT_REQUESTS_REFUSED_BY_GATE);
    if (rdata->msg_info.msg->line.req.method.id == PJSIP_ACK_METHOD) {
        /* It can't be answered. Without its answer it still confirms the dialog,
         * which must be confirmed before a BYE may end it (RFC 3261 section 15). */
        if (!rdata->msg_info.ctype)
            return PJ_TRUE;
        strip_body(rdata);
        return PJ_FALSE;
    }
    pjsip_endpt_respond(pjsua_get_pjsip_endpt(), &gate_module, rdata, result.status,
                        result.reason.slen ? &result.reason : NULL, &result.headers, NULL, NULL);
    return PJ_TRUE;
}

/* By guard_remove(), or by libDestroy when nobody called that. */
static pj_status_t on_unload(void)
{
    guard.active = false;
    flow_clear();
    return PJ_SUCCESS;
}

pj_status_t gate_register(pjsip_endpoint *endpoint)
{
    pj_status_t status;

    flow_module.id = gate_module.id = -1;
    flow_module.prev = flow_module.next = gate_module.prev = gate_module.next = NULL;
    status = pjsip_endpt_register_module(endpoint, &flow_module);
    if (status != PJ_SUCCESS)
        return status;
    status = pjsip_endpt_register_module(endpoint, &gate_module);
    if (status != PJ_SUCCESS)
        pjsip_endpt_unregister_module(endpoint, &flow_module);
    return status;
}

void gate_unregister(pjsip_endpoint *endpoint)
{
    pjsip_endpt_unregister_module(endpoint, &gate_module);
    pjsip_endpt_unregister_module(endpoint, &flow_module);
}
