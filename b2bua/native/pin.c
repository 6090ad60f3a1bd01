/* Keep a peer's later requests on the connection that it came on.
 *
 * pjsip takes where to send an in-dialog request from the peer's Contact. A
 * Contact without transport=tls means UDP, which does not exist here; one with
 * a port that nobody listens on, or an address behind a NAT, loses the BYE. So
 * the Contact's address is replaced by the name and port that the transport
 * manager knows the connection by: its reuse check compares exactly those.
 * With Record-Route the next hop is a proxy whose URI must reach it unchanged,
 * as it recognises itself by it: there only the transport is put right.
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

void pin_to_flow(pjsip_rx_data *rdata)
{
    pjsip_msg *message = rdata->msg_info.msg;

    if (rdata->msg_info.record_route) {
        pjsip_sip_uri *uri = sip_uri(next_hop(rdata)->name_addr.uri);
        if (uri)
            uri->transport_param = native_str("tls");
        return;
    }
    for (pjsip_hdr *header = message->hdr.next; header != &message->hdr; header = header->next)
        if (header->type == PJSIP_H_CONTACT)
            pin_contact((pjsip_contact_hdr *)header, rdata);
}
