"""Dialogs of both ends, and the messages inside them."""

from __future__ import annotations

import pytest

from b2bua.demo.dialog import (
    dialog_of_callee,
    dialog_of_caller,
    hop_request,
    in_dialog_request,
    response_to,
)
from b2bua.demo.errors import SIPParseError
from b2bua.demo.sip_message import Header, SIPRequest

INVITE = SIPRequest(
    method="INVITE",
    uri="sip:bob@b.example;transport=tls",
    headers=(
        Header("Via", "SIP/2.0/TLS a.example;branch=z9hG4bKone"),
        Header("Record-Route", "<sip:near;lr>, <sip:far;lr>"),
        Header("From", "<sip:alice@a.example>;tag=a"),
        Header("To", "<sip:bob@b.example>"),
        Header("Call-ID", "call"),
        Header("CSeq", "4 INVITE"),
        Header("Contact", "<sip:alice@192.0.2.1:5061;transport=tls>;expires=9"),
        Header("Max-Forwards", "70"),
    ),
)
OK = response_to(
    INVITE, 200, "OK", to_tag="b", headers=[Header("Contact", "<sip:bob@192.0.2.2;transport=tls>")]
)


def test_the_two_ends_of_a_dialog_match_each_others_requests() -> None:
    caller, callee = dialog_of_caller(INVITE, OK), dialog_of_callee(INVITE, "b")
    bye = in_dialog_request(callee, "BYE", cseq=1, via="b.example:5061")
    assert caller.matches(bye)
    assert not callee.matches(bye)
    assert bye.uri == "sip:alice@192.0.2.1:5061;transport=tls"
    assert (bye.from_tag, bye.to_tag, bye.cseq.number) == ("b", "a", 1)
    assert callee.matches(in_dialog_request(caller, "BYE", cseq=5, via="a.example"))


def test_routes_are_followed_from_each_end_in_its_own_order() -> None:
    from_caller = in_dialog_request(dialog_of_caller(INVITE, OK), "BYE", cseq=5, via="x")
    from_callee = in_dialog_request(dialog_of_callee(INVITE, "b"), "BYE", cseq=5, via="x")
    assert from_caller.all("Route") == ("<sip:far;lr>", "<sip:near;lr>")
    assert from_callee.all("Route") == ("<sip:near;lr>", "<sip:far;lr>")


def test_every_request_has_a_branch_of_its_own() -> None:
    dialog = dialog_of_caller(INVITE, OK)
    branches = {in_dialog_request(dialog, "OPTIONS", cseq=5, via="x").branch for _ in range(20)}
    assert len(branches) == 20
    assert all(branch is not None and branch.startswith("z9hG4bK") for branch in branches)


def test_cancel_and_the_ack_of_a_refusal_share_the_branch() -> None:
    cancel = hop_request(INVITE, "CANCEL")
    assert (cancel.branch, cancel.uri, cancel.cseq) == ("z9hG4bKone", INVITE.uri, (4, "CANCEL"))
    assert cancel.to_tag is None
    refusal = response_to(INVITE, 486, "Busy Here", to_tag="b")
    ack = hop_request(INVITE, "ACK", to=refusal.require("To"))
    assert (ack.branch, ack.to_tag, ack.cseq) == ("z9hG4bKone", "b", (4, "ACK"))
    assert ack.first("Contact") is None


def test_a_response_copies_what_it_must_and_keeps_an_existing_tag() -> None:
    assert [header.name for header in OK.headers] == [
        "Via", "Record-Route", "From", "To", "Call-ID", "CSeq", "Contact",
    ]  # fmt: skip
    inside = in_dialog_request(dialog_of_callee(INVITE, "b"), "INFO", cseq=1, via="x")
    assert response_to(inside, 200, "OK", to_tag="other").to_tag == "a"


def test_a_target_refresh_moves_the_target_only_with_a_contact() -> None:
    dialog = dialog_of_caller(INVITE, OK)
    assert dialog.retargeted("sip:new").remote_target == "sip:new"
    assert dialog.retargeted(None) is dialog


def test_no_dialog_without_a_contact() -> None:
    with pytest.raises(SIPParseError, match="Contact"):
        dialog_of_caller(INVITE, response_to(INVITE, 200, "OK", to_tag="b"))
