/* What a connection may send before the parser sees it.
 *
 * pjsip goes on with a stream after it lost its place in it: the tail of a
 * message that was too long is then read as a new request. Here whatever was
 * dropped ends the connection, and a connection that ends is not read.
 */
#include "native.h"

#include <strings.h>

typedef struct framing {
    bool complete;      /* the blank line has arrived */
    bool contradictory; /* two Content-Length fields that differ */
    size_t header_bytes;
    uint64_t body_bytes;
} framing;

/* After the field's name: the value, or false when this line is another field. */
static bool content_length_value(const char *line, const char *end, uint64_t *value)
{
    static const char name[] = "content-length";
    size_t length = sizeof(name) - 1;

    if ((size_t)(end - line) > length && strncasecmp(line, name, length) == 0)
        line += length;
    else if (end - line > 1 && (*line == 'l' || *line == 'L'))
        line += 1;
    else
        return false;
    while (line < end && (*line == ' ' || *line == '\t'))
        line++;
    if (line == end || *line++ != ':')
        return false;
    while (line < end && (*line == ' ' || *line == '\t'))
        line++;
    if (line == end || *line < '0' || *line > '9')
        return false;
    for (*value = 0; line < end && *line >= '0' && *line <= '9'; line++)
        *value = *value > UINT32_MAX ? *value : *value * 10 + (uint64_t)(*line - '0');
    return true;
}

/* Source: RFC 3261 section 18.3: on a stream Content-Length frames a message. */
static framing read_framing(const char *data, size_t size)
{
    framing result = { 0 };
    const char *end = data + size, *line = data;
    bool seen = false;

    for (;;) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        uint64_t value;
        if (!newline)
            return result;
        if (line != data && (newline == line || (newline == line + 1 && *line == '\r'))) {
            result.complete = true;
            result.header_bytes = (size_t)(newline + 1 - data);
            return result;
        }
        if (content_length_value(line, newline, &value)) {
            result.contradictory = result.contradictory || (seen && value != result.body_bytes);
            result.body_bytes = value;
            seen = true;
        }
        line = newline + 1;
    }
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
