/* Where pjsip finds a host: a table, and nothing else.
 *
 * pjlib's own way is a blocking getaddrinfo on the SIP thread. A name that is
 * not in the table does not resolve, so no peer can make this process ask DNS.
 */
#include "native.h"

#include <pthread.h>
#include <strings.h>

enum { NAME_BYTES = 256 };

typedef struct host {
    char name[NAME_BYTES];
    pj_sockaddr address[PJSIP_MAX_RESOLVED_ADDRESSES];
    unsigned count;
} host;

static pthread_mutex_t hosts_mutex = PTHREAD_MUTEX_INITIALIZER;
static host *hosts;
static size_t host_count;

static bool parse_literal(const pj_str_t *text, pj_sockaddr *address)
{
    pj_in_addr four;
    pj_in6_addr six;

    if (text->slen == 0)
        return false;
    if (pj_inet_pton(pj_AF_INET(), text, &four) == PJ_SUCCESS) {
        pj_sockaddr_init(pj_AF_INET(), address, NULL, 0);
        address->ipv4.sin_addr = four;
        return true;
    }
    if (pj_inet_pton(pj_AF_INET6(), text, &six) == PJ_SUCCESS) {
        pj_sockaddr_init(pj_AF_INET6(), address, NULL, 0);
        address->ipv6.sin6_addr = six;
        return true;
    }
    return false;
}

static const host *find_host(const pj_str_t *name)
{
    for (size_t i = 0; i < host_count; i++)
        if (strlen(hosts[i].name) == (size_t)name->slen &&
            strncasecmp(hosts[i].name, name->ptr, (size_t)name->slen) == 0)
            return &hosts[i];
    return NULL;
}

bool hosts_has(const pj_str_t *name)
{
    pthread_mutex_lock(&hosts_mutex);
    bool found = find_host(name) != NULL;
    pthread_mutex_unlock(&hosts_mutex);
    return found;
}

/* Source: RFC 3263 section 4.1: the transport where the URI names none. */
static int transport_type_of(const pjsip_host_info *target)
{
    if (target->type != PJSIP_TRANSPORT_UNSPECIFIED)
        return target->type;
    if (target->flag & PJSIP_TRANSPORT_SECURE)
        return PJSIP_TRANSPORT_TLS;
    return target->flag & PJSIP_TRANSPORT_RELIABLE ? PJSIP_TRANSPORT_TCP : PJSIP_TRANSPORT_UDP;
}

/* An address of the wrong family for a transport that names one is left out. */
static void add_address(pjsip_server_addresses *found, const pjsip_host_info *target, const pj_sockaddr *address)
{
    int type = transport_type_of(target);
    bool six = address->addr.sa_family == pj_AF_INET6();
    pjsip_server_address_record *record = &found->entry[found->count];

    if (!six && (target->type & PJSIP_TRANSPORT_IPV6) && target->type != PJSIP_TRANSPORT_UNSPECIFIED)
        return;
    type = six ? type | PJSIP_TRANSPORT_IPV6 : type & ~PJSIP_TRANSPORT_IPV6;
    record->name = target->addr.host;
    record->type = (pjsip_transport_type_e)type;
    record->priority = 0;
    record->weight = 0;
    pj_sockaddr_cp(&record->addr, address);
    pj_sockaddr_set_port(&record->addr, (pj_uint16_t)(target->addr.port ? target->addr.port
                                        : pjsip_transport_get_default_port_for_type(record->type)));
    record->addr_len = (int)pj_sockaddr_get_len(&record->addr);
    found->count++;
}

/* Answers before it returns, as pjsip's own resolver does for a literal; no
 * lock is held while the answer is given. */
static void resolve(pjsip_resolver_t *resolver, pj_pool_t *pool, const pjsip_host_info *target, void *token,
                    pjsip_resolver_callback *callback)
{
    pjsip_server_addresses found = { 0 };
    pj_sockaddr literal;

    (void)resolver;
    (void)pool;
    if (parse_literal(&target->addr.host, &literal)) {
        add_address(&found, target, &literal);
    } else {
        pthread_mutex_lock(&hosts_mutex);
        const host *entry = find_host(&target->addr.host);
        for (unsigned i = 0; entry && i < entry->count; i++)
            add_address(&found, target, &entry->address[i]);
        pthread_mutex_unlock(&hosts_mutex);
    }
    if (found.count)
        callback(PJ_SUCCESS, token, &found);
    else
        callback(PJ_ERESOLVE, token, NULL);
}

static pjsip_ext_resolver table_resolver = { .resolve = &resolve };

static bool fill_host(host *entry, PyObject *name, PyObject *addresses)
{
    const char *text = PyUnicode_AsUTF8(name);
    PyObject *list = text ? PySequence_Fast(addresses, "hosts: a sequence of IP addresses") : NULL;

    if (!list)
        return false;
    if (!*text || strlen(text) >= NAME_BYTES)
        PyErr_Format(PyExc_ValueError, "hosts: %R is no host name", name);
    else if (PySequence_Fast_GET_SIZE(list) < 1 || PySequence_Fast_GET_SIZE(list) > PJSIP_MAX_RESOLVED_ADDRESSES)
        PyErr_Format(PyExc_ValueError, "hosts: %R has %zd addresses, 1 to %d are taken", name,
                     PySequence_Fast_GET_SIZE(list), PJSIP_MAX_RESOLVED_ADDRESSES);
    else
        strcpy(entry->name, text);
    for (Py_ssize_t i = 0; !PyErr_Occurred() && i < PySequence_Fast_GET_SIZE(list); i++) {
        const char *address = PyUnicode_AsUTF8(PySequence_Fast_GET_ITEM(list, i));
        pj_str_t literal = native_str(address ? address : "");
        if (address && !parse_literal(&literal, &entry->address[entry->count++]))
            PyErr_Format(PyExc_ValueError, "hosts: %R of %R is no IP address", PySequence_Fast_GET_ITEM(list, i),
                         name);
    }
    Py_DECREF(list);
    return !PyErr_Occurred();
}

PyObject *hosts_set(PyObject *self, PyObject *argument)
{
    PyObject *name, *addresses;
    Py_ssize_t position = 0;
    size_t count = 0;
    host *table, *old;
    pjsip_endpoint *endpoint;
    pj_status_t status;

    (void)self;
    if (!PyDict_Check(argument))
        return PyErr_Format(PyExc_TypeError, "hosts: a dict of name to IP addresses, not %R", argument);
    native_adopt_thread();
    endpoint = pjsua_get_pjsip_endpt();
    if (!endpoint)
        return native_raise(PJ_EINVALIDOP, "hosts_set: libInit has not run");
    table = calloc((size_t)PyDict_Size(argument) + 1, sizeof(*table));
    if (!table)
        return PyErr_NoMemory();
    while (PyDict_Next(argument, &position, &name, &addresses))
        if (!fill_host(&table[count++], name, addresses)) {
            free(table);
            return NULL;
        }
    Py_BEGIN_ALLOW_THREADS
    pthread_mutex_lock(&hosts_mutex);
    old = hosts;
    hosts = table;
    host_count = count;
    pthread_mutex_unlock(&hosts_mutex);
    free(old);
    status = pjsip_endpt_set_ext_resolver(endpoint, &table_resolver);
    Py_END_ALLOW_THREADS
    if (status != PJ_SUCCESS)
        return native_raise(status, "hosts_set");
    Py_RETURN_NONE;
}
