"""Where a dialog's messages may go: to its own trunk; a stranger gets the refusal of its own request, once."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from b2bua.settings import TrunkSettings
from b2bua.sip.gate import MessageGate

OWNER, STRANGER = 1, 2
LIVE = "live-call"


class Dialogs:
    """One live dialog, of the first trunk; the rest of what the gate asks its handler is not asked here."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def trunk_of_dialog(self, sip_call_id: str) -> str | None:
        return "owner" if sip_call_id == LIVE else None

    def owner_of_dialog(self, sip_call_id: str) -> str | None:
        return self.trunk_of_dialog(sip_call_id)

    def refused(self, *, trunk: str | None, reason: str, status: int) -> None:
        del trunk, status
        self.reasons.append(reason)


def trunk(name: str) -> TrunkSettings:
    return TrunkSettings(
        name=name,
        identities=frozenset({f"{name}.example.test"}),
        sources=(ipaddress.ip_network("127.0.0.0/8"),),
        target=None,
        tenant="clinic",
    )


@pytest.fixture
def gate() -> MessageGate:
    trunks = {OWNER: trunk("owner"), STRANGER: trunk("stranger")}
    handler: Any = Dialogs()
    return MessageGate(trunk_of=trunks.get, handler=handler, host="edge.example.test")


def ask(gate: MessageGate, token: int, method: str, *, call_id: str = LIVE) -> int | None:
    """The status a request in a dialog is refused with; None: it passes."""
    verdict = gate.on_message(token, 0, True, method, 0, False, call_id, "", b"", b"")
    return None if verdict is None else verdict[0]


def test_messages_go_to_the_dialogs_own_trunk_only(gate: MessageGate) -> None:
    assert gate.may_send(OWNER, LIVE)
    assert not gate.may_send(STRANGER, LIVE)
    assert not gate.may_send(0, LIVE)
    assert gate.may_send(STRANGER, "a call that nobody has")


def test_a_stranger_gets_one_answer_to_its_own_request(gate: MessageGate) -> None:
    assert ask(gate, STRANGER, "BYE") == 403
    assert gate.may_send(OWNER, LIVE)
    assert gate.may_send(STRANGER, LIVE)
    assert not gate.may_send(STRANGER, LIVE)


def test_an_answer_that_was_not_sent_is_not_owed_after_the_next_request(gate: MessageGate) -> None:
    assert ask(gate, STRANGER, "BYE") == 403
    assert ask(gate, OWNER, "BYE") is None
    assert not gate.may_send(STRANGER, LIVE)


def test_an_ack_is_owed_nothing(gate: MessageGate) -> None:
    assert ask(gate, STRANGER, "ACK") == 403
    assert not gate.may_send(STRANGER, LIVE)


@pytest.mark.parametrize("method", ["INVITE", "UPDATE", "PRACK"])
@pytest.mark.parametrize("end", [b"\r\n\r\n", b"\n\n"], ids=["CRLF", "LF"])
def test_a_body_without_a_content_type_is_refused(gate: MessageGate, method: str, end: bytes) -> None:
    """pjsip shows no such body; only the message itself tells that there is one."""

    def status(message: bytes) -> int | None:
        verdict = gate.on_message(OWNER, 0, True, method, 0, False, LIVE, "", b"", message)
        return None if verdict is None else verdict[0]

    head = method.encode() + b" sip:x SIP/2.0\r\nContent-Length: 3"
    assert status(head + end + b"v=0") == 400
    assert status(head + end) is None
