/* TLS listeners with every setting that matters spelled out.
 *
 * pjsua's own creator has no published port and no way back to the factory, so
 * the listener is started here and handed to pjsua afterwards.
 */
#include "native.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

enum { LISTENERS_MAX = 8, PATH_BYTES = 1024, HOST_BYTES = 256, CIPHERS_MAX = 16 };

typedef struct listener {
    pjsip_tpfactory *factory; /* NULL: the entry is free */
    pj_sockaddr bound;
    char public_host[HOST_BYTES];
    int public_port;
    char certificate[PATH_BYTES], private_key[PATH_BYTES], trust[PATH_BYTES];
    pj_ssl_cipher ciphers[CIPHERS_MAX];
    unsigned cipher_count;
    int handshake_timeout_ms;
} listener;

/* By pjsua transport id. Touched by the SIP thread alone. */
static listener listeners[LISTENERS_MAX];

static int enabled = 1;

static void fill_settings(pjsip_tls_setting *setting, listener *entry)
{
    pjsip_tls_setting_default(setting);
    setting->proto = PJ_SSL_SOCK_PROTO_TLS1_3;
    setting->cert_file = native_str(entry->certificate);
    setting->privkey_file = native_str(entry->private_key);
    setting->ca_list_file = native_str(entry->trust);
    setting->ciphers = entry->ciphers;
    setting->ciphers_num = entry->cipher_count;
    setting->verify_server = PJ_TRUE;
    setting->verify_client = PJ_TRUE;
    setting->require_client_cert = PJ_TRUE;
    setting->enable_renegotiation = PJ_FALSE;
    setting->timeout.sec = entry->handshake_timeout_ms / 1000;
    setting->timeout.msec = entry->handshake_timeout_ms % 1000;
    setting->reuse_addr = PJ_TRUE;
    setting->on_accept_fail_cb = &flow_accept_failed;
    setting->sockopt_ignore_error = PJ_FALSE;
    setting->sockopt_params.cnt = 2;
    setting->sockopt_params.options[0].level = IPPROTO_TCP;
    setting->sockopt_params.options[0].optname = TCP_NODELAY;
    setting->sockopt_params.options[1].level = SOL_SOCKET;
    setting->sockopt_params.options[1].optname = SO_KEEPALIVE;
    for (unsigned i = 0; i < setting->sockopt_params.cnt; i++) {
        setting->sockopt_params.options[i].optval = &enabled;
        setting->sockopt_params.options[i].optlen = sizeof(enabled);
    }
}

static bool copy_text(char *target, size_t size, const char *source, const char *what)
{
    size_t length = strlen(source);

    if (length == 0 || length >= size) {
        PyErr_Format(PyExc_ValueError, "%s: %zu bytes, 1 to %zu are taken", what, length, size - 1);
        return false;
    }
    memcpy(target, source, length + 1);
    return true;
}

static bool copy_ciphers(listener *entry, PyObject *ciphers)
{
    PyObject *list = PySequence_Fast(ciphers, "ciphers: a sequence of IANA numbers");

    if (!list)
        return false;
    if (PySequence_Fast_GET_SIZE(list) < 1 || PySequence_Fast_GET_SIZE(list) > CIPHERS_MAX)
        PyErr_Format(PyExc_ValueError, "ciphers: 1 to %d of them", CIPHERS_MAX);
    for (Py_ssize_t i = 0; !PyErr_Occurred() && i < PySequence_Fast_GET_SIZE(list); i++) {
        long cipher = PyLong_AsLong(PySequence_Fast_GET_ITEM(list, i));
        if (!PyErr_Occurred() && !pj_ssl_cipher_is_supported((pj_ssl_cipher)cipher))
            PyErr_Format(PyExc_ValueError, "ciphers: 0x%x is not in this OpenSSL", (unsigned int)cipher);
        entry->ciphers[entry->cipher_count++] = (pj_ssl_cipher)cipher;
    }
    Py_DECREF(list);
    return !PyErr_Occurred();
}

/* Only a literal: a name here would be a blocking look-up on the SIP thread. */
static bool set_bound(listener *entry, const char *address, int port)
{
    pj_str_t text = native_str(address);
    int family = strchr(address, ':') ? pj_AF_INET6() : pj_AF_INET();
    char raw[16];

    if (port < 0 || port > 65535) {
        PyErr_Format(PyExc_ValueError, "port %d: 0 to 65535", port);
        return false;
    }
    if (pj_inet_pton(family, &text, raw) != PJ_SUCCESS) {
        PyErr_Format(PyExc_ValueError, "address %s: an IP address is taken", address);
        return false;
    }
    return pj_sockaddr_init(family, &entry->bound, &text, (pj_uint16_t)port) == PJ_SUCCESS;
}

static pjsip_host_port published(listener *entry)
{
    pjsip_host_port name = { native_str(entry->public_host), entry->public_port };
    return name;
}

/* pjlib reads the files at the first connection only: make it read them now. */
static pj_status_t check_context(pjsip_tpfactory *factory, const pjsip_tls_setting *setting)
{
#if defined(SEALTRUNK_HAVE_TLS_RENEW) && SEALTRUNK_HAVE_TLS_RENEW
    return pjsip_tls_transport_renew(factory, setting);
#else
    (void)factory;
    (void)setting;
    return PJ_SUCCESS;
#endif
}

static pj_status_t start(listener *entry, pjsua_transport_id *id)
{
    pjsip_tls_setting setting;
    pjsip_host_port name = published(entry);
    pj_status_t status;

    fill_settings(&setting, entry);
    status = pjsip_tls_transport_start2(pjsua_get_pjsip_endpt(), &setting, &entry->bound, &name, 1, &entry->factory);
    if (status != PJ_SUCCESS)
        return status;
    status = check_context(entry->factory, &setting);
    if (status == PJ_SUCCESS)
        status = pjsua_tpfactory_register(entry->factory, id);
    if (status == PJ_SUCCESS && *id >= LISTENERS_MAX) {
        pjsua_transport_close(*id, PJ_FALSE);
        return PJ_ETOOMANY;
    }
    if (status != PJ_SUCCESS)
        entry->factory->destroy(entry->factory);
    return status;
}

PyObject *listener_create(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = { "address", "port", "public_host", "public_port", "certificate_path",
                             "private_key_path", "trust_path", "ciphers", "handshake_timeout_ms", NULL };
    const char *address, *host, *certificate, *private_key, *trust;
    listener entry = { 0 };
    PyObject *ciphers;
    pjsua_transport_id id = PJSUA_INVALID_ID;
    pj_status_t status;
    int port;

    (void)self;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "$sisisssOi:listener_create", names, &address, &port, &host,
                                     &entry.public_port, &certificate, &private_key, &trust, &ciphers,
                                     &entry.handshake_timeout_ms))
        return NULL;
    if (!guard.active)
        return native_raise(PJ_EINVALIDOP, "listener_create: guard_install comes first");
    if (entry.public_port < 0 || entry.public_port > 65535 || entry.handshake_timeout_ms < 100)
        return PyErr_Format(PyExc_ValueError, "public_port %d: 0 to 65535; handshake_timeout_ms %d: 100 or more",
                            entry.public_port, entry.handshake_timeout_ms);
    native_adopt_thread();
    if (!copy_text(entry.public_host, sizeof(entry.public_host), host, "public_host") ||
        !copy_text(entry.certificate, sizeof(entry.certificate), certificate, "certificate_path") ||
        !copy_text(entry.private_key, sizeof(entry.private_key), private_key, "private_key_path") ||
        !copy_text(entry.trust, sizeof(entry.trust), trust, "trust_path") || !set_bound(&entry, address, port) ||
        !copy_ciphers(&entry, ciphers))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    status = start(&entry, &id);
    Py_END_ALLOW_THREADS
    if (status != PJ_SUCCESS)
        return native_raise(status, "listener_create");
    listeners[id] = entry;
    return PyLong_FromLong(id);
}

/* pjsua's list decides: libDestroy empties it, and an id may come back. */
static listener *listener_of(long id)
{
    pjsua_transport_info info;

    if (id >= 0 && id < LISTENERS_MAX && listeners[id].factory && pjsua_get_state() != PJSUA_STATE_NULL &&
        pjsua_transport_get_info((pjsua_transport_id)id, &info) == PJ_SUCCESS)
        return &listeners[id];
    PyErr_Format(PyExc_KeyError, "no listener %ld", id);
    return NULL;
}

static listener *listener_argument(PyObject *argument)
{
    long id = PyLong_AsLong(argument);

    if (id == -1 && PyErr_Occurred())
        return NULL;
    native_adopt_thread();
    return listener_of(id);
}

PyObject *listener_port(PyObject *self, PyObject *argument)
{
    listener *entry = listener_argument(argument);

    (void)self;
    return entry ? PyLong_FromLong(pj_sockaddr_get_port(&entry->factory->local_addr)) : NULL;
}

PyObject *listener_swap(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = { "transport_id", "certificate_path", "private_key_path", "trust_path", NULL };
    const char *certificate, *private_key, *trust;
    long id;
    listener *entry, next;
    pjsip_tls_setting setting;
    pj_status_t status;

    (void)self;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "l$sss:listener_swap", names, &id, &certificate, &private_key,
                                     &trust))
        return NULL;
    native_adopt_thread();
    entry = listener_of(id);
    if (!entry)
        return NULL;
    next = *entry;
    if (!copy_text(next.certificate, sizeof(next.certificate), certificate, "certificate_path") ||
        !copy_text(next.private_key, sizeof(next.private_key), private_key, "private_key_path") ||
        !copy_text(next.trust, sizeof(next.trust), trust, "trust_path"))
        return NULL;
    fill_settings(&setting, &next);
#if defined(SEALTRUNK_HAVE_TLS_RENEW) && SEALTRUNK_HAVE_TLS_RENEW
    Py_BEGIN_ALLOW_THREADS
    status = pjsip_tls_transport_renew(next.factory, &setting);
    Py_END_ALLOW_THREADS
#else
    status = PJ_ENOTSUP;
#endif
    if (status != PJ_SUCCESS)
        return native_raise(status, "listener_swap: the old context stays");
    *entry = next;
    Py_RETURN_NONE;
}

/* Closes and binds again: connections that come meanwhile are reset. */
PyObject *listener_restart(PyObject *self, PyObject *argument)
{
    listener *entry = listener_argument(argument);
    pjsip_tls_setting setting;
    pjsip_host_port name;
    pj_sockaddr bound;
    pj_status_t status;

    (void)self;
    if (!entry)
        return NULL;
    fill_settings(&setting, entry);
    name = published(entry);
    bound = entry->bound;
    pj_sockaddr_set_port(&bound, pj_sockaddr_get_port(&entry->factory->local_addr));
    Py_BEGIN_ALLOW_THREADS
    status = pjsip_tls_transport_restart2(entry->factory, &setting, &bound, &name);
    if (status == PJ_SUCCESS)
        status = check_context(entry->factory, &setting);
    Py_END_ALLOW_THREADS
    if (status != PJ_SUCCESS)
        return native_raise(status, "listener_restart");
    Py_RETURN_NONE;
}
