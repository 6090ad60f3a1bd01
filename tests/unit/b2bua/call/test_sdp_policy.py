"""Every row of the SDP policy: each refusal beside the same body with one thing made right."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b2bua.call.sdp_policy import (
    KEY_SALT_BYTES,
    WARNINGS,
    Direction,
    SDPAccepted,
    SDPFault,
    SDPRefusal,
    SDPRole,
    judge,
    judge_content_type,
)
from b2bua.settings import SRTPSuite

GCM256 = SRTPSuite.AEAD_AES_256_GCM
CM128 = SRTPSuite.AES_CM_128_HMAC_SHA1_80
ALLOWED = (GCM256, SRTPSuite.AEAD_AES_128_GCM)


def key(suite: SRTPSuite = GCM256, *, short: int = 0) -> str:
    return base64.b64encode(bytes(range(KEY_SALT_BYTES[suite] - short))).decode().rstrip("=")


def crypto(suite: str = GCM256.value, *, tag: int = 1, inline: str | None = None, tail: str = "") -> str:
    return f"a=crypto:{tag} {suite} inline:{inline or key()}{tail}"


def body(*media_lines: str, m: str = "m=audio 4000 RTP/SAVP 0 101", c: str = "c=IN IP4 127.0.0.1") -> bytes:
    lines = ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", c, "t=0 0", m, *media_lines]
    return "".join(line + "\r\n" for line in lines if line).encode()


GOOD = body(
    crypto(), "a=rtpmap:0 PCMU/8000", "a=rtpmap:101 telephone-event/8000", "a=fmtp:101 0-16", "a=ptime:20"
)


def verdict(
    sdp: bytes, role: SDPRole = SDPRole.OFFER, allowed: tuple[SRTPSuite, ...] = ALLOWED
) -> SDPFault | None:
    judged = judge(sdp, role=role, allowed=allowed)
    return judged.fault if isinstance(judged, SDPRefusal) else None


def test_a_good_offer_passes_with_its_suites_and_direction() -> None:
    assert judge(GOOD, role=SDPRole.OFFER, allowed=ALLOWED) == SDPAccepted(
        direction=Direction.SENDRECV, suites=(GCM256,)
    )


@pytest.mark.parametrize("profile", ["RTP/SAVP", "RTP/SAVPF"])
def test_secure_profiles_pass(profile: str) -> None:
    assert verdict(body(crypto(), m=f"m=audio 4000 {profile} 0")) is None


REFUSED: dict[str, tuple[bytes, SDPFault]] = {
    "plain": (body(m="m=audio 4000 RTP/AVP 0"), SDPFault.PLAIN_RTP),
    "plain with crypto": (body(crypto(), m="m=audio 4000 RTP/AVP 0"), SDPFault.PLAIN_RTP),
    "plain with feedback": (body(crypto(), m="m=audio 4000 RTP/AVPF 0"), SDPFault.PLAIN_RTP),
    "dtls profile": (body(crypto(), m="m=audio 4000 UDP/TLS/RTP/SAVP 0"), SDPFault.UNKNOWN_PROFILE),
    "no crypto": (body(), SDPFault.NO_CRYPTO),
    "fingerprint only": (body("a=fingerprint:sha-256 AA", "a=setup:actpass"), SDPFault.NO_CRYPTO),
    "null suite alone": (body(crypto("NULL_HMAC_SHA1_80", inline=key(CM128))), SDPFault.NULL_SUITE),
    "null suite beside a good one": (
        body(crypto(), crypto("AES_CM_128_NULL_AUTH", tag=2, inline=key(CM128))),
        SDPFault.NULL_SUITE,
    ),
    "short tag": (body(crypto("AES_CM_128_HMAC_SHA1_32", inline=key(CM128))), SDPFault.NO_ALLOWED_SUITE),
    "short AEAD tag": (body(crypto("AEAD_AES_256_GCM_8")), SDPFault.NO_ALLOWED_SUITE),
    "AES-192": (body(crypto("AES_192_CM_HMAC_SHA1_80")), SDPFault.NO_ALLOWED_SUITE),
    "suite of another trunk": (body(crypto(CM128.value, inline=key(CM128))), SDPFault.NO_ALLOWED_SUITE),
    "UNENCRYPTED_SRTP": (body(crypto(tail=" UNENCRYPTED_SRTP")), SDPFault.WEAKENED),
    "UNENCRYPTED_SRTCP": (body(crypto(tail=" UNENCRYPTED_SRTCP")), SDPFault.WEAKENED),
    "UNAUTHENTICATED_SRTP": (body(crypto(tail=" UNAUTHENTICATED_SRTP")), SDPFault.WEAKENED),
    "weakened second line": (body(crypto(), crypto(tag=2, tail=" UNENCRYPTED_SRTP")), SDPFault.WEAKENED),
    "KDR": (body(crypto(tail=" KDR=1")), SDPFault.WEAKENED),
    "MKI": (body(crypto(tail="|1:4")), SDPFault.MKI),
    "lifetime and MKI": (body(crypto(tail="|2^20|1:4")), SDPFault.MKI),
    "two keys": (body(crypto(tail=f";inline:{key()}")), SDPFault.MKI),
    "lifetime that is none": (body(crypto(tail="|forever")), SDPFault.BAD_KEY),
    "two lifetimes": (body(crypto(tail="|2^20|2^20")), SDPFault.BAD_KEY),
    "key too short": (body(crypto(inline=key(short=3))), SDPFault.BAD_KEY),
    "key no base64": (body(crypto(inline="!!!!")), SDPFault.BAD_KEY),
    "key by URI": (body(f"a=crypto:1 {GCM256.value} uri:https://a/b"), SDPFault.BAD_KEY),
    "same tag twice": (body(crypto(), crypto()), SDPFault.MALFORMED),
    "plain beside secure": (body(crypto(), "m=audio 4002 RTP/AVP 0"), SDPFault.PLAIN_RTP),
    "two secure audio": (body(crypto(), "m=audio 4002 RTP/SAVP 0", crypto()), SDPFault.SECOND_MEDIA),
    "video beside audio": (body(crypto(), "m=video 4002 RTP/SAVP 96", crypto()), SDPFault.SECOND_MEDIA),
    "video alone": (body(crypto(), m="m=video 4000 RTP/SAVP 96"), SDPFault.SECOND_MEDIA),
    "text": (body(crypto(), m="m=text 4000 RTP/SAVP 96"), SDPFault.SECOND_MEDIA),
    "no media": (body(m=""), SDPFault.NO_AUDIO),
    "audio switched off": (body(crypto(), m="m=audio 0 RTP/SAVP 0"), SDPFault.NO_AUDIO),
    "host name": (body(crypto(), c="c=IN IP4 media.example.test"), SDPFault.HOST_NAME),
    "no address": (body(crypto(), c=""), SDPFault.MALFORMED),
    "multicast": (body(crypto(), c="c=IN IP4 224.0.0.1"), SDPFault.MALFORMED),
    "address family": (body(crypto(), c="c=IN IP6 127.0.0.1"), SDPFault.MALFORMED),
    "address with a time to live": (body(crypto(), c="c=IN IP4 127.0.0.1 127"), SDPFault.MALFORMED),
    "address of another net": (body(crypto(), c="c=ATM IP4 127.0.0.1"), SDPFault.MALFORMED),
    "address of another type": (body(crypto(), c="c=IN IP5 127.0.0.1"), SDPFault.MALFORMED),
    "port above 65535": (body(crypto(), m="m=audio 70000 RTP/SAVP 0"), SDPFault.MALFORMED),
    "payload type above 127": (body(crypto(), m="m=audio 4000 RTP/SAVP 128"), SDPFault.MALFORMED),
    "rtpmap out of range": (body(crypto(), "a=rtpmap:300 PCMU/8000"), SDPFault.MALFORMED),
    "clock rate zero": (body(crypto(), "a=rtpmap:0 PCMU/0"), SDPFault.MALFORMED),
    "ptime zero": (body(crypto(), "a=ptime:0"), SDPFault.MALFORMED),
    "fmtp out of range": (body(crypto(), "a=fmtp:300 0-16"), SDPFault.MALFORMED),
    "fmtp of nothing": (body(crypto(), "a=fmtp:"), SDPFault.MALFORMED),
    "maxptime beyond a second": (body(crypto(), "a=maxptime:1000"), SDPFault.MALFORMED),
    "rtcp by host name": (body(crypto(), "a=rtcp:4001 IN IP4 media.example.test"), SDPFault.MALFORMED),
    "two directions": (body(crypto(), "a=sendonly", "a=recvonly"), SDPFault.MALFORMED),
    "many formats": (
        body(crypto(), m="m=audio 4000 RTP/SAVP " + " ".join(str(n) for n in range(96, 125))),
        SDPFault.TOO_LARGE,
    ),
    "many crypto lines": (body(*(crypto(tag=n) for n in range(1, 66))), SDPFault.TOO_LARGE),
    "many lines": (body(crypto(), *(["a=x"] * 120)), SDPFault.TOO_LARGE),
    "many bytes": (body(crypto(), *(["a=" + "x" * 200] * 60)), SDPFault.TOO_LARGE),
    "long line": (body(crypto(), "a=" + "x" * 600), SDPFault.TOO_LARGE),
    "NUL": (GOOD + b"a=x\x00\r\n", SDPFault.MALFORMED),
    "no version first": (GOOD[5:], SDPFault.MALFORMED),
    "bare CR": (GOOD + b"a=x\ry\r\n", SDPFault.MALFORMED),
    "crypto at session level": (body(crypto(), c=crypto() + "\r\nc=IN IP4 127.0.0.1"), SDPFault.MALFORMED),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    sdp, fault = REFUSED[name]
    assert verdict(sdp) is fault
    assert verdict(GOOD) is None
    assert WARNINGS[fault]


def test_every_policy_fault_has_a_row_here() -> None:
    shown = {fault for _, fault in REFUSED.values()} | {SDPFault.MANY_ANSWERS, SDPFault.CONTENT_TYPE}
    shown.add(SDPFault.NO_CONTENT_TYPE)  # of the header, so its row is the gate's
    assert shown == set(SDPFault)


def test_an_offer_may_list_weaker_suites_beside_an_allowed_one() -> None:
    mixed = body(crypto("AES_CM_128_HMAC_SHA1_32", tag=1, inline=key(CM128)), crypto(tag=2))
    judged = judge(mixed, role=SDPRole.OFFER, allowed=ALLOWED)
    assert isinstance(judged, SDPAccepted)
    assert judged.suites == (GCM256,)


def test_an_answer_has_exactly_one_crypto_line() -> None:
    two = body(crypto(), crypto(tag=2))
    assert verdict(two, SDPRole.OFFER) is None
    assert verdict(two, SDPRole.ANSWER) is SDPFault.MANY_ANSWERS
    assert verdict(GOOD, SDPRole.ANSWER) is None


@pytest.mark.parametrize("suite", list(SRTPSuite))
def test_each_suite_passes_only_where_it_is_allowed(suite: SRTPSuite) -> None:
    sdp = body(crypto(suite.value, inline=key(suite)))
    assert verdict(sdp, allowed=(suite,)) is None
    others = tuple(other for other in SRTPSuite if other is not suite)
    assert verdict(sdp, allowed=others) is SDPFault.NO_ALLOWED_SUITE


@pytest.mark.parametrize("tail", ["", "|2^20", "|1048576"])
def test_a_lifetime_is_accepted(tail: str) -> None:
    assert verdict(body(crypto(tail=tail))) is None


@pytest.mark.parametrize("direction", list(Direction))
def test_direction_is_read_at_either_level(direction: Direction) -> None:
    at_media = body(crypto(), f"a={direction.value}")
    at_session = body(crypto(), c=f"c=IN IP4 127.0.0.1\r\na={direction.value}")
    for sdp in (at_media, at_session):
        judged = judge(sdp, role=SDPRole.OFFER, allowed=ALLOWED)
        assert isinstance(judged, SDPAccepted)
        assert judged.direction is direction
    assert direction.is_hold is (direction in (Direction.SENDONLY, Direction.INACTIVE))


def test_connection_address_zero_is_the_old_hold_and_passes() -> None:
    assert verdict(body(crypto(), c="c=IN IP4 0.0.0.0")) is None


@pytest.mark.parametrize("content_type", ["application/sdp", "Application/SDP; charset=utf-8"])
def test_sdp_content_type_passes(content_type: str) -> None:
    assert judge_content_type(content_type) is None


@pytest.mark.parametrize("content_type", ["", "text/plain", "multipart/mixed;boundary=x", "application/sdpx"])
def test_other_content_types_get_415(content_type: str) -> None:
    refused = judge_content_type(content_type)
    assert refused is not None
    assert refused.status == 415


@given(st.binary(max_size=600))
def test_any_bytes_get_a_verdict(raw: bytes) -> None:
    assert isinstance(judge(raw, role=SDPRole.OFFER, allowed=ALLOWED), SDPRefusal)


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_one_changed_byte_never_gets_a_plain_or_unkeyed_body_through(place: int, value: int) -> None:
    changed = GOOD[:place] + bytes([value]) + GOOD[place + 1 :]
    judged = judge(changed, role=SDPRole.OFFER, allowed=ALLOWED)
    if isinstance(judged, SDPAccepted):
        upper = changed.upper()
        assert b"RTP/SAVP" in upper
        assert GCM256.value.encode() in changed or b"AEAD_AES_128_GCM" in changed
