"""Bodies where they are easily forgotten: in PRACK, ACK and a relayed re-INVITE's answer, and those that are no SDP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from b2bua.demo.call import SDP_TYPE, EndCause
from b2bua.demo.dialog import response_to
from b2bua.demo.incoming import Answering, IncomingCall
from b2bua.demo.sip_message import Header
from support.edge import Edge, Parties
from support.endpoint import run

ANSWER = Answering()
Hook = Callable[[bytes], bytes]


def on_crypto_lines(tail: bytes) -> Hook:
    def hook(body: bytes) -> bytes:
        lines = body.split(b"\r\n")
        return b"\r\n".join(line + tail if line.startswith(b"a=crypto") else line for line in lines)

    return hook


ROWS: dict[str, tuple[Hook, str]] = {
    "plain RTP": (lambda body: body.replace(b"RTP/SAVP", b"RTP/AVP"), "sdp_plain_rtp"),
    "UNENCRYPTED_SRTP": (on_crypto_lines(b" UNENCRYPTED_SRTP"), "sdp_weakened_session_parameter"),
    "MKI": (on_crypto_lines(b"|1:4"), "sdp_mki"),
    "host name": (
        lambda body: body.replace(b"IN IP4 127.0.0.1\r\nt=", b"IN IP4 media.example.test\r\nt="),
        "sdp_host_name",
    ),
}


def ended_since(served: Edge, count: int) -> list[dict[str, Any]]:
    return [line for line in served.audit() if line["event"] == "call_ended"][count:]


async def assert_ended_by_policy(served: Edge, before: int, reason: str) -> None:
    """The gate did it, and not pjsip after it: the audit knows the row and the call's end."""

    def ended(line: dict[str, Any]) -> bool:
        """The last to end did so by policy; a short call before it may have reached the log after `before`."""
        since = ended_since(served, before) if line["event"] == "call_ended" else []
        return bool(since) and since[-1]["reason"] == "media_policy"

    await asyncio.to_thread(served.wait_audit, ended)
    refused = [line["reason"] for line in served.audit() if line["event"] == "request_refused"]
    assert refused[-1] == reason


@pytest.mark.parametrize("name", ROWS)
def test_the_answer_in_an_ack_is_judged_before_pjsip_sees_it(served: Edge, name: str) -> None:
    hook, reason = ROWS[name]
    before = served.wait_calls_ended()

    async def scenario() -> None:
        async with served.parties(ANSWER) as p:
            call = await p.invite(offer=False, sdp_hook=hook)
            await call.wait_answered()
            assert (await call.wait_ended()).cause is EndCause.BYE
            assert (await call.stream.stats()).received == 0
            await assert_ended_by_policy(served, before, reason)
            await p.callee.next_call()
            call, other = await p.established(offer=False)
            await call.stream.wait_heard(0.3, timeout_s=5)
            await call.hang_up()
            await other.wait_ended()

    run(scenario())


@pytest.mark.parametrize("name", ROWS)
def test_a_bad_answer_to_a_relayed_reoffer_ends_the_call(served: Edge, name: str) -> None:
    """The downgrade comes from the far side, in answer to a re-INVITE that this side made."""
    hook, reason = ROWS[name]
    before = served.wait_calls_ended()

    async def scenario() -> None:
        async with served.parties(ANSWER) as p:
            call, other = await p.established()
            assert (await call.hold()).status == 200
            other.session.hook = hook
            resuming = asyncio.create_task(call.resume())
            assert (await other.wait_ended()).cause is EndCause.BYE
            assert (await call.wait_ended()).cause is EndCause.BYE
            assert (await resuming).status >= 400
            await assert_ended_by_policy(served, before, reason)

    run(scenario())


@pytest.mark.parametrize("name", ["plain RTP", "UNENCRYPTED_SRTP", "MKI"])
@pytest.mark.parametrize("confirmed", [False, True], ids=["before the answer", "in the call"])
def test_an_offer_in_a_prack_is_refused(served: Edge, confirmed: bool, name: str) -> None:
    """No reliable provisional response is ever sent, so no PRACK is due; its body is judged all the same."""
    hook, reason = ROWS[name]

    async def scenario() -> None:
        async with served.parties() as p:
            call = await p.invite()
            other = await p.callee.next_call()
            await other.early_media()
            await call.wait_status(183)
            if confirmed:
                await other.answer()
                await call.wait_answered()
            good = call.session.offer()
            rack = Header("RAck", f"1 {call.invite.cseq.number} INVITE")
            refused = await call.request("PRACK", headers=[rack, SDP_TYPE], body=hook(good))
            assert refused.status == 488
            assert any(h.name == "Warning" for h in refused.headers)
            passed = await call.request("PRACK", headers=[rack, SDP_TYPE], body=good)
            assert passed.status != 488
            if not confirmed:
                await other.answer()
                await call.wait_answered()
            await call.stream.wait_heard(0.3, timeout_s=5)
            await call.hang_up()
            await other.wait_ended()
            assert reason in [line["reason"] for line in served.audit() if line["event"] == "request_refused"]

    run(scenario())


TYPES = ["text/plain", "multipart/mixed;boundary=cut", "application/sdpx"]


async def answer_with(p: Parties, other: IncomingCall, status: int, content_type: str) -> None:
    """A response whose body is the good description under another type, cut into parts where the type has parts."""
    body = await other.session.answer(other.invite.body)
    if content_type.startswith("multipart"):
        body = b"--cut\r\nContent-Type: application/sdp\r\n\r\n" + body + b"\r\n--cut--\r\n"
    contact = Header("Contact", f"<sips:2001@127.0.0.1:{p.callee.port}>")
    headers = [contact, Header("Content-Type", content_type)]
    reason = "OK" if status == 200 else "Session Progress"
    other.connection.send(
        response_to(other.invite, status, reason, to_tag=other.local_tag, headers=headers, body=body)
    )


@pytest.mark.parametrize("status", [183, 200])
@pytest.mark.parametrize("content_type", TYPES)
def test_a_response_whose_body_is_no_sdp_ends_the_attempt(
    served: Edge, content_type: str, status: int
) -> None:
    before = served.wait_calls_ended()

    async def scenario() -> None:
        async with served.parties() as p:
            call = await p.invite()
            other = await p.callee.next_call()
            await answer_with(p, other, status, content_type)
            refused = await call.wait_final()
            assert refused.status == 415
            await assert_ended_by_policy(served, before, "sdp_content_type")

            call = await p.invite()
            other = await p.callee.next_call()
            await answer_with(p, other, status, "application/sdp")
            if status == 183:
                await call.wait_status(183)
                await other.reject(486, "Busy Here")
                assert (await call.wait_final()).status == 486
            else:
                await call.wait_answered()
                await call.hang_up()

    run(scenario())


def test_a_refused_response_body_may_be_anything_where_no_session_comes_of_it(served: Edge) -> None:
    """The body of a final refusal is not SDP for pjsip, so it is no reason to hide the refusal."""

    async def scenario() -> None:
        async with served.parties() as p:
            call = await p.invite()
            other = await p.callee.next_call()
            text = [Header("Content-Type", "text/plain")]
            other.connection.send(
                response_to(
                    other.invite, 486, "Busy Here", to_tag=other.local_tag, headers=text, body=b"busy"
                )
            )
            assert (await call.wait_final()).status == 486

    run(scenario())


@pytest.mark.parametrize("method", ["INVITE", "re-INVITE", "UPDATE"])
def test_a_body_without_a_type_is_no_missing_body(served: Edge, method: str) -> None:
    """pjsip parses no body without a Content-Type and would answer an INVITE with an offer of its own."""

    def reasons() -> int:
        return sum(line.get("reason") == "sdp_no_content_type" for line in served.audit())

    before = reasons()

    async def scenario() -> None:
        async with served.parties(ANSWER) as p:
            call, other = await p.established()
            body, headers = (
                call.session.offer(),
                [Header("Contact", f"<sips:1001@127.0.0.1:{p.caller.port}>")],
            )
            call.session.withdraw()
            if method == "INVITE":
                refused = await p.caller.request(p.connection, method, served.uri(), body=body)
                assert len(p.callee.incoming) == 1
            else:
                name = method.removeprefix("re-")
                refused = await call.request(name, headers=headers, body=body)
            assert refused.status == 400
            assert any(header.name == "Warning" for header in refused.headers)
            await call.stream.wait_heard(0.3, timeout_s=5)
            assert (await call.hang_up()).status == 200
            await other.wait_ended()

    run(scenario())
    served.wait_audit(lambda line: line.get("reason") == "sdp_no_content_type" and reasons() > before)
