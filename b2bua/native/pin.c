/* Keep a peer's later requests on the connection that it came on.
 *
 * pjsip takes where to send an in-dialog request from the peer's Contact. A
 * Contact without transport=tls means UDP, which does not exist here; one with
 * a port that nobody listens on, or an address behind a NAT, loses the BYE. So
 * the Contact's address is replaced by the name and port that the transport
 * manager knows the connection by: its reuse check compares exactly those.
 * With Record-Route the next hop is a proxy whose URI must reach it unchanged,
 * as it recognises itself by it: there only the transport is put right. But a
 * peer may not have us connect to whomever it names: the next hop is the
 * connection itself or a host that the configuration has, or it is refused in
 * a request and forgotten in a response.
 */
#include "native.h"

static pjsip_sip_uri *sip_uri(void *uri)
{
    if (!uri || (!PJSIP_URI_SCHEME_IS_SIP(uri) && !PJSIP_URI_SCHEME_IS_SIPS(uri)))
        return NULL;
    return pjsip_uri_get_uri(uri);
}

static void pin_contact(pjsip_contact_hdr *contact, pjsip_rx_data *rdata)
{
    const pjsip_host_port *name = &rdata->tp_info.transport->remote_name;
    pjsip_sip_uri *uri = contact->star ? NULL : sip_uri(contact->uri);

    if (!uri)
        return;
    uri->transport_param = native_str("tls");
    uri->maddr_param.slen = 0;
    pj_strdup(rdata->tp_info.pool, &uri->host, &name->host);
    uri->port = name->port;
    guard_count(EVENT_CONTACTS_PINNED);
}

/* Source: RFC 3261 section 12.1: the UAS takes the route set in order, the UAC
 * in reverse, so its next hop is the last Record-Route of the response. */
static pjsip_rr_hdr *next_hop(pjsip_rx_data *rdata)
{
    pjsip_msg *message = rdata->msg_info.msg;
    pjsip_rr_hdr *found = rdata->msg_info.record_route, *next = found;

    while (message->type == PJSIP_RESPONSE_MSG && next && (void *)next->next != (void *)&message->hdr) {
        next = pjsip_msg_find_hdr(message, PJSIP_H_RECORD_ROUTE, next->next);
        found = next ? next : found;
    }
    return found;
}

/* The dialog that a message belongs to, once its route set can change no more:
 * then a Record-Route means nothing (RFC 3261 section 12.2). */
static const pjsip_dialog *settled_dialog(const pjsip_rx_data *rdata)
{
    bool is_request = rdata->msg_info.msg->type == PJSIP_REQUEST_MSG;
    const pj_str_t *from = &rdata->msg_info.from->tag, *to = &rdata->msg_info.to->tag;
    const pjsip_dialog *dialog;

    if (to->slen == 0)
        return NULL;
    dialog = pjsip_ua_find_dialog(&rdata->msg_info.cid->id, is_request ? to : from, is_request ? from : to, PJ_FALSE);
    return dialog && dialog->route_set_frozen ? dialog : NULL;
}

static bool leads_to_its_peer(const pjsip_sip_uri *uri, const pjsip_rx_data *rdata)
{
    const pjsip_host_port *name = &rdata->tp_info.transport->remote_name;
    bool same = uri->port == name->port && pj_stricmp(&uri->host, &name->host) == 0;
    return uri->maddr_param.slen == 0 && (same || hosts_has(&uri->host));
}

static void forget_routes(pjsip_rx_data *rdata)
{
    pjsip_hdr *header;

    while ((header = pjsip_msg_find_hdr(rdata->msg_info.msg, PJSIP_H_RECORD_ROUTE, NULL)) != NULL)
        pj_list_erase(header);
    rdata->msg_info.record_route = NULL;
}

/* Whether the message's routes stay and its Contact is therefore left as it is. */
static bool keeps_routes(pjsip_rx_data *rdata, bool *foreign)
{
    const pjsip_dialog *dialog = settled_dialog(rdata);
    bool begins = rdata->msg_info.msg->type == PJSIP_RESPONSE_MSG || rdata->msg_info.to->tag.slen == 0;
    pjsip_sip_uri *uri;

    if (dialog)
        return !pj_list_empty(&dialog->route_set);
    if (!begins) /* of a dialog that is over: 481 is pjsip's to say */
        return false;
    uri = sip_uri(next_hop(rdata)->name_addr.uri);
    *foreign = !uri || !leads_to_its_peer(uri, rdata);
    if (!*foreign)
        uri->transport_param = native_str("tls");
    return !*foreign;
}

bool pin_to_flow(pjsip_rx_data *rdata)
{
    pjsip_msg *message = rdata->msg_info.msg;
    bool foreign = false;

    if (rdata->msg_info.record_route) {
        if (keeps_routes(rdata, &foreign))
            return true;
        if (foreign && message->type == PJSIP_REQUEST_MSG)
            return false;
        if (foreign)
            guard_refuse(REFUSED_FOREIGN_ROUTE, rdata->tp_info.transport, &rdata->msg_info.cseq->method.name, 0);
        forget_routes(rdata);
    }
    for (pjsip_hdr *header = message->hdr.next; header != &message->hdr; header = header->next)
        if (header->type == PJSIP_H_CONTACT)
            pin_contact((pjsip_contact_hdr *)header, rdata);
    return true;
}
