/* What a connection may send before the parser sees it.
 *
 * pjsip goes on with a stream after it lost its place in it: the tail of a
 * message that was too long is then read as a new request. Here whatever was
 * dropped ends the connection, and a connection that ends is not read.
 */
#include "native.h"

#include <strings.h>

/* The fields that every message must have (RFC 3261 section 8.1.1) or a stream
 * cannot do without. pjsip refuses a message that lacks one as well, but writes
 * all of it to the log, numbers included: so it must not get that far. */
typedef struct field {
    const char *name;
    char compact;
} field;

enum { CONTENT_LENGTH, FIELD_COUNT = 6 };

static const field fields[FIELD_COUNT] = {
    [CONTENT_LENGTH] = { "content-length", 'l' }, { "call-id", 'i' }, { "from", 'f' },
    { "to", 't' },                                { "via", 'v' },     { "cseq", 0 },
};

typedef struct framing {
    bool complete;      /* the empty line has arrived */
    bool bare;          /* and it was no CRLF: the parser ends the header there, the framing does not */
    bool contradictory; /* two Content-Length fields that differ */
    bool present[FIELD_COUNT];
    size_t header_bytes;
    uint64_t body_bytes;
} framing;

/* Past blanks, and past a line's end when the next line continues this one. */
static const char *skip_blank(const char *at, const char *end)
{
    for (;;) {
        const char *next = at;
        if (next < end && *next == '\r')
            next++;
        if (next < end && *next == '\n')
            next++;
        if (next == end || (*next != ' ' && *next != '\t'))
            return at;
        at = next + 1;
    }
}

/* The value of a line that is this field; NULL for another field or no value. */
static const char *value_of(const char *line, const char *end, const field *wanted)
{
    size_t length = strlen(wanted->name);

    if ((size_t)(end - line) > length && strncasecmp(line, wanted->name, length) == 0)
        line += length;
    else if (line < end && wanted->compact && (*line | 0x20) == wanted->compact)
        line += 1;
    else
        return NULL;
    while (line < end && (*line == ' ' || *line == '\t'))
        line++;
    if (line == end || *line != ':')
        return NULL;
    line = skip_blank(line + 1, end);
    return line == end || *line == '\r' || *line == '\n' ? NULL : line;
}

static bool read_number(const char *text, const char *end, uint64_t *value)
{
    if (*text < '0' || *text > '9')
        return false;
    for (*value = 0; text < end && *text >= '0' && *text <= '9'; text++)
        *value = *value > UINT32_MAX ? *value : *value * 10 + (uint64_t)(*text - '0');
    return true;
}

static void read_field(const char *line, const char *end, framing *result)
{
    for (int i = 0; i < FIELD_COUNT; i++) {
        const char *value = value_of(line, end, &fields[i]);
        uint64_t number;
        if (!value)
            continue;
        if (i != CONTENT_LENGTH) {
            result->present[i] = true;
        } else if (read_number(value, end, &number)) {
            result->contradictory |= result->present[i] && number != result->body_bytes;
            result->present[i] = true;
            result->body_bytes = number;
        }
    }
}

/* Source: RFC 3261 section 18.3: on a stream Content-Length frames a message. */
static framing read_framing(const char *data, size_t size)
{
    framing result = { 0 };
    const char *end = data + size, *line = data;

    for (;;) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        if (!newline)
            return result;
        if (line != data && (newline == line || (newline == line + 1 && *line == '\r'))) {
            result.complete = true;
            result.bare = newline == line;
            result.header_bytes = (size_t)(newline + 1 - data);
            return result;
        }
        if (line != data)
            read_field(line, end, &result);
        line = newline + 1;
    }
}

static bool is_well_formed(const char *data, const framing *message)
{
    static const char version[] = "SIP/2.0 ";
    uint64_t status;

    for (int i = 0; i < FIELD_COUNT; i++)
        if (message->bare || !message->present[i])
            return false;
    if (message->header_bytes < sizeof(version) + 3 || memcmp(data, version, sizeof(version) - 1) != 0)
        return true;
    data += sizeof(version) - 1;
    return read_number(data, data + 4, &status) && status >= 100 && status < 700;
}

static void refuse_and_close(native_refusal reason, pjsip_transport *transport)
{
    guard_refuse(reason, transport, NULL, 0);
    flow_close(transport, true);
}

/* Setting len to 0 takes all that was read out of the parser's sight. */
static pj_status_t on_received(pjsip_tp_rx_data *received)
{
    pjsip_transport *transport = received->tp;
    framing message;

    if (!guard.active)
        return PJ_SUCCESS;
    if (transport->is_shutdown || transport->is_destroying) {
        received->len = 0;
        return PJ_SUCCESS;
    }
    if (!flow_may_receive(transport)) {
        received->len = 0;
        refuse_and_close(REFUSED_UNVERIFIED_TRANSPORT, transport);
        return PJ_SUCCESS;
    }
    message = read_framing(received->data, received->len);
    if (message.contradictory || message.body_bytes > guard.max_message_bytes ||
        message.header_bytes + message.body_bytes > guard.max_message_bytes) {
        received->len = 0;
        refuse_and_close(REFUSED_CONTENT_LENGTH, transport);
    } else if (!message.complete && received->len >= guard.max_message_bytes) {
        received->len = 0;
        refuse_and_close(REFUSED_OVERSIZE, transport);
    } else if (message.complete && !is_well_formed(received->data, &message)) {
        received->len = 0;
        refuse_and_close(REFUSED_GARBLED, transport);
    }
    return PJ_SUCCESS;
}

/* Source: RFC 5626 section 4.4.1: a double CRLF is answered by a single one. */
static void answer_keepalive(pjsip_transport *transport)
{
    pjsip_tpselector selector = { .type = PJSIP_TPSELECTOR_TRANSPORT, .u.transport = transport };
    pj_status_t status;

    if (!flow_may_send(transport))
        return;
    status = pjsip_tpmgr_send_raw(transport->tpmgr, transport->key.type, &selector, NULL, "\r\n", 2,
                                  &transport->key.rem_addr, transport->addr_len, NULL, NULL);
    if (status == PJ_SUCCESS || status == PJ_EPENDING)
        guard_count(EVENT_KEEPALIVES_ANSWERED);
}

static void on_dropped(pjsip_tp_dropped_data *dropped)
{
    pjsip_transport *transport = dropped->tp;

    if (!guard.active || transport->is_shutdown || transport->is_destroying)
        return;
    if (dropped->status == PJ_EIGNORED) {
        if (dropped->len >= 4 && memcmp(dropped->data, "\r\n\r\n", 4) == 0)
            answer_keepalive(transport);
        return;
    }
    refuse_and_close(dropped->status == PJSIP_ERXOVERFLOW ? REFUSED_OVERSIZE : REFUSED_GARBLED, transport);
}

void input_start(pjsip_tpmgr *manager)
{
    pjsip_tpmgr_set_recv_data_cb(manager, &on_received);
    pjsip_tpmgr_set_drop_data_cb(manager, &on_dropped);
}

void input_stop(pjsip_tpmgr *manager)
{
    pjsip_tpmgr_set_recv_data_cb(manager, NULL);
    pjsip_tpmgr_set_drop_data_cb(manager, NULL);
}
