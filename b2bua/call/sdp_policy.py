"""Which SDP may reach pjsip.

Exactly one audio m-line over RTP/SAVP(F), keyed by SDES with an allowed suite, nothing weakened.

pjmedia ignores session parameters, MKI and lifetimes in a=crypto, resolves host names in c= lines on the SIP
thread and has overrun its
arrays on long lists; so the body is judged here first, by a parser that refuses what it does not know.

Source: RFC 4566 (SDP), RFC 3264 (offer/answer), RFC 4568 sections 6 and 9 (a=crypto), RFC 7714 section 12 (AEAD
    key and salt lengths).
"""

from __future__ import annotations

import base64
import binascii
import enum
import ipaddress
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from b2bua.settings import SRTPSuite

MAX_BODY_BYTES = 8192
MAX_LINES = 100
MAX_LINE_BYTES = 512
MAX_FORMATS = 24
MAX_CRYPTO_LINES = 16

KEY_SALT_BYTES: dict[SRTPSuite, int] = {
    SRTPSuite.AEAD_AES_256_GCM: 32 + 12,
    SRTPSuite.AEAD_AES_128_GCM: 16 + 12,
    SRTPSuite.AES_256_CM_HMAC_SHA1_80: 32 + 14,
    SRTPSuite.AES_CM_128_HMAC_SHA1_80: 16 + 14,
}


class Direction(enum.Enum):
    """RFC 3264 section 5.1, seen from whoever wrote the SDP."""

    SENDRECV = "sendrecv"
    SENDONLY = "sendonly"
    RECVONLY = "recvonly"
    INACTIVE = "inactive"

    @property
    def is_hold(self) -> bool:
        """True when the writer does not want to hear the other side."""
        return self in (Direction.SENDONLY, Direction.INACTIVE)


class SDPRole(enum.Enum):
    """Which half of an exchange a body is (RFC 3264)."""

    OFFER = "offer"
    ANSWER = "answer"


class SDPFault(enum.Enum):
    """Why an SDP is refused.

    The value is the metric label and the audit reason; WARNINGS has the text a peer gets.
    """

    TOO_LARGE = "sdp_too_large"
    MALFORMED = "sdp_malformed"
    NO_AUDIO = "sdp_no_audio"
    SECOND_MEDIA = "sdp_second_media"
    PLAIN_RTP = "sdp_plain_rtp"
    UNKNOWN_PROFILE = "sdp_unknown_profile"
    NO_CRYPTO = "sdp_no_crypto"
    NO_ALLOWED_SUITE = "sdp_no_allowed_suite"
    NULL_SUITE = "sdp_null_suite"
    WEAKENED = "sdp_weakened_session_parameter"
    MKI = "sdp_mki"
    BAD_KEY = "sdp_bad_key"
    MANY_ANSWERS = "sdp_many_crypto_in_answer"
    HOST_NAME = "sdp_host_name"
    CONTENT_TYPE = "sdp_content_type"
    NO_CONTENT_TYPE = "sdp_no_content_type"


WARNINGS: dict[SDPFault, str] = {
    SDPFault.TOO_LARGE: "SDP too large",
    SDPFault.MALFORMED: "SDP malformed",
    SDPFault.NO_AUDIO: "one audio stream is required",
    SDPFault.SECOND_MEDIA: "only one audio stream is accepted",
    SDPFault.PLAIN_RTP: "RTP without SRTP refused, use RTP/SAVP",
    SDPFault.UNKNOWN_PROFILE: "transport profile refused, use RTP/SAVP or RTP/SAVPF",
    SDPFault.NO_CRYPTO: "a=crypto with an inline key is required",
    SDPFault.NO_ALLOWED_SUITE: "no allowed SRTP suite",
    SDPFault.NULL_SUITE: "SRTP suite without encryption refused",
    SDPFault.WEAKENED: "SRTP session parameters refused",
    SDPFault.MKI: "SRTP MKI refused",
    SDPFault.BAD_KEY: "SRTP key of wrong length or form",
    SDPFault.MANY_ANSWERS: "an answer carries one a=crypto",
    SDPFault.HOST_NAME: "connection address must be an IP literal",
    SDPFault.CONTENT_TYPE: "only application/sdp is accepted",
    SDPFault.NO_CONTENT_TYPE: "a body needs a Content-Type",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SDPRefusal:
    """`status` answers a request: 488, or 415 for a body that is no SDP (RFC 3261 sections 21.4.26 and 21.4.13)."""

    fault: SDPFault
    status: int = 488

    @property
    def warning(self) -> str:
        return WARNINGS[self.fault]


@dataclass(frozen=True, slots=True, kw_only=True)
class SDPAccepted:
    """What the rest of the call needs to know of an accepted body."""

    direction: Direction
    suites: tuple[SRTPSuite, ...]


class _RefusedError(Exception):
    def __init__(self, fault: SDPFault) -> None:
        super().__init__(fault.value)
        self.fault = fault


@dataclass(slots=True)
class _Media:
    kind: str
    port: int
    profile: str
    formats: list[str]
    crypto: list[str] = field(default_factory=list)
    directions: list[Direction] = field(default_factory=list)
    address: str | None = None


@dataclass(slots=True)
class _Session:
    address: str | None = None
    directions: list[Direction] = field(default_factory=list)
    media: list[_Media] = field(default_factory=list)


_LINE = re.compile(r"([a-z])=(.*)", re.DOTALL)
_MEDIA = re.compile(
    r"([A-Za-z0-9!#$%&'*+.^_`{|}~-]+) ([0-9]{1,5}) ([A-Za-z0-9/!#$%&'*+.^_`{|}~-]+)((?: [A-Za-z0-9._-]{1,16})+)"
)
_CRYPTO = re.compile(r"([0-9]{1,9}) ([A-Za-z0-9_]{1,40}) (\S+)((?: \S+)*)")
_INLINE = re.compile(r"inline:([A-Za-z0-9+/]+={0,2})((?:\|[^|;]*)*)")
_LIFETIME = re.compile(r"(?:2\^)?[0-9]{1,15}")
_RTPMAP = re.compile(r"([0-9]{1,3}) ([A-Za-z0-9._-]{1,32})/([0-9]{1,6})(?:/([0-9]{1,2}))?")
_FMTP = re.compile(r"([0-9]{1,3}) (.+)")
_PTIME_MS = range(1, 241)
_DIRECTIONS = {direction.value: direction for direction in Direction}
_SECURE_PROFILES = frozenset({"RTP/SAVP", "RTP/SAVPF"})
_PLAIN_PROFILES = frozenset({"RTP/AVP", "RTP/AVPF"})
_SUITES = {suite.value: suite for suite in SRTPSuite}


def judge(body: bytes, *, role: SDPRole, allowed: Collection[SRTPSuite]) -> SDPAccepted | SDPRefusal:
    """Judge one SDP body against a trunk's suites.

    An offer may list other suites beside an allowed one (they are never chosen), but nothing unencrypted,
    weakened or with an MKI anywhere;
    an answer has exactly one a=crypto and it is allowed.
    """
    try:
        session = _parse(body)
        media = _only_audio(session)
        _require_address(session, media)
        suites = _judge_crypto(media, role, allowed)
        return SDPAccepted(direction=_direction(session, media), suites=suites)
    except _RefusedError as refused:
        return SDPRefusal(fault=refused.fault)


def judge_content_type(content_type: str) -> SDPRefusal | None:
    """415 for any body that is not application/sdp: multipart bodies are not taken apart."""
    media_type = content_type.split(";", 1)[0].strip().lower()
    if media_type == "application/sdp":
        return None
    return SDPRefusal(fault=SDPFault.CONTENT_TYPE, status=415)


def _parse(body: bytes) -> _Session:
    if len(body) > MAX_BODY_BYTES:
        raise _RefusedError(SDPFault.TOO_LARGE)
    if b"\x00" in body:
        raise _RefusedError(SDPFault.MALFORMED)
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise _RefusedError(SDPFault.MALFORMED) from None
    lines = text.replace("\r\n", "\n").rstrip("\n").split("\n")
    if len(lines) > MAX_LINES or any(len(line) > MAX_LINE_BYTES for line in lines):
        raise _RefusedError(SDPFault.TOO_LARGE)
    session = _Session()
    for number, line in enumerate(lines):
        matched = _LINE.fullmatch(line)
        if matched is None or "\r" in line or (number == 0) != (line == "v=0"):
            raise _RefusedError(SDPFault.MALFORMED)
        kind, value = matched.groups()
        handler = _LINE_HANDLERS.get(kind)
        if handler is not None:
            handler(session, value)
    return session


def _take_media(session: _Session, value: str) -> None:
    matched = _MEDIA.fullmatch(value)
    if matched is None or int(matched[2]) > 65535:
        raise _RefusedError(SDPFault.MALFORMED)
    formats = matched[4].split()
    if len(formats) > MAX_FORMATS:
        raise _RefusedError(SDPFault.TOO_LARGE)
    session.media.append(
        _Media(kind=matched[1].lower(), port=int(matched[2]), profile=matched[3].upper(), formats=formats)
    )
    if len(session.media) > 1:
        plain_beside_secure = {media.profile in _SECURE_PROFILES for media in session.media} == {True, False}
        raise _RefusedError(
            SDPFault.PLAIN_RTP if plain_beside_secure and _any_plain(session) else SDPFault.SECOND_MEDIA
        )


def _any_plain(session: _Session) -> bool:
    return any(media.profile in _PLAIN_PROFILES and media.port != 0 for media in session.media)


def _take_connection(session: _Session, value: str) -> None:
    parts = value.split(" ")
    if len(parts) != 3 or parts[0] != "IN" or parts[1] not in ("IP4", "IP6"):
        raise _RefusedError(SDPFault.MALFORMED)
    try:
        address = ipaddress.ip_address(parts[2])
    except ValueError:
        raise _RefusedError(SDPFault.HOST_NAME) from None
    if address.version != (4 if parts[1] == "IP4" else 6) or address.is_multicast:
        raise _RefusedError(SDPFault.MALFORMED)
    if session.media:
        session.media[-1].address = parts[2]
    else:
        session.address = parts[2]


def _take_attribute(session: _Session, value: str) -> None:
    name, _, rest = value.partition(":")
    lowered = name.lower()
    where: _Session | _Media = session.media[-1] if session.media else session
    if lowered in _DIRECTIONS:
        where.directions.append(_DIRECTIONS[lowered])
    elif lowered == "crypto":
        if not isinstance(where, _Media):
            raise _RefusedError(SDPFault.MALFORMED)
        where.crypto.append(rest)
    elif lowered in _ATTRIBUTE_CHECKS and not _ATTRIBUTE_CHECKS[lowered](rest):
        raise _RefusedError(SDPFault.MALFORMED)


def _is_rtpmap(value: str) -> bool:
    matched = _RTPMAP.fullmatch(value.strip())
    return matched is not None and int(matched[1]) < 128 and 0 < int(matched[3]) <= 192_000


def _is_fmtp(value: str) -> bool:
    matched = _FMTP.fullmatch(value)
    return matched is not None and int(matched[1]) < 128


def _is_ptime(value: str) -> bool:
    return value.strip().isascii() and value.strip().isdigit() and int(value.strip()) in _PTIME_MS


def _is_rtcp(value: str) -> bool:
    parts = value.split(" ")
    if not (parts[0].isascii() and parts[0].isdigit() and int(parts[0]) <= 65535):
        return False
    if len(parts) == 1:
        return True
    try:
        return len(parts) == 4 and parts[1] == "IN" and bool(ipaddress.ip_address(parts[3]))
    except ValueError:
        return False


_ATTRIBUTE_CHECKS: dict[str, Callable[[str], bool]] = {
    "rtpmap": _is_rtpmap,
    "fmtp": _is_fmtp,
    "ptime": _is_ptime,
    "maxptime": _is_ptime,
    "rtcp": _is_rtcp,
}
_LINE_HANDLERS: dict[str, Callable[[_Session, str], None]] = {
    "m": _take_media,
    "c": _take_connection,
    "a": _take_attribute,
}


def _only_audio(session: _Session) -> _Media:
    if not session.media:
        raise _RefusedError(SDPFault.NO_AUDIO)
    media = session.media[0]
    if media.kind != "audio":
        raise _RefusedError(SDPFault.SECOND_MEDIA)
    if media.profile in _PLAIN_PROFILES:
        raise _RefusedError(SDPFault.PLAIN_RTP)
    if media.profile not in _SECURE_PROFILES:
        raise _RefusedError(SDPFault.UNKNOWN_PROFILE)
    if media.port == 0:
        raise _RefusedError(SDPFault.NO_AUDIO)
    if not all(name.isdigit() and int(name) < 128 for name in media.formats):
        raise _RefusedError(SDPFault.MALFORMED)
    return media


def _require_address(session: _Session, media: _Media) -> None:
    if media.address is None and session.address is None:
        raise _RefusedError(SDPFault.MALFORMED)


def _direction(session: _Session, media: _Media) -> Direction:
    directions = media.directions or session.directions or [Direction.SENDRECV]
    if len(set(directions)) > 1:
        raise _RefusedError(SDPFault.MALFORMED)
    return directions[0]


def _judge_crypto(media: _Media, role: SDPRole, allowed: Collection[SRTPSuite]) -> tuple[SRTPSuite, ...]:
    if not media.crypto:
        raise _RefusedError(SDPFault.NO_CRYPTO)
    if len(media.crypto) > MAX_CRYPTO_LINES:
        raise _RefusedError(SDPFault.TOO_LARGE)
    if role is SDPRole.ANSWER and len(media.crypto) > 1:
        raise _RefusedError(SDPFault.MANY_ANSWERS)
    seen_tags: set[int] = set()
    suites: list[SRTPSuite] = []
    for line in media.crypto:
        tag, suite = _judge_crypto_line(line)
        if tag in seen_tags:
            raise _RefusedError(SDPFault.MALFORMED)
        seen_tags.add(tag)
        if suite is not None and suite in allowed:
            suites.append(suite)
    if not suites:
        raise _RefusedError(SDPFault.NO_ALLOWED_SUITE)
    return tuple(suites)


def _judge_crypto_line(line: str) -> tuple[int, SRTPSuite | None]:
    matched = _CRYPTO.fullmatch(line.strip())
    if matched is None:
        raise _RefusedError(SDPFault.MALFORMED)
    tag, name, key_parameters, session_parameters = matched.groups()
    if "NULL" in name.upper():
        raise _RefusedError(SDPFault.NULL_SUITE)
    if session_parameters.strip():
        raise _RefusedError(SDPFault.WEAKENED)
    suite = _SUITES.get(name)
    _judge_key(key_parameters, suite)
    return int(tag), suite


def _judge_key(key_parameters: str, suite: SRTPSuite | None) -> None:
    if ";" in key_parameters:
        raise _RefusedError(SDPFault.MKI)
    matched = _INLINE.fullmatch(key_parameters)
    if matched is None:
        raise _RefusedError(SDPFault.BAD_KEY)
    extras = matched[2].split("|")[1:]
    if any(":" in extra for extra in extras):
        raise _RefusedError(SDPFault.MKI)
    if len(extras) > 1 or not all(_LIFETIME.fullmatch(extra) for extra in extras):
        raise _RefusedError(SDPFault.BAD_KEY)
    if suite is None:
        return
    try:
        key_salt = base64.b64decode(matched[1] + "=" * (-len(matched[1]) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise _RefusedError(SDPFault.BAD_KEY) from None
    if len(key_salt) != KEY_SALT_BYTES[suite]:
        raise _RefusedError(SDPFault.BAD_KEY)
