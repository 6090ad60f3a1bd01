"""The SDP policy on real signalling, wherever a body may come, each refusal beside the same body made right."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

import pytest

from b2bua.demo.call import EndCause
from b2bua.demo.incoming import Answering
from b2bua.demo.sip_message import SIPResponse
from support.edge import Edge
from support.endpoint import run

Hook = Callable[[bytes], bytes]
ANSWER = Answering()


def sub(pattern: str, replacement: str) -> Hook:
    """A body with every match replaced; the body must have one."""

    def hook(body: bytes) -> bytes:
        changed, count = re.subn(pattern.encode(), replacement.encode(), body)
        assert count, f"{pattern} is not in {body!r}"
        return changed

    return hook


def second_media(line: str) -> Hook:
    def hook(body: bytes) -> bytes:
        crypto = re.findall(rb"a=crypto:[^\r]*\r\n", body)[0]
        return body + line.encode() + b"\r\n" + crypto

    return hook


def chain(*hooks: Hook) -> Hook:
    return lambda body: functools.reduce(lambda text, hook: hook(text), hooks, body)


ROWS: dict[str, tuple[Hook, str]] = {
    "plain RTP with crypto": (sub("RTP/SAVP", "RTP/AVP"), "RTP without SRTP refused"),
    "plain RTP": (chain(sub("RTP/SAVP", "RTP/AVP"), sub(r"a=crypto:[^\r]*\r\n", "")), "RTP without SRTP refused"),
    "no crypto": (sub(r"a=crypto:[^\r]*\r\n", ""), "a=crypto with an inline key is required"),
    "NULL suite": (sub(r"a=crypto:(\d) \S+", r"a=crypto:\1 AES_CM_128_NULL_AUTH"), "without encryption refused"),
    "short tag": (sub(r"AEAD_AES_(\d+)_GCM", r"AEAD_AES_\1_GCM_8"), "no allowed SRTP suite"),
    "unlisted suite": (sub(r"AEAD_AES_\d+_GCM", "F8_128_HMAC_SHA1_80"), "no allowed SRTP suite"),
    "UNENCRYPTED_SRTP": (sub(r"(a=crypto:[^\r]*)", r"\1 UNENCRYPTED_SRTP"), "session parameters refused"),
    "UNENCRYPTED_SRTCP": (sub(r"(a=crypto:[^\r]*)", r"\1 UNENCRYPTED_SRTCP"), "session parameters refused"),
    "UNAUTHENTICATED_SRTP": (sub(r"(a=crypto:[^\r]*)", r"\1 UNAUTHENTICATED_SRTP"), "session parameters refused"),
    "MKI": (sub(r"(a=crypto:[^\r]*)", r"\1|1:4"), "MKI refused"),
    "secure and plain": (lambda body: body + b"m=audio 9 RTP/AVP 0\r\n", "RTP without SRTP refused"),
    "second media type": (second_media("m=video 4000 RTP/SAVP 96"), "only one audio stream"),
    "host name": (sub("IN IP4 127.0.0.1\r\nt=", "IN IP4 media.example.test\r\nt="), "must be an IP literal"),
}  # fmt: skip


def warning(response: SIPResponse) -> str:
    return next(h.value for h in response.headers if h.name == "Warning")


def assert_refused(response: SIPResponse, text: str) -> None:
    assert response.status == 488
    assert warning(response).startswith("399 ")
    assert text in warning(response)


@pytest.mark.parametrize("name", ROWS)
def test_an_offer_is_refused_and_the_same_offer_made_right_gets_through(served: Edge, name: str) -> None:
    hook, text = ROWS[name]

    async def scenario() -> None:
        async with served.parties(ANSWER) as p:
            refused = await p.invite(sdp_hook=hook)
            assert_refused(await refused.wait_final(), text)
            assert p.callee.incoming == []
            call, other = await p.established()
            await call.hang_up()
            await other.wait_ended()

    run(scenario())


@pytest.mark.parametrize("name", ROWS)
def test_a_reoffer_is_refused_and_the_call_goes_on(served: Edge, name: str) -> None:
    hook, text = ROWS[name]

    async def scenario() -> None:
        async with served.parties(ANSWER) as p:
            call, other = await p.established()
            good = call.session.offer()
            assert_refused(await call.reinvite(body=hook(good)), text)
            assert [request for _, request in other.received if request.method == "INVITE"] == []
            assert (await call.reinvite()).status == 200
            before = (await call.stream.stats()).received
            await call.stream.wait_for(lambda s: s.hearing.received > before + 10, "audio", timeout_s=5)
            await call.hang_up()
            await other.wait_ended()

    run(scenario())


@pytest.mark.parametrize("name", ROWS)
def test_a_bad_answer_is_acked_and_gets_bye_and_the_caller_is_told_why(served: Edge, name: str) -> None:
    hook, text = ROWS[name]

    async def scenario() -> None:
        async with served.parties(Answering(sdp_hook=hook)) as p:
            call = await p.invite()
            assert_refused(await call.wait_final(), text)
            other = await p.callee.next_call()
            await other.wait_acknowledged()
            assert (await other.wait_ended()).cause is EndCause.BYE
            assert (await other.stream.stats()).received == 0
            p.callee.answering = ANSWER
            call, other = await p.established()
            await call.hang_up()

    run(scenario())


@pytest.mark.parametrize("name", ["plain RTP", "UNENCRYPTED_SRTP", "NULL suite", "MKI"])
def test_a_bad_answer_in_early_media_ends_the_attempt(served: Edge, name: str) -> None:
    hook, text = ROWS[name]

    async def scenario() -> None:
        async with served.parties() as p:
            call = await p.invite()
            other = await p.callee.next_call()
            other.session.hook = hook
            await other.early_media()
            assert_refused(await call.wait_final(), text)
            assert (await other.wait_ended()).cause is EndCause.CANCELLED

    run(scenario())


@pytest.mark.parametrize("name", ["plain RTP", "UNENCRYPTED_SRTP", "NULL suite", "MKI"])
def test_a_bad_delayed_answer_in_the_ack_ends_the_call(served: Edge, name: str) -> None:
    hook, _ = ROWS[name]

    async def scenario() -> None:
        async with served.parties(ANSWER) as p:
            call = await p.invite(offer=False, sdp_hook=hook)
            await call.wait_answered()
            other = await p.callee.next_call()
            assert (await call.wait_ended()).cause is EndCause.BYE
            await other.wait_ended()
            call, other = await p.established(offer=False)
            await call.stream.wait_heard(0.3, timeout_s=5)
            await call.hang_up()

    run(scenario())


@pytest.mark.parametrize("content_type", ["multipart/mixed;boundary=x", "text/plain"])
def test_a_body_that_is_no_sdp_gets_415(served: Edge, content_type: str) -> None:
    async def scenario() -> None:
        async with served.parties(ANSWER) as p:
            refused = await p.invite(content_type=content_type)
            assert (await refused.wait_final()).status == 415
            call, _ = await p.established()
            await call.hang_up()

    run(scenario())


def test_an_update_with_a_plain_offer_is_refused(served: Edge) -> None:
    hook, text = ROWS["plain RTP"]

    async def scenario() -> None:
        async with served.parties(ANSWER) as p:
            call, other = await p.established()
            assert_refused(await call.update(body=hook(call.session.offer())), text)
            assert (await call.update()).status == 200
            await call.hang_up()
            await other.wait_ended()

    run(scenario())


def test_refusals_are_audited_by_reason_and_nothing_else(served: Edge) -> None:
    reasons = {line["reason"] for line in served.audit() if line["event"] == "request_refused"}
    assert {"sdp_plain_rtp", "sdp_mki", "sdp_null_suite", "sdp_weakened_session_parameter"} <= reasons
    text = served.audit_text() + served.stderr.read_text()
    for secret in ("inline:", "sips:", "sip:", '"1001"', "a=crypto"):
        assert secret not in text
