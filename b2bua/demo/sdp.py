"""Session descriptions of secure audio: parse, build, offer, answer, and the plan both ends agree on.

Pure. Security descriptions only (`a=crypto`), profile RTP/SAVP, one audio stream. Attack tests need worse than this
module would ever write; they replace the bytes through the call's SDP hook instead of loosening it.

Source: RFC 4566, RFC 3264, RFC 4568, RFC 6188, RFC 7714, RFC 4733.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from b2bua.demo.errors import SDPError

SECURE_PROFILE = "RTP/SAVP"
PTIME_MS = 20
TELEPHONE_EVENT_PT = 101
_STATIC_PAYLOADS = {0: "PCMU/8000", 8: "PCMA/8000"}
_CRYPTO = re.compile(
    r"([0-9]{1,9}) ([A-Za-z0-9_]+) inline:([A-Za-z0-9+/]+={0,2})((?:\|[^ |]+)*)((?: [^ ]+)*)"
)


class SRTPSuite(Enum):
    """The suites this endpoint speaks: SDP name, master key bytes, master salt bytes.

    Source: RFC 7714 section 12 (AEAD), RFC 4568 section 6.2 (AES_CM_128), RFC 6188 section 4 (AES_256_CM).
    """

    AEAD_AES_256_GCM = ("AEAD_AES_256_GCM", 32, 12)
    AEAD_AES_128_GCM = ("AEAD_AES_128_GCM", 16, 12)
    AES_256_CM_HMAC_SHA1_80 = ("AES_256_CM_HMAC_SHA1_80", 32, 14)
    AES_CM_128_HMAC_SHA1_80 = ("AES_CM_128_HMAC_SHA1_80", 16, 14)

    def __init__(self, sdp_name: str, key_bytes: int, salt_bytes: int) -> None:
        self.sdp_name = sdp_name
        self.key_bytes = key_bytes
        self.salt_bytes = salt_bytes

    @classmethod
    def named(cls, sdp_name: str) -> SRTPSuite:
        """The suite of an SDP name, matched exactly.

        Raises:
            SDPError: this endpoint does not speak it.
        """
        for suite in cls:
            if suite.sdp_name == sdp_name:
                return suite
        raise SDPError(f"the SRTP suite {sdp_name!r} is not one of {', '.join(s.sdp_name for s in cls)}")


AEAD_SUITES = (SRTPSuite.AEAD_AES_256_GCM, SRTPSuite.AEAD_AES_128_GCM)


class Direction(Enum):
    """The direction attribute, as its writer sees it."""

    SENDRECV = "sendrecv"
    SENDONLY = "sendonly"
    RECVONLY = "recvonly"
    INACTIVE = "inactive"

    @property
    def sends(self) -> bool:
        return self in (Direction.SENDRECV, Direction.SENDONLY)

    @property
    def receives(self) -> bool:
        return self in (Direction.SENDRECV, Direction.RECVONLY)

    @classmethod
    def of(cls, *, sends: bool, receives: bool) -> Direction:
        table = {(True, True): cls.SENDRECV, (True, False): cls.SENDONLY, (False, True): cls.RECVONLY}
        return table.get((sends, receives), cls.INACTIVE)

    @property
    def mirrored(self) -> Direction:
        """The widest answer to an offer with this direction (RFC 3264 section 6.1)."""
        return Direction.of(sends=self.receives, receives=self.sends)


@dataclass(frozen=True, slots=True, kw_only=True)
class Crypto:
    """One `a=crypto` line. `key` is master key and master salt joined, as long as the line gave it."""

    tag: int
    suite_name: str
    key: bytes = field(repr=False)
    key_parameters: tuple[str, ...] = ()
    session_parameters: tuple[str, ...] = ()

    @property
    def suite(self) -> SRTPSuite:
        """The suite, its key length checked.

        Raises:
            SDPError: an unknown suite, or a key of the wrong length for it.
        """
        suite = SRTPSuite.named(self.suite_name)
        if len(self.key) != suite.key_bytes + suite.salt_bytes:
            raise SDPError(f"the key of {self.suite_name} has {len(self.key)} bytes, not "
                           f"{suite.key_bytes + suite.salt_bytes}")  # fmt: skip
        return suite

    def line(self) -> str:
        """The attribute's value, after `a=crypto:`."""
        inline = "|".join((base64.b64encode(self.key).decode("ascii"), *self.key_parameters))
        return " ".join((str(self.tag), self.suite_name, f"inline:{inline}", *self.session_parameters))


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioDescription:
    """One m= section with what this endpoint reads of it. `address` is the section's own c= or the session's."""

    kind: str
    port: int
    profile: str
    payload_types: tuple[int, ...]
    encodings: Mapping[int, str]
    address: str
    direction: Direction = Direction.SENDRECV
    cryptos: tuple[Crypto, ...] = ()

    def payload_type(self, encoding: str) -> int | None:
        """The payload type of an encoding name such as `PCMU/8000`, or None."""
        wanted = encoding.upper()
        return next((pt for pt in self.payload_types if self.encodings.get(pt, "").upper() == wanted), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionDescription:
    """A parsed description: origin line value and the media sections."""

    origin: str
    media: tuple[AudioDescription, ...]

    @property
    def audio(self) -> AudioDescription:
        """The first audio section that is not refused by port 0.

        Raises:
            SDPError: there is none.
        """
        for section in self.media:
            if section.kind == "audio" and section.port:
                return section
        raise SDPError("the description has no active audio section")


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalAudio:
    """This endpoint's side of the session: where it receives, what it can code, its keys by suite, in offer order."""

    address: str
    port: int
    keys: Mapping[SRTPSuite, bytes] = field(repr=False)
    session_id: int
    version: int = 1
    encodings: tuple[str, ...] = ("PCMU/8000",)
    direction: Direction = Direction.SENDRECV


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaPlan:
    """What the media thread needs of a completed offer and answer. Keys are master key and salt joined."""

    remote: tuple[str, int]
    encoding: str
    payload_type: int
    event_payload_type: int | None
    suite: SRTPSuite
    send_key: bytes = field(repr=False)
    receive_key: bytes = field(repr=False)
    sends: bool
    receives: bool


def fresh_keys(suites: Iterable[SRTPSuite]) -> dict[SRTPSuite, bytes]:
    """A random master key and salt for each suite."""
    return {suite: secrets.token_bytes(suite.key_bytes + suite.salt_bytes) for suite in suites}


def build_offer(local: LocalAudio) -> bytes:
    """An offer of one secure audio stream with a crypto line per suite, tags from 1."""
    cryptos = [
        Crypto(tag=tag, suite_name=suite.sdp_name, key=key)
        for tag, (suite, key) in enumerate(local.keys.items(), 1)
    ]
    numbers = {"PCMU/8000": 0, "PCMA/8000": 8}
    return _build(local, {numbers[name]: name for name in local.encodings}, TELEPHONE_EVENT_PT, cryptos)


def build_answer(offer: SessionDescription, local: LocalAudio) -> bytes:
    """An answer to an offer: the first offered suite and coding this side speaks, the direction it leaves open.

    Raises:
        SDPError: the offer has no secure audio this endpoint may take; the caller answers 488.
    """
    audio = _acceptable(offer)
    chosen = next((crypto for crypto in audio.cryptos if _speaks(crypto, local)), None)
    if chosen is None:
        raise SDPError("the offer has no crypto line with a suite this endpoint speaks")
    encoding, payload_type = _common_coding(audio, local.encodings)
    direction = Direction.of(
        sends=audio.direction.receives and local.direction.sends,
        receives=audio.direction.sends and local.direction.receives,
    )
    crypto = Crypto(tag=chosen.tag, suite_name=chosen.suite_name, key=local.keys[chosen.suite])
    events = audio.payload_type("telephone-event/8000")
    return _build(replace(local, direction=direction), {payload_type: encoding}, events, [crypto])


def agree(*, local: SessionDescription, remote: SessionDescription, local_is_offer: bool) -> MediaPlan:
    """What an offer and its answer agree on, from this side's point of view.

    Raises:
        SDPError: the answer does not answer the offer (tag, suite or coding not offered, not secure).
    """
    offer, answer = (local, remote) if local_is_offer else (remote, local)
    offered, answered = _acceptable(offer), _acceptable(answer)
    if len(answered.cryptos) != 1:
        raise SDPError(f"the answer has {len(answered.cryptos)} crypto lines instead of one")
    theirs = answered.cryptos[0]
    match = next((crypto for crypto in offered.cryptos if crypto.tag == theirs.tag), None)
    if match is None or match.suite_name != theirs.suite_name:
        raise SDPError(f"the answer's crypto tag {theirs.tag} with {theirs.suite_name} was not offered")
    send, receive = (match, theirs) if local_is_offer else (theirs, match)
    if theirs.session_parameters or len(theirs.key_parameters) > 1:
        raise SDPError("the answer changes the terms of the crypto line")
    encoding, payload_type = _common_coding(answered, tuple(offered.encodings.values()))
    mine, other = local.audio, remote.audio
    return MediaPlan(
        remote=(other.address, other.port), encoding=encoding, payload_type=payload_type,
        event_payload_type=answered.payload_type("telephone-event/8000"), suite=theirs.suite,
        send_key=send.key, receive_key=receive.key,
        sends=mine.direction.sends and other.direction.receives,
        receives=mine.direction.receives and other.direction.sends,
    )  # fmt: skip


def parse_sdp(data: bytes) -> SessionDescription:
    """Parse a description.

    Raises:
        SDPError: a line is malformed, or a compulsory one is missing.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SDPError("the description is not UTF-8") from error
    lines = [line.rstrip("\r") for line in text.split("\n") if line.strip()]
    if any(len(line) < 2 or line[1] != "=" for line in lines) or not lines or lines[0] != "v=0":
        raise SDPError("the description is not `v=0` followed by `x=value` lines")
    starts = [index for index, line in enumerate(lines) if line.startswith("m=")] + [len(lines)]
    session = lines[: starts[0]]
    origin = next((line[2:] for line in session if line.startswith("o=")), None)
    if origin is None:
        raise SDPError("the description has no o= line")
    sections = [lines[start:end] for start, end in itertools.pairwise(starts)]
    return SessionDescription(
        origin=origin, media=tuple(_parse_section(section, session) for section in sections)
    )


def _parse_section(lines: list[str], session: list[str]) -> AudioDescription:
    match = re.fullmatch(r"m=([a-z]+) ([0-9]{1,5})(?:/[0-9]+)? ([A-Z0-9/]+)((?: [^ ]+)+)", lines[0])
    if match is None or int(match[2]) > 0xFFFF:
        raise SDPError("an m= line is malformed")
    formats = match[4].split()
    numbers = tuple(int(text) for text in formats if text.isascii() and text.isdigit())
    attributes = [line[2:] for line in lines if line.startswith("a=")]
    inherited = [line[2:] for line in session if line.startswith("a=")]
    return AudioDescription(
        kind=match[1], port=int(match[2]), profile=match[3], payload_types=numbers,
        encodings=_encodings(numbers, attributes), address=_address(lines, session),
        direction=_direction(attributes, inherited),
        cryptos=tuple(_parse_crypto(text[7:]) for text in attributes if text.startswith("crypto:")),
    )  # fmt: skip


def _encodings(numbers: tuple[int, ...], attributes: list[str]) -> dict[int, str]:
    names = {number: _STATIC_PAYLOADS[number] for number in numbers if number in _STATIC_PAYLOADS}
    for text in attributes:
        if match := re.fullmatch(r"rtpmap:([0-9]{1,3}) ([^ /]+/[0-9]+)(?:/1)?", text):
            names[int(match[1])] = match[2]
    return {number: name for number, name in names.items() if number in numbers}


def _address(lines: list[str], session: list[str]) -> str:
    for line in [*lines, *session]:
        if match := re.fullmatch(r"c=IN IP[46] ([^ /]+).*", line):
            return match[1]
    raise SDPError("an m= section has no c= line")


def _direction(attributes: list[str], inherited: list[str]) -> Direction:
    names = {direction.value: direction for direction in Direction}
    return next((names[text] for text in [*attributes, *inherited] if text in names), Direction.SENDRECV)


def _parse_crypto(value: str) -> Crypto:
    match = _CRYPTO.fullmatch(value.rstrip())
    if match is None:
        raise SDPError("an a=crypto line is malformed")
    try:
        key = base64.b64decode(match[3], validate=True)
    except binascii.Error as error:
        raise SDPError("an a=crypto key is not base64") from error
    return Crypto(
        tag=int(match[1]), suite_name=match[2], key=key,
        key_parameters=tuple(match[4].split("|")[1:]), session_parameters=tuple(match[5].split()),
    )  # fmt: skip


def _acceptable(description: SessionDescription) -> AudioDescription:
    audio = description.audio
    if audio.profile not in (SECURE_PROFILE, "RTP/SAVPF"):
        raise SDPError(f"the media profile {audio.profile} is not secure RTP")
    if not audio.cryptos:
        raise SDPError("the audio section has no crypto line")
    return audio


def _speaks(crypto: Crypto, local: LocalAudio) -> bool:
    """Session parameters and MKI would change the packets in ways this endpoint does not do (RFC 4568 section 6.3)."""
    names = {suite.sdp_name for suite in local.keys}
    mki = any(":" in text for text in crypto.key_parameters)
    return (
        crypto.suite_name in names
        and not crypto.session_parameters
        and not mki
        and crypto.suite in local.keys
    )


def _common_coding(audio: AudioDescription, encodings: tuple[str, ...]) -> tuple[str, int]:
    wanted = {name.upper(): name for name in encodings if not name.startswith("telephone-event")}
    for number in audio.payload_types:
        name = audio.encodings.get(number, "").upper()
        if name in wanted:
            return wanted[name], number
    raise SDPError("the two sides have no audio coding in common")


def _build(local: LocalAudio, codings: Mapping[int, str], events: int | None, cryptos: list[Crypto]) -> bytes:
    formats = [*codings, *([] if events is None else [events])]
    lines = [
        "v=0", f"o=- {local.session_id} {local.version} IN IP4 {local.address}", "s=-",
        f"c=IN IP4 {local.address}", "t=0 0",
        f"m=audio {local.port} {SECURE_PROFILE} {' '.join(map(str, formats))}",
        *(f"a=rtpmap:{number} {name}" for number, name in codings.items()),
    ]  # fmt: skip
    if events is not None:
        lines += [f"a=rtpmap:{events} telephone-event/8000", f"a=fmtp:{events} 0-15"]
    lines += [
        f"a=ptime:{PTIME_MS}",
        f"a={local.direction.value}",
        *(f"a=crypto:{crypto.line()}" for crypto in cryptos),
    ]
    return ("\r\n".join(lines) + "\r\n").encode("ascii")
