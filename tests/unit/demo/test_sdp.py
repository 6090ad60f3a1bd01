"""Offers and answers of secure audio: what is built parses back, what is insecure is not taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from b2bua.demo.errors import SDPError
from b2bua.demo.sdp import (
    AEAD_SUITES,
    Direction,
    LocalAudio,
    SRTPSuite,
    agree,
    build_answer,
    build_offer,
    fresh_keys,
    parse_sdp,
)

ALICE = LocalAudio(address="127.0.0.1", port=4000, keys=fresh_keys(AEAD_SUITES), session_id=1)
BOB = LocalAudio(address="127.0.0.2", port=5000, keys=fresh_keys(SRTPSuite), session_id=2)
OFFER = build_offer(ALICE)


def test_an_offer_names_every_suite_with_a_key_of_its_length() -> None:
    audio = parse_sdp(build_offer(BOB)).audio
    assert [(crypto.tag, crypto.suite) for crypto in audio.cryptos] == list(enumerate(SRTPSuite, 1))
    assert [len(crypto.key) for crypto in audio.cryptos] == [44, 28, 46, 30]
    assert (audio.profile, audio.port, audio.address) == ("RTP/SAVP", 5000, "127.0.0.2")
    assert (audio.payload_type("PCMU/8000"), audio.payload_type("telephone-event/8000")) == (0, 101)


def test_both_ends_of_an_answer_agree_with_keys_crossed() -> None:
    answer = build_answer(parse_sdp(OFFER), BOB)
    ours = agree(local=parse_sdp(OFFER), remote=parse_sdp(answer), local_is_offer=True)
    theirs = agree(local=parse_sdp(answer), remote=parse_sdp(OFFER), local_is_offer=False)
    assert ours.suite is theirs.suite is SRTPSuite.AEAD_AES_256_GCM
    assert (ours.send_key, ours.receive_key) == (theirs.receive_key, theirs.send_key)
    assert ours.send_key == ALICE.keys[SRTPSuite.AEAD_AES_256_GCM]
    assert (ours.remote, theirs.remote) == (("127.0.0.2", 5000), ("127.0.0.1", 4000))
    assert ours.event_payload_type == 101


def test_an_answer_takes_the_first_suite_it_speaks_and_its_tag() -> None:
    local = replace(BOB, keys=fresh_keys([SRTPSuite.AEAD_AES_128_GCM]))
    (crypto,) = parse_sdp(build_answer(parse_sdp(OFFER), local)).audio.cryptos
    assert (crypto.tag, crypto.suite) == (2, SRTPSuite.AEAD_AES_128_GCM)


@pytest.mark.parametrize(
    ("offered", "answered"),
    [
        (Direction.SENDRECV, Direction.SENDRECV),
        (Direction.SENDONLY, Direction.RECVONLY),
        (Direction.RECVONLY, Direction.SENDONLY),
        (Direction.INACTIVE, Direction.INACTIVE),
    ],
)
def test_the_answer_mirrors_the_direction(offered: Direction, answered: Direction) -> None:
    offer = build_offer(replace(ALICE, direction=offered))
    answer = parse_sdp(build_answer(parse_sdp(offer), BOB))
    assert answer.audio.direction is answered is offered.mirrored
    plan = agree(local=answer, remote=parse_sdp(offer), local_is_offer=False)
    assert (plan.sends, plan.receives) == (answered.sends, answered.receives)


def test_a_held_side_stays_held_in_its_answer() -> None:
    answer = build_answer(parse_sdp(OFFER), replace(BOB, direction=Direction.SENDONLY))
    assert parse_sdp(answer).audio.direction is Direction.SENDONLY


def test_a_session_level_direction_and_address_count() -> None:
    text = OFFER.replace(b"a=sendrecv\r\n", b"").replace(b"t=0 0\r\n", b"t=0 0\r\na=inactive\r\n")
    assert parse_sdp(text).audio.direction is Direction.INACTIVE
    assert parse_sdp(text).audio.address == "127.0.0.1"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"RTP/SAVP", b"RTP/AVP", "not secure RTP"),
        (b"a=crypto:", b"a=krypto:", "no crypto line"),
        (b"AEAD_AES_", b"NULL_AES_", "no crypto line with a suite"),
        (b"m=audio 4000 RTP/SAVP 0", b"m=audio 4000 RTP/SAVP 9", "coding in common"),
        (b"m=audio 4000", b"m=audio 0", "no active audio"),
        (b"m=audio 4000", b"m=video 4000", "no active audio"),
    ],
)
def test_an_offer_that_is_not_secure_audio_is_not_answered(old: bytes, new: bytes, words: str) -> None:
    build_answer(parse_sdp(OFFER), BOB)
    assert old in OFFER
    with pytest.raises(SDPError, match=words):
        build_answer(parse_sdp(OFFER.replace(old, new)), BOB)


@pytest.mark.parametrize("extra", [" UNENCRYPTED_SRTP", " UNAUTHENTICATED_SRTP", "|2^20|1:4", " KDR=1"])
def test_crypto_lines_with_terms_of_their_own_are_passed_over(extra: str) -> None:
    first, *rest = [line for line in OFFER.split(b"\r\n") if line.startswith(b"a=crypto")]
    offer = OFFER.replace(first, first + extra.encode())
    assert parse_sdp(build_answer(parse_sdp(offer), BOB)).audio.cryptos[0].tag == 2
    for line in rest:
        offer = offer.replace(line, line + extra.encode())
    with pytest.raises(SDPError, match="no crypto line with a suite"):
        build_answer(parse_sdp(offer), BOB)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace(b"a=crypto:1 ", b"a=crypto:9 "), "was not offered"),
        (lambda text: text.replace(b"RTP/SAVP", b"RTP/AVP"), "not secure RTP"),
        (
            lambda text: text + b"a=crypto:2 AEAD_AES_128_GCM inline:" + b"A" * 36 + b"AA==\r\n",
            "2 crypto lines",
        ),
        (lambda text: text.rstrip() + b" UNENCRYPTED_SRTP\r\n", "changes the terms"),
        (lambda text: text.replace(b"RTP/SAVP 0", b"RTP/SAVP 8"), "coding in common"),
    ],
)
def test_an_answer_that_does_not_fit_the_offer_is_an_error(
    change: Callable[[bytes], bytes], words: str
) -> None:
    answer = build_answer(parse_sdp(OFFER), BOB)
    agree(local=parse_sdp(OFFER), remote=parse_sdp(answer), local_is_offer=True)
    with pytest.raises(SDPError, match=words):
        agree(local=parse_sdp(OFFER), remote=parse_sdp(change(answer)), local_is_offer=True)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "v=0"),
        (b"v=1\r\n", "v=0"),
        (b"v=0\r\nnonsense\r\n", "x=value"),
        (b"v=0\r\ns=-\r\n", "no o= line"),
        (b"v=0\r\no=- 1 1 IN IP4 x\r\nm=audio 99999 RTP/SAVP 0\r\n", "m= line"),
        (b"v=0\r\no=- 1 1 IN IP4 x\r\nm=audio 9 RTP/SAVP 0\r\n", "no c= line"),
        (b"v=0\r\no=- 1 1 IN IP4 x\r\nc=IN IP4 x\r\nm=audio 9 RTP/SAVP 0\r\na=crypto:1 X\r\n", "crypto line"),
        (
            b"v=0\r\no=- 1 1 IN IP4 x\r\nc=IN IP4 x\r\nm=audio 9 RTP/SAVP 0\r\na=crypto:1 X inline:A\r\n",
            "base64",
        ),
        (b"\xff", "UTF-8"),
    ],
)
def test_a_malformed_description_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(SDPError, match=words):
        parse_sdp(data)


def test_a_key_of_the_wrong_length_is_refused() -> None:
    crypto = parse_sdp(OFFER).audio.cryptos[0]
    with pytest.raises(SDPError, match="has 43 bytes, not 44"):
        _ = replace(crypto, key=crypto.key[:-1]).suite


def test_keys_do_not_show_in_a_repr() -> None:
    crypto = parse_sdp(OFFER).audio.cryptos[0]
    assert repr(crypto.key) not in repr(crypto)
    assert repr(crypto.key) not in repr(ALICE)
