"""The demonstration endpoint against itself: real TLS 1.3, real SRTP, real time, on loopback."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from b2bua.demo.call import EndCause, Reoffer
from b2bua.demo.errors import CallRefusedError, DemoError, SDPError
from b2bua.demo.incoming import Answering
from b2bua.demo.outgoing import OMIT, Invitation
from b2bua.demo.rtp import RTPPacket, pack_rtp
from b2bua.demo.score import Limits, score_heard
from b2bua.demo.sdp import Direction, SRTPSuite, parse_sdp
from b2bua.demo.sip_message import Header
from b2bua.demo.stream import MediaSource
from support.endpoint import LOCALHOST, Rig, babble, rig, run

SHORT = Limits(covered_s=2.0)


@pytest.fixture
def r(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path) as made:
        yield made


@pytest.mark.parametrize("suite", list(SRTPSuite), ids=lambda suite: suite.sdp_name)
def test_each_side_hears_what_the_other_says_with_every_suite(r: Rig, suite: SRTPSuite) -> None:
    one, two = babble(2.2, seed=1), babble(2.2, seed=2)

    async def scenario() -> None:
        plan = Answering(source=MediaSource.of_pcm(two))
        async with (
            r.endpoint("alice", suites=(suite,)) as alice,
            r.endpoint("bob", listen=True, answering=plan) as bob,
        ):
            bob.answering = Answering(source=MediaSource.of_pcm(two), suites=tuple(SRTPSuite))
            connection = await alice.connect(LOCALHOST, bob.port)
            assert connection.tls.version == "TLSv1.3"
            assert connection.tls.cipher == "TLS_AES_256_GCM_SHA384"
            call = await alice.invite(connection, Invitation(uri=r.uri(bob), source=MediaSource.of_pcm(one)))
            await call.wait_status(180)
            await call.wait_answered()
            other = await bob.next_call()
            await other.wait_acknowledged()
            assert call.suite_name == other.suite_name == suite.sdp_name
            await asyncio.gather(
                call.stream.wait_heard(2.2, timeout_s=8), other.stream.wait_heard(2.2, timeout_s=8)
            )
            assert (await call.hang_up()).status == 200
            ending = await other.wait_ended()
            assert (ending.cause, ending.by_remote) == (EndCause.BYE, True)
            assert score_heard(await call.stream.heard_pcm(), two, SHORT).faults == ()
            assert score_heard(await other.stream.heard_pcm(), one, SHORT).faults == ()
            assert not score_heard(await call.stream.heard_pcm(), one, SHORT).passed
            stats = await call.stream.stats()
            assert (stats.lost, stats.auth_failures, stats.plaintext, len(stats.ssrcs)) == (0, 0, 0, 1)

    run(scenario())


def test_a_call_in_the_other_law_is_heard_too(r: Rig) -> None:
    spoken = babble(2.2, seed=4)

    async def scenario() -> None:
        async with r.endpoint("alice") as alice, r.endpoint("bob", listen=True, answering=Answering()) as bob:
            source = MediaSource.of_pcm(spoken, encoding="PCMA/8000")
            bob.answering = Answering(encodings=("PCMU/8000", "PCMA/8000"))
            connection = await alice.connect(LOCALHOST, bob.port)
            call = await alice.invite(
                connection, Invitation(uri=r.uri(bob), encodings=("PCMA/8000",), source=source)
            )
            await call.wait_answered()
            other = await bob.next_call()
            await other.stream.wait_heard(2.4, timeout_s=5)
            assert score_heard(await other.stream.heard_pcm(), spoken, SHORT).faults == ()
            assert set((await call.stream.heard_pcm()).tolist()) == {8}  # the smallest step: silence
            await call.hang_up()

    run(scenario())


def test_packets_under_another_key_are_counted_and_not_heard(r: Rig) -> None:
    async def scenario() -> None:
        async with r.endpoint("alice") as alice, r.endpoint("bob", listen=True, answering=Answering()) as bob:
            connection = await alice.connect(LOCALHOST, bob.port)

            def other_keys(offer: bytes) -> bytes:
                lines = offer.split(b"\r\n")
                kept = [line for line in lines if not line.startswith(b"a=crypto")]
                text = "a=crypto:1 AEAD_AES_128_GCM inline:" + "A" * 36 + "AA=="
                return b"\r\n".join([*kept[:-1], text.encode(), b""])

            call = await alice.invite(
                connection,
                Invitation(uri=r.uri(bob), suites=(SRTPSuite.AEAD_AES_128_GCM,), sdp_hook=other_keys),
            )
            await call.wait_answered()
            other = await bob.next_call()
            await other.stream.wait_for(
                lambda s: s.hearing.auth_failures >= 5, "refused packets", timeout_s=5
            )
            stats = await other.stream.stats()
            assert stats.received == 0
            assert stats.plaintext == 0
            # the way back has the answer's key, which both sides know: the positive twin
            await call.stream.wait_heard(0.1, timeout_s=5)
            await call.hang_up()

    run(scenario())


def test_plain_rtp_is_ignored_and_counted_while_secure_rtp_is_heard(r: Rig) -> None:
    async def scenario() -> None:
        async with r.endpoint("alice") as alice, r.endpoint("bob", listen=True, answering=Answering()) as bob:
            connection = await alice.connect(LOCALHOST, bob.port)
            call = await alice.invite(connection, Invitation(uri=r.uri(bob)))
            await call.wait_answered()
            other = await bob.next_call()
            for sequence in range(7):
                plain = RTPPacket(
                    payload_type=0, marker=False, sequence=sequence, timestamp=sequence * 160, ssrc=5,
                    payload=secrets.token_bytes(160),
                )  # fmt: skip
                await call.stream.send_raw(pack_rtp(plain))
            await other.stream.wait_for(lambda s: s.hearing.plaintext >= 7, "plain packets", timeout_s=5)
            await other.stream.wait_heard(0.1, timeout_s=5)
            stats = await other.stream.stats()
            assert (stats.plaintext, stats.auth_failures) == (7, 7)
            assert 5 not in stats.ssrcs
            await call.hang_up()

    run(scenario())


def test_tls_1_2_is_refused(r: Rig) -> None:
    async def scenario() -> None:
        async with r.endpoint("alice") as alice, r.endpoint("bob", listen=True) as bob:
            old = alice.settings.client_context
            assert old is not None
            assert (await alice.connect(LOCALHOST, bob.port)).tls.version == "TLSv1.3"
            old.minimum_version = ssl.TLSVersion.TLSv1_2
            old.maximum_version = ssl.TLSVersion.TLSv1_2
            with pytest.raises(
                (ssl.SSLError, ConnectionResetError)
            ):  # asyncio may reset before the alert is out
                await alice.connect(LOCALHOST, bob.port, context=old)

    run(scenario())


def test_a_client_without_a_certificate_is_cut_off(r: Rig) -> None:
    async def scenario() -> None:
        async with r.endpoint("alice") as alice, r.endpoint("bob", listen=True) as bob:
            bare = ssl.create_default_context(cafile=r.issuer.trust_path)
            connection = await alice.connect(LOCALHOST, bob.port, context=bare)
            await connection.wait_closed()
            good = await alice.connect(LOCALHOST, bob.port)
            assert (await alice.options(good, r.uri(bob))).status == 200

    run(scenario())


def test_early_media_then_answer_on_a_cue(r: Rig) -> None:
    async def scenario() -> None:
        cue = asyncio.Event()
        plan = Answering(provisional=(180, 183), when=cue, source=MediaSource.of_pcm(babble(1, seed=3)))
        async with r.endpoint("alice") as alice, r.endpoint("bob", listen=True, answering=plan) as bob:
            connection = await alice.connect(LOCALHOST, bob.port)
            call = await alice.invite(connection, Invitation(uri=r.uri(bob)))
            await call.wait_status(183)
            await call.stream.wait_heard(0.2, timeout_s=5)
            assert not call.answered
            cue.set()
            await call.wait_answered()
            await call.hang_up()
            assert [response.status for response in call.responses] == [180, 183, 200]

    run(scenario())


def test_cancel_ends_a_ringing_call_with_487(r: Rig) -> None:
    async def scenario() -> None:
        plan = Answering(when=asyncio.Event())
        async with r.endpoint("alice") as alice, r.endpoint("bob", listen=True, answering=plan) as bob:
            connection = await alice.connect(LOCALHOST, bob.port)
            call = await alice.invite(connection, Invitation(uri=r.uri(bob)))
            await call.wait_status(180)
            cancel = call.cancel()
            assert (await cancel.final()).status == 200
            assert (await call.wait_final()).status == 487
            assert (await call.wait_ended()).cause is EndCause.CANCELLED
            other = await bob.next_call()
            assert (await other.wait_ended()).cause is EndCause.CANCELLED
            await bob.transcript.wait_request("ACK")

    run(scenario())


def test_a_refusal_carries_status_reason_and_headers(r: Rig) -> None:
    async def scenario() -> None:
        plan = Answering(status=486, reason="Busy Here", headers=(Header("Retry-After", "7"),))
        async with r.endpoint("alice") as alice, r.endpoint("bob", listen=True, answering=plan) as bob:
            connection = await alice.connect(LOCALHOST, bob.port)
            call = await alice.invite(connection, Invitation(uri=r.uri(bob)))
            with pytest.raises(CallRefusedError, match="486 Busy Here"):
                await call.wait_answered()
            assert call.responses[-1].first("Retry-After") == "7"
            await bob.transcript.wait_request("ACK")

    run(scenario())


def test_hold_and_resume_from_both_ends_move_the_media(r: Rig) -> None:
    async def scenario() -> None:
        async with r.endpoint("alice") as alice, r.endpoint("bob", listen=True, answering=Answering()) as bob:
            connection = await alice.connect(LOCALHOST, bob.port)
            call = await alice.invite(connection, Invitation(uri=r.uri(bob, scheme="sips")))
            await call.wait_answered()
            other = await bob.next_call()
            await other.wait_acknowledged()
            assert (await call.hold()).status == 200
            assert call.session.plan is not None
            assert other.session.plan is not None
            assert (call.session.plan.sends, call.session.plan.receives) == (True, False)
            assert (other.session.plan.sends, other.session.plan.receives) == (False, True)
            assert (await call.resume()).status == 200
            heard = (await call.stream.stats()).received
            await call.stream.wait_for(lambda s: s.hearing.received > heard + 3, "resumed media", timeout_s=5)
            assert (await other.hold(Direction.INACTIVE)).status == 200
            assert (call.session.plan.sends, call.session.plan.receives) == (False, False)
            assert (await other.reinvite(direction=Direction.SENDRECV, rekey=True)).status == 200
            received = (await call.stream.stats()).received
            await call.stream.wait_for(lambda s: s.hearing.received > received, "rekeyed media", timeout_s=5)
            assert (await call.stream.stats()).auth_failures == 0
            assert call.invite.uri.startswith("sips:")
            assert (await other.hang_up()).status == 200
            assert (await call.wait_ended()).by_remote

    run(scenario())


def test_a_reoffer_is_refused_by_policy_and_the_media_stays(r: Rig) -> None:
    async def scenario() -> None:
        async with r.endpoint("alice") as alice, r.endpoint("bob", listen=True, answering=Answering()) as bob:
            connection = await alice.connect(LOCALHOST, bob.port)
            call = await alice.invite(connection, Invitation(uri=r.uri(bob)))
            await call.wait_answered()
            other = await bob.next_call()
            before = call.session.plan
            other.reoffer = Reoffer(status=491, reason="Request Pending")
            assert (await call.hold()).status == 491
            assert call.session.plan is before
            other.reoffer = Reoffer()
            plain = parse_sdp(call.session.offer())
            body = call.session.offer().replace(b"RTP/SAVP", b"RTP/AVP")
            assert plain.audio.profile == "RTP/SAVP"
            assert (await call.reinvite(body=body)).status == 488
            assert (await call.update(direction=Direction.SENDRECV)).status == 200
            assert len(other.refusals) == 1
            await call.hang_up()

    run(scenario())


def test_digits_go_both_ways(r: Rig) -> None:
    async def scenario() -> None:
        async with r.endpoint("alice") as alice, r.endpoint("bob", listen=True, answering=Answering()) as bob:
            connection = await alice.connect(LOCALHOST, bob.port)
            call = await alice.invite(connection, Invitation(uri=r.uri(bob)))
            await call.wait_answered()
            other = await bob.next_call()
            await call.stream.send_digits("19#")
            await other.stream.send_digits("*0")
            assert await other.stream.wait_digits(3, timeout_s=5) == "19#"
            assert await call.stream.wait_digits(2, timeout_s=5) == "*0"
            assert {event.samples for event in await other.stream.digits()} == {800}
            await call.hang_up()

    run(scenario())


def test_delayed_offer_is_answered_in_the_ack(r: Rig) -> None:
    async def scenario() -> None:
        async with r.endpoint("alice") as alice, r.endpoint("bob", listen=True, answering=Answering()) as bob:
            connection = await alice.connect(LOCALHOST, bob.port)
            call = await alice.invite(connection, Invitation(uri=r.uri(bob), offer=False))
            await call.wait_answered()
            other = await bob.next_call()
            await other.wait_acknowledged()
            await call.stream.wait_heard(0.1, timeout_s=5)
            await other.stream.wait_heard(0.1, timeout_s=5)
            assert (await call.reinvite(body=b"")).status == 200
            await other.until(lambda: other.acknowledged == 2, "second ACK")
            assert other.refusals == []
            await call.hang_up()

    run(scenario())


def test_an_offer_without_security_is_refused_and_an_insecure_answer_is_an_error(r: Rig) -> None:
    async def scenario() -> None:
        def plain(body: bytes) -> bytes:
            return body.replace(b"RTP/SAVP", b"RTP/AVP")

        async with r.endpoint("alice") as alice, r.endpoint("bob", listen=True, answering=Answering()) as bob:
            connection = await alice.connect(LOCALHOST, bob.port)
            refused = await alice.invite(connection, Invitation(uri=r.uri(bob), sdp_hook=plain))
            assert (await refused.wait_final()).status == 488
            bob.answering = Answering(sdp_hook=plain)
            answered = await alice.invite(connection, Invitation(uri=r.uri(bob)))
            with pytest.raises(SDPError, match="not secure RTP"):
                await answered.wait_answered()
            await answered.hang_up()

    run(scenario())


def test_the_invite_goes_out_as_asked(r: Rig) -> None:
    async def scenario() -> None:
        async with r.endpoint("alice") as alice, r.endpoint("bob", listen=True) as bob:
            connection = await alice.connect(LOCALHOST, bob.port)
            odd = f"<sip:alice@{LOCALHOST}:9;transport=udp>"
            call = await alice.invite(
                connection,
                Invitation(uri=r.uri(bob), contact=odd, headers=(Header("X-Seen", "yes"),), max_forwards=3),
            )
            other = await bob.next_call()
            assert other.invite.first("Contact") == odd
            assert other.invite.first("X-Seen") == "yes"
            assert other.invite.first("Max-Forwards") == "3"
            other.ring(181)
            await call.wait_status(181)
            await other.answer()
            await call.wait_answered()
            await other.wait_acknowledged()
            assert other.dialog is not None
            assert other.dialog.remote_target == odd.strip("<>")
            assert (await other.request("INFO", headers=[Header("X-More", "1")])).status == 200
            number, info = await call.wait_received("INFO")
            assert (number, info.first("X-More")) == (connection.id, "1")
            assert (await call.request("REFER")).status == 405
            await other.hang_up()
            assert (await call.wait_ended()).connection_id == connection.id

    run(scenario())


def test_an_invite_without_contact_is_refused(r: Rig) -> None:
    async def scenario() -> None:
        async with r.endpoint("alice") as alice, r.endpoint("bob", listen=True, answering=Answering()) as bob:
            connection = await alice.connect(LOCALHOST, bob.port)
            call = await alice.invite(connection, Invitation(uri=r.uri(bob), contact=OMIT))
            assert (await call.wait_final()).status == 400
            assert bob.calls == []

    run(scenario())


def test_many_calls_share_one_connection(r: Rig) -> None:
    async def scenario() -> None:
        async with r.endpoint("alice") as alice, r.endpoint("bob", listen=True, answering=Answering()) as bob:
            connection = await alice.connect(LOCALHOST, bob.port)
            calls = [await alice.invite(connection, Invitation(uri=r.uri(bob))) for _ in range(10)]
            await asyncio.gather(*(call.wait_answered() for call in calls))
            await asyncio.gather(*(call.stream.wait_heard(0.4, timeout_s=8) for call in calls))
            statuses = [(await call.hang_up()).status for call in calls]
            assert statuses == [200] * 10
            assert {seen.connection_id for seen in bob.transcript.requests("BYE")} == {1}
            assert alice.calls == bob.calls == []

    run(scenario())


def test_garbage_ends_the_connection(r: Rig) -> None:
    async def scenario() -> None:
        async with r.endpoint("alice") as alice, r.endpoint("bob", listen=True) as bob:
            connection = await alice.connect(LOCALHOST, bob.port)
            connection.send_raw(b"\r\n\r\nOPTIONS nonsense\r\n\r\n")
            await connection.wait_closed()
            assert bob.connections[0].parse_error is not None

    run(scenario())


def test_waiting_for_what_never_comes_names_it(r: Rig) -> None:
    async def scenario() -> None:
        async with r.endpoint("alice") as alice, r.endpoint("bob", listen=True) as bob:
            with pytest.raises(DemoError, match=r"no incoming call within 0\.05 s"):
                await bob.next_call(timeout_s=0.05)
            with pytest.raises(DemoError, match="does not listen"):
                _ = alice.port

    run(scenario())
