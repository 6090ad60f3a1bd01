/* The connections, and which of them Python has vouched for.
 *
 * A transport is known by its pointer from its first state report until it is
 * destroyed. The mark is set in the CONNECTED report alone, which also clears
 * what an earlier transport at the same address may have left.
 */
#include "native.h"

#include <pthread.h>

enum { BUCKETS = 1024 };

typedef struct flow {
    const pjsip_transport *transport;
    int64_t token;
    bool connected, ended;
    pj_status_t reason;
    struct flow *next;
} flow;

static pthread_mutex_t flows_mutex = PTHREAD_MUTEX_INITIALIZER;
static flow *flows[BUCKETS];
static pjsip_tp_state_callback next_callback;

static flow **bucket_of(const void *transport)
{
    return &flows[((uintptr_t)transport >> 6) % BUCKETS];
}

static flow *find(const void *transport)
{
    flow *entry = *bucket_of(transport);
    while (entry && entry->transport != transport)
        entry = entry->next;
    return entry;
}

static flow *find_or_add(pjsip_transport *transport)
{
    flow *entry = find(transport);

    if (!entry && (entry = calloc(1, sizeof(*entry))) != NULL) {
        flow **bucket = bucket_of(transport);
        entry->transport = transport;
        entry->next = *bucket;
        *bucket = entry;
    }
    return entry;
}

static void forget(const void *transport)
{
    flow **link = bucket_of(transport);

    while (*link && (*link)->transport != transport)
        link = &(*link)->next;
    if (*link) {
        flow *entry = *link;
        *link = entry->next;
        free(entry);
    }
}

void flow_clear(void)
{
    pthread_mutex_lock(&flows_mutex);
    for (int i = 0; i < BUCKETS; i++)
        while (flows[i])
            forget(flows[i]->transport);
    pthread_mutex_unlock(&flows_mutex);
}

bool flow_is_known(const void *transport)
{
    pthread_mutex_lock(&flows_mutex);
    bool known = find(transport) != NULL;
    pthread_mutex_unlock(&flows_mutex);
    return known;
}

int64_t flow_token(const void *transport)
{
    pthread_mutex_lock(&flows_mutex);
    const flow *entry = find(transport);
    int64_t token = entry ? entry->token : 0;
    pthread_mutex_unlock(&flows_mutex);
    return token;
}

static bool is_tls(const pjsip_transport *transport)
{
    int type = transport->key.type & ~PJSIP_TRANSPORT_IPV6;
    return type == PJSIP_TRANSPORT_TLS;
}

bool flow_may_receive(pjsip_transport *transport)
{
    return is_tls(transport) && flow_token(transport) > 0;
}

/* A request for a new connection is queued on it before it is connected; the
 * queue is dropped when the CONNECTED report refuses. No report means that. */
bool flow_may_send(pjsip_transport *transport)
{
    if (!is_tls(transport))
        return false;
    pthread_mutex_lock(&flows_mutex);
    const flow *entry = find(transport);
    bool allowed = entry && entry->connected ? entry->token > 0
                                             : transport->dir == PJSIP_TP_DIR_OUTGOING && !transport->is_shutdown;
    pthread_mutex_unlock(&flows_mutex);
    return allowed;
}

/* A datagram socket is no connection: pjsua holds it and would use it after it
 * is gone. What comes over it is dropped each time. */
void flow_close(pjsip_transport *transport, bool at_once)
{
    if (!(transport->flag & PJSIP_TRANSPORT_DATAGRAM))
        pjsip_transport_shutdown2(transport, at_once);
}

/* ---- reports to Python ---- */

static int wire_version(pj_uint32_t protocol)
{
    switch (protocol) {
    case PJ_SSL_SOCK_PROTO_TLS1_3:
        return 0x0304;
    case PJ_SSL_SOCK_PROTO_TLS1_2:
        return 0x0303;
    case PJ_SSL_SOCK_PROTO_TLS1_1:
        return 0x0302;
    case PJ_SSL_SOCK_PROTO_TLS1:
        return 0x0301;
    default:
        return 0;
    }
}

static void print_address(const pj_sockaddr_t *address, char *text, int size)
{
    if (!pj_sockaddr_print(address, text, size, 3))
        text[0] = '\0';
}

static bool append_pem(PyObject *chain, const pj_str_t *pem)
{
    PyObject *text = native_text(pem->ptr, pem->slen);
    bool appended = text && PyList_Append(chain, text) == 0;
    Py_XDECREF(text);
    return appended;
}

/* Leaf first. A client's view of the chain holds the leaf, a server's does not. */
static PyObject *pem_chain(const pj_ssl_cert_info *certificate)
{
    PyObject *chain = PyList_New(0);
    bool ok = chain != NULL;

    if (ok && certificate && certificate->raw.slen) {
        ok = append_pem(chain, &certificate->raw);
        for (unsigned i = 0; ok && i < certificate->raw_chain.cnt; i++) {
            const pj_str_t *pem = &certificate->raw_chain.cert_raw[i];
            if (pem->slen && pj_strcmp(pem, &certificate->raw) != 0)
                ok = append_pem(chain, pem);
        }
    }
    if (!ok)
        Py_CLEAR(chain);
    return chain;
}

static int64_t ask_on_connected(pjsip_transport *transport, const pj_ssl_sock_info *tls)
{
    char remote[PJ_INET6_ADDRSTRLEN + 10];
    PyGILState_STATE gil;
    PyObject *chain, *name, *result = NULL;
    int64_t token = 0;

    if (!guard_can_call())
        return 0;
    print_address(&transport->key.rem_addr, remote, sizeof(remote));
    gil = PyGILState_Ensure();
    chain = pem_chain(tls->remote_cert_info);
    name = chain ? native_text(transport->remote_name.host.ptr, transport->remote_name.host.slen) : NULL;
    if (name)
        result = PyObject_CallFunction(guard.on_connected, "KOsOiiIO", (unsigned long long)(uintptr_t)transport,
                                       transport->dir == PJSIP_TP_DIR_INCOMING ? Py_True : Py_False, remote, name,
                                       wire_version(tls->proto), (int)tls->cipher, (unsigned int)tls->verify_status,
                                       chain);
    if (result)
        token = PyLong_AsLongLong(result);
    if (PyErr_Occurred()) {
        guard_callback_failed(guard.on_connected);
        token = 0;
    }
    Py_XDECREF(result);
    Py_XDECREF(name);
    Py_XDECREF(chain);
    PyGILState_Release(gil);
    return token > 0 ? token : 0;
}

static void tell_on_disconnected(const void *transport, int64_t token, bool incoming, const pj_sockaddr_t *address,
                                 pj_status_t status)
{
    char remote[PJ_INET6_ADDRSTRLEN + 10];
    PyGILState_STATE gil;
    PyObject *result;

    if (!guard_can_call())
        return;
    print_address(address, remote, sizeof(remote));
    gil = PyGILState_Ensure();
    result = PyObject_CallFunction(guard.on_disconnected, "KLOsi", (unsigned long long)(uintptr_t)transport,
                                   (long long)token, incoming ? Py_True : Py_False, remote, (int)status);
    if (!result)
        guard_callback_failed(guard.on_disconnected);
    Py_XDECREF(result);
    PyGILState_Release(gil);
}

void flow_accept_failed(const pjsip_tls_on_accept_fail_param *param)
{
    tell_on_disconnected(NULL, 0, true, param->remote_addr, param->status);
}

/* ---- states ---- */

static void mark(pjsip_transport *transport, int64_t token)
{
    pthread_mutex_lock(&flows_mutex);
    flow *entry = find_or_add(transport);
    if (entry)
        *entry = (flow){ .transport = transport, .token = token, .connected = true, .next = entry->next };
    pthread_mutex_unlock(&flows_mutex);
}

static void on_connected(pjsip_transport *transport, const pjsip_transport_state_info *info)
{
    const pjsip_tls_state_info *tls = info ? info->ext_info : NULL;
    int64_t token = 0;

    mark(transport, 0);
    if (!is_tls(transport))
        guard_refuse(REFUSED_PLAINTEXT_TRANSPORT, transport, NULL, 0);
    else if (tls && tls->ssl_sock_info)
        token = ask_on_connected(transport, tls->ssl_sock_info);
    if (token > 0) {
        mark(transport, token);
        guard_count(EVENT_CONNECTIONS_VERIFIED);
    } else {
        guard_count(EVENT_CONNECTIONS_REFUSED);
        pjsip_transport_shutdown(transport);
    }
}

/* Once per connection: at its first sign of ending, or when it is destroyed.
 * A failed handshake is reported by DISCONNECTED; its SHUTDOWN, which comes
 * before and knows no reason, is passed over. */
static void on_ended(pjsip_transport *transport, pjsip_transport_state state, pj_status_t status)
{
    bool report;
    int64_t token;

    pthread_mutex_lock(&flows_mutex);
    flow *entry = find_or_add(transport);
    report = entry && !entry->ended && (entry->connected || state != PJSIP_TP_STATE_SHUTDOWN);
    token = entry ? entry->token : 0;
    if (report)
        entry->ended = true;
    if (state == PJSIP_TP_STATE_DESTROY)
        forget(transport);
    pthread_mutex_unlock(&flows_mutex);
    if (report)
        tell_on_disconnected(transport, token, transport->dir == PJSIP_TP_DIR_INCOMING, &transport->key.rem_addr,
                             status);
}

static void on_state(pjsip_transport *transport, pjsip_transport_state state, const pjsip_transport_state_info *info)
{
    if (guard.active) {
        if (state == PJSIP_TP_STATE_CONNECTED)
            on_connected(transport, info);
        else
            on_ended(transport, state, info ? info->status : PJ_SUCCESS);
    }
    if (next_callback)
        next_callback(transport, state, info);
}

void flow_start(pjsip_tpmgr *manager)
{
    pjsip_tp_state_callback current = pjsip_tpmgr_get_state_cb(manager);

    flow_clear();
    if (current != &on_state) {
        next_callback = current;
        pjsip_tpmgr_set_state_cb(manager, &on_state);
    }
}
