"""What a call may do, between two endpoints without pjsip: each leg has its own dialog, each outcome crosses."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from b2bua.demo.call import EndCause, Reoffer
from b2bua.demo.incoming import Answering
from b2bua.demo.outgoing import Invitation
from b2bua.demo.sdp import Direction, parse_sdp
from b2bua.demo.sip_message import Header
from b2bua.demo.stream import MediaSource
from support.edge import Edge
from support.endpoint import babble, run

ANSWER = Answering()


def header(message: object, name: str) -> str:
    return next(h.value for h in message.headers if h.name.lower() == name.lower())  # type: ignore[attr-defined]


@pytest.mark.parametrize("by_caller", [True, False], ids=["caller", "callee"])
def test_a_call_with_a_bye_from_either_side(served: Edge, by_caller: bool) -> None:
    async def scenario() -> None:
        async with served.parties(ANSWER) as p:
            call, other = await p.established()
            one, two = (call, other) if by_caller else (other, call)
            assert (await one.hang_up()).status == 200
            ending = await two.wait_ended()
            assert (ending.cause, ending.by_remote) == (EndCause.BYE, True)

    run(scenario())


def test_nothing_of_one_leg_shows_on_the_other(served: Edge) -> None:
    async def scenario() -> None:
        async with served.parties(ANSWER) as p:
            secret = Header("X-Ward", "seven")
            call, other = await p.established(headers=(secret, Header("User-Agent", "nurse-phone")))
            invite = other.invite
            text = invite.to_bytes().decode() if hasattr(invite, "to_bytes") else str(invite)
            assert call.dialog is not None
            assert header(invite, "Call-ID") != call.dialog.call_id
            for leak in (
                call.dialog.call_id,
                call.dialog.local_tag,
                "nurse-phone",
                "seven",
                str(p.caller.port),
            ):
                assert leak not in text.replace(f":{served.made.sip_port}", "")
            assert int(header(invite, "Max-Forwards")) == 69
            assert parse_sdp(invite.body).origin != parse_sdp(call.responses[-1].body).origin
            await call.hang_up()

    run(scenario())


def test_ringing_and_early_media_reach_the_caller_before_the_answer(served: Edge) -> None:
    tone = babble(4, seed=3)

    async def scenario() -> None:
        async with served.parties() as p:
            call = await p.invite()
            other = await p.callee.next_call()
            other.ring()
            await call.wait_status(180)
            await other.early_media(MediaSource.of_pcm(tone))
            await call.wait_status(183)
            await call.stream.wait_heard(0.5, timeout_s=5)
            assert not [r for r in call.responses if r.status >= 200]
            await other.answer()
            await call.wait_answered()
            await call.hang_up()
            await other.wait_ended()

    run(scenario())


@pytest.mark.parametrize("provisional", [100, 180])
def test_cancel_reaches_the_callee_and_the_caller_gets_487(served: Edge, provisional: int) -> None:
    async def scenario() -> None:
        async with served.parties() as p:
            call = await p.invite()
            other = await p.callee.next_call()
            other.ring(provisional)
            await call.wait_status(provisional)
            call.cancel()
            assert (await call.wait_final()).status == 487
            assert (await other.wait_ended()).cause is EndCause.CANCELLED

    run(scenario())


@pytest.mark.parametrize(
    ("status", "told"),
    [(486, 486), (480, 480), (603, 603), (404, 404), (302, 502), (401, 502), (503, 503), (500, 500)],
)
def test_a_refusal_of_the_callee_is_mapped_for_the_caller(served: Edge, status: int, told: int) -> None:
    async def scenario() -> None:
        async with served.parties(Answering(provisional=(), status=status, reason="No")) as p:
            call = await p.invite()
            assert (await call.wait_final()).status == told

    run(scenario())


def test_a_far_leg_that_is_not_there_gives_503(served: Edge) -> None:
    async def scenario() -> None:
        async with served.endpoint(served.made.caller, user="1001", port=served.made.caller_port) as caller:
            connection = await served.connect(caller)
            call = await caller.invite(connection, Invitation(uri=served.uri()))
            assert (await call.wait_final()).status == 503

    run(scenario())


@pytest.mark.parametrize("scheme", ["sips", "sip"])
@pytest.mark.parametrize("holder", ["caller", "callee"])
@pytest.mark.parametrize("direction", [Direction.SENDONLY, Direction.INACTIVE])
def test_hold_and_resume_cross_from_either_side(
    served_to: Edge, scheme: str, holder: str, direction: Direction
) -> None:
    async def scenario() -> None:
        async with served_to.parties(ANSWER) as p:
            call, other = await p.established(scheme=scheme)
            one, two = (call, other) if holder == "caller" else (other, call)
            answer = await one.hold(direction)
            assert answer.status == 200
            _, reinvite = await two.wait_received("INVITE")
            assert parse_sdp(reinvite.body).audio.direction is direction
            wanted = Direction.RECVONLY if direction is Direction.SENDONLY else Direction.INACTIVE
            assert parse_sdp(answer.body).audio.direction is wanted
            assert (await one.resume()).status == 200
            resumed = [request for _, request in two.received if request.method == "INVITE"][1]
            assert parse_sdp(resumed.body).audio.direction is Direction.SENDRECV
            before = (await two.stream.stats()).received
            await two.stream.wait_for(lambda s: s.hearing.received > before + 10, "audio again", timeout_s=5)
            assert (await two.hang_up()).status == 200
            await one.wait_ended()

    run(scenario())


@pytest.mark.parametrize(("refusal", "told"), [(488, 488), (491, 491), (500, 488)])
def test_a_hold_that_the_other_side_refuses_is_refused(served: Edge, refusal: int, told: int) -> None:
    async def scenario() -> None:
        async with served.parties(ANSWER) as p:
            call, other = await p.established()
            other.reoffer = Reoffer(status=refusal, reason="No")
            assert (await call.hold()).status == told
            other.reoffer = Reoffer()
            before = (await call.stream.stats()).received
            await call.stream.wait_for(
                lambda s: s.hearing.received > before + 10, "audio goes on", timeout_s=5
            )
            assert (await call.hold()).status == 200
            await call.hang_up()
            await other.wait_ended()

    run(scenario())


@pytest.mark.parametrize("sender", ["caller", "callee"])
def test_digits_cross(served: Edge, sender: str) -> None:
    async def scenario() -> None:
        async with served.parties(ANSWER) as p:
            call, other = await p.established()
            one, two = (call, other) if sender == "caller" else (other, call)
            await one.stream.send_digits("159#")
            assert await two.stream.wait_digits(4, timeout_s=8) == "159#"
            await call.hang_up()
            await other.wait_ended()

    run(scenario())


def test_a_delayed_offer_is_answered_in_the_ack(served: Edge) -> None:
    async def scenario() -> None:
        async with served.parties(ANSWER) as p:
            call, other = await p.established(offer=False)
            await asyncio.gather(
                call.stream.wait_heard(0.5, timeout_s=5), other.stream.wait_heard(0.5, timeout_s=5)
            )
            await call.hang_up()
            await other.wait_ended()

    run(scenario())


def test_max_forwards_zero_is_483_and_one_goes_through(served: Edge) -> None:
    async def scenario() -> None:
        async with served.parties(ANSWER) as p:
            refused = await p.invite(max_forwards=0)
            assert (await refused.wait_final()).status == 483
            call, other = await p.established(max_forwards=1)
            assert header(other.invite, "Max-Forwards") == "0"
            await call.hang_up()

    run(scenario())


def test_options_is_answered(served: Edge) -> None:
    async def scenario() -> None:
        async with served.parties() as p:
            answer = await p.caller.options(p.connection, served.uri())
            assert answer.status == 200
            assert "REFER" not in header(answer, "Allow")

    run(scenario())


@pytest.mark.parametrize(
    ("method", "status"), [("REFER", 405), ("SUBSCRIBE", 405), ("MESSAGE", 405), ("FROBNICATE", 501)]
)
def test_other_methods_are_refused(served: Edge, method: str, status: int) -> None:
    async def scenario() -> None:
        async with served.parties() as p:
            answer = await p.caller.request(p.connection, method, served.uri())
            assert answer.status == status
            assert (await p.caller.options(p.connection, served.uri())).status == 200

    run(scenario())


def test_a_caller_without_a_number_stays_anonymous(served: Edge) -> None:
    async def scenario() -> None:
        async with served.parties(ANSWER) as p:
            for from_uri, user in (
                ("sips:127.0.0.1", "anonymous"),
                ("sips:1001@127.0.0.1", "1001"),
                ("sips:#31#1001@127.0.0.1", "%2331%231001"),
            ):
                call, other = await p.established(from_uri=from_uri)
                assert f"sips:{user}@" in header(other.invite, "From")
                await call.hang_up()
                await other.wait_ended()

    run(scenario())


@pytest.mark.parametrize("first", ["bye", "reoffer"])
@pytest.mark.parametrize("leaver", ["caller", "callee"])
def test_a_reoffer_that_crosses_the_end_of_the_call_is_answered(
    served: Edge, leaver: str, first: str
) -> None:
    """One leaves while the other asks for a hold: both are read in one turn, and no request may stay unanswered."""

    async def scenario() -> None:
        async with served.parties(ANSWER) as p:
            call, other = await p.established()
            one, two = (call, other) if leaver == "caller" else (other, call)
            await call.stream.wait_heard(0.2, timeout_s=5)
            acts = [one.hang_up, two.hold] if first == "bye" else [two.hold, one.hang_up]
            os.kill(served.pid, signal.SIGSTOP)
            try:
                waiting = []
                for act in acts:
                    waiting.append(asyncio.ensure_future(act()))
                    await asyncio.sleep(
                        0.05
                    )  # written before the next one is; nothing tells when it has arrived
            finally:
                os.kill(served.pid, signal.SIGCONT)
            statuses = {response.status for response in await asyncio.gather(*waiting)}
            assert 200 in statuses
            assert statuses & {481, 487, 488}
            await two.wait_ended()

    run(scenario())
