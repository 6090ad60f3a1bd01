/* What the parts of the extension share. Every file but tap_ring.c includes it.
 *
 * Locks: none of ours is held while Python runs. Callbacks from pjsip may come
 * with pjsip's own locks held; that is sound because no thread waits for one of
 * those while it holds the GIL (each call into pjsip is made without it).
 */
#ifndef SEALTRUNK_NATIVE_H
#define SEALTRUNK_NATIVE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#ifndef PJ_AUTOCONF
#   define PJ_AUTOCONF 1
#endif
#include <pjsua-lib/pjsua.h>

#include <stdbool.h>
#include <stdint.h>

/* ---- module.c ---- */

/* Set NativeError(status, text) and return NULL. */
PyObject *native_raise(pj_status_t status, const char *what);

/* Register the calling thread with pjlib when it is not yet. */
void native_adopt_thread(void);

/* Text that a peer wrote: UTF-8 where it is, surrogate escapes where not. */
PyObject *native_text(const char *text, pj_ssize_t length);

/* pj_str_t over a C string that outlives it. */
static inline pj_str_t native_str(const char *text)
{
    pj_str_t value = { (char *)text, (pj_ssize_t)strlen(text) };
    return value;
}

/* ---- guard.c: what the product allowed, and its callbacks ---- */

typedef enum native_refusal {
    REFUSED_UNVERIFIED_TRANSPORT,
    REFUSED_METHOD_NOT_ALLOWED,
    REFUSED_METHOD_UNKNOWN,
    REFUSED_OVERSIZE,
    REFUSED_GARBLED,
    REFUSED_CONTENT_LENGTH,
    REFUSED_PLAINTEXT_TRANSPORT,
    REFUSED_CALLBACK_FAILED,
    REFUSED_UNVERIFIED_SEND,
    REFUSED_FOREIGN_SEND,
    REFUSED_FOREIGN_CANCEL,
    REFUSED_FOREIGN_ROUTE,
    REFUSAL_COUNT
} native_refusal;

typedef enum native_event {
    EVENT_CONNECTIONS_VERIFIED,
    EVENT_CONNECTIONS_REFUSED,
    EVENT_REQUESTS_REFUSED_BY_GATE,
    EVENT_BODIES_STRIPPED_BY_GATE,
    EVENT_CONTACTS_PINNED,
    EVENT_KEEPALIVES_ANSWERED,
    EVENT_COUNT
} native_event;

enum { GUARD_METHODS_MAX = 16, GUARD_METHOD_BYTES = 32 };

typedef struct native_guard {
    bool active;
    PyObject *on_connected, *on_disconnected, *gate, *on_refused, *may_send;
    char methods[GUARD_METHODS_MAX][GUARD_METHOD_BYTES];
    unsigned method_count;
    char allow[GUARD_METHODS_MAX * (GUARD_METHOD_BYTES + 2)];
    size_t max_message_bytes;
} native_guard;

extern native_guard guard;

void guard_count(native_event event);

/* Count, and tell on_refused. `method` may be NULL. Takes the GIL. */
void guard_refuse(native_refusal reason, pjsip_transport *transport, const pj_str_t *method, int status);

/* For callers that hold the GIL: print the pending exception, count it. */
void guard_callback_failed(PyObject *callback);

/* False once the interpreter is going down: no callback may be made. */
bool guard_can_call(void);

PyObject *guard_install(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *guard_remove(PyObject *self, PyObject *unused);
PyObject *guard_counters(PyObject *self, PyObject *unused);
PyObject *guard_reasons(void);
PyObject *transport_token(PyObject *self, PyObject *argument);
PyObject *transport_shutdown(PyObject *self, PyObject *argument);
PyObject *request_transport(PyObject *self, PyObject *argument);

/* ---- flow.c: the connections and which of them are verified ---- */

void flow_start(pjsip_tpmgr *manager);
void flow_clear(void);
bool flow_is_known(const void *transport);
int64_t flow_token(const void *transport);
bool flow_may_receive(pjsip_transport *transport);
bool flow_may_send(pjsip_transport *transport);
void flow_close(pjsip_transport *transport, bool at_once);
void flow_accept_failed(const pjsip_tls_on_accept_fail_param *param);

/* ---- input.c: limits on what is read, before the parser sees it ---- */

void input_start(pjsip_tpmgr *manager);
void input_stop(pjsip_tpmgr *manager);

/* ---- pin.c ---- */

/* False: a request that would begin a dialog with a route to somebody else. */
bool pin_to_flow(pjsip_rx_data *rdata);

/* ---- gate.c: the two pjsip modules ---- */

pj_status_t gate_register(pjsip_endpoint *endpoint);
void gate_unregister(pjsip_endpoint *endpoint);

/* ---- hosts.c ---- */

bool hosts_has(const pj_str_t *name);

/* ---- transport.c, hosts.c, srtp_info.c, log.c, tap.c ---- */

PyObject *listener_create(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *listener_port(PyObject *self, PyObject *argument);
PyObject *listener_swap(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *listener_restart(PyObject *self, PyObject *argument);
PyObject *hosts_set(PyObject *self, PyObject *argument);
PyObject *srtp_state(PyObject *self, PyObject *args);
PyObject *legs_received(PyObject *self, PyObject *argument);
PyObject *log_keep(PyObject *self, PyObject *argument);
PyObject *log_take(PyObject *self, PyObject *unused);
PyObject *tap_new(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *tap_attach(PyObject *self, PyObject *args);
PyObject *tap_drain_all(PyObject *self, PyObject *argument);
PyObject *tap_stats(PyObject *self, PyObject *argument);
PyObject *tap_free(PyObject *self, PyObject *argument);

#endif
