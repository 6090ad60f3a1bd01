"""A dialog as a frozen value, and the requests and responses that go with it.

Source: RFC 3261 sections 8.1, 8.2.6, 12, 13.2.2.4, 17.1.1.3.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

from b2bua.demo.errors import SIPParseError
from b2bua.demo.sip_message import Header, SIPRequest, SIPResponse, parameter, split_list

BRANCH_MAGIC = "z9hG4bK"
_COPIED = frozenset({"via", "from", "to", "call-id", "cseq", "record-route"})


def new_tag() -> str:
    """A random tag, or Call-ID."""
    return secrets.token_hex(8)


def new_branch() -> str:
    """A random branch with RFC 3261's prefix."""
    return BRANCH_MAGIC + secrets.token_hex(10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialog:
    """One end's view of a dialog. `local` and `remote` are the From/To values of requests sent by this end."""

    call_id: str
    local: str
    remote: str
    remote_target: str
    route_set: tuple[str, ...]

    @property
    def local_tag(self) -> str | None:
        return parameter(self.local, "tag")

    @property
    def remote_tag(self) -> str | None:
        return parameter(self.remote, "tag")

    def matches(self, request: SIPRequest) -> bool:
        """Whether a request of the far end belongs to this dialog (RFC 3261 section 12.2.2)."""
        return (
            request.call_id == self.call_id
            and request.to_tag == self.local_tag
            and request.from_tag == self.remote_tag
        )

    def retargeted(self, uri: str | None) -> Dialog:
        """The dialog after a target refresh; unchanged without a new Contact."""
        return self if uri is None else replace(self, remote_target=uri)


def dialog_of_caller(invite: SIPRequest, response: SIPResponse) -> Dialog:
    """The dialog that a response with a To tag makes at the caller.

    Raises:
        SIPParseError: the response has no Contact.
    """
    routes = [uri for value in response.all("Record-Route") for uri in split_list(value)]
    return Dialog(
        call_id=invite.call_id, local=invite.require("From"), remote=response.require("To"),
        remote_target=_target(response.contact_uri), route_set=tuple(reversed(routes)),
    )  # fmt: skip


def dialog_of_callee(invite: SIPRequest, local_tag: str) -> Dialog:
    """The dialog at the callee of an INVITE.

    Raises:
        SIPParseError: the INVITE has no Contact.
    """
    routes = [uri for value in invite.all("Record-Route") for uri in split_list(value)]
    return Dialog(
        call_id=invite.call_id, local=f"{invite.require('To')};tag={local_tag}", remote=invite.require("From"),
        remote_target=_target(invite.contact_uri), route_set=tuple(routes),
    )  # fmt: skip


def in_dialog_request(
    dialog: Dialog, method: str, *, cseq: int, via: str, headers: Sequence[Header] = (), body: bytes = b""
) -> SIPRequest:
    """A request inside the dialog. `via` is the sent-by of this end's connection; every call gets a new branch."""
    return SIPRequest(
        method=method, uri=dialog.remote_target, body=body,
        headers=(
            Header("Via", via_value(via, new_branch())),
            Header("Max-Forwards", "70"),
            Header("From", dialog.local),
            Header("To", dialog.remote),
            Header("Call-ID", dialog.call_id),
            Header("CSeq", f"{cseq} {method}"),
            *(Header("Route", route) for route in dialog.route_set),
            *headers,
        ),
    )  # fmt: skip


def hop_request(invite: SIPRequest, method: str, *, to: str | None = None) -> SIPRequest:
    """The CANCEL of an INVITE, or the ACK of its refusal: same branch, same CSeq number, no body.

    `to` is the To value of the refused response, which its ACK repeats.
    """
    kept = [
        Header("To", to) if header.name == "To" and to is not None else header
        for header in invite.headers
        if header.name in ("Via", "From", "To", "Call-ID", "Max-Forwards", "Route")
    ]
    return SIPRequest(
        method=method, uri=invite.uri, headers=(*kept, Header("CSeq", f"{invite.cseq.number} {method}"))
    )


def response_to(
    request: SIPRequest, status: int, reason: str, *, to_tag: str | None = None, headers: Sequence[Header] = (),
    body: bytes = b"",
) -> SIPResponse:  # fmt: skip
    """A response; `to_tag` is added to the To of a request that has none."""
    copied = [header for header in request.headers if header.name.lower() in _COPIED]
    if to_tag is not None and request.to_tag is None:
        copied = [Header(h.name, f"{h.value};tag={to_tag}") if h.name == "To" else h for h in copied]
    return SIPResponse(status=status, reason=reason, headers=(*copied, *headers), body=body)


def via_value(sent_by: str, branch: str) -> str:
    """A Via value for TLS."""
    return f"SIP/2.0/TLS {sent_by};rport;branch={branch}"


def contact_value(uri: str) -> str:
    """A Contact value; URI parameters stay inside the brackets."""
    return f"<{uri}>"


def _target(uri: str | None) -> str:
    if uri is None:
        raise SIPParseError("the message makes a dialog and has no Contact")
    return uri
