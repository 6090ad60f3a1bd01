"""What is fuzzed: for each reader of untrusted bytes the seeds, and what must hold of any bytes at all.

A target returns, or lets through what is a defect: an exception that is none of the product's, or a broken promise.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from b2bua.call.headers import HeaderError, read_invite
from b2bua.call.sdp_policy import SDPAccepted, SDPRefusal, SDPRole, judge, judge_content_type
from b2bua.config_checks import ALL_CHECKS
from b2bua.config_document import parse
from b2bua.settings import DEFAULT_SRTP_SUITES, SRTPSuite
from recording.errors import FormatError, MalformedContentError, RecordingError
from recording.format import limits, slots
from recording.format.content import parse_event, parse_final, parse_meta
from recording.format.header import CoreHeader, build_head, head_len_needed, parse_head
from recording.format.record import RecordType, build_final, write_inner_header
from recording.format.suites import derive_keys
from recording.reader import RecordingReader, open_with_dek
from recording.verify import RecordingState, verify
from support.crec import CHUNK, DEK, META, RECORD, ramp, recording
from tests.fuzz import state_targets

DATA = Path(__file__).parents[1] / "data"
FILE_ID = b"F" * 16
_MAX_RECORDS = 64
"""Of a `sealed` input: enough for every order of records, few enough for thousands of files a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """`max_len` bounds an input; longer ones only cost time."""

    check: Callable[[bytes], None]
    seeds: Callable[[], Iterator[bytes]]
    max_len: int = 4096


# --- the container


def vectors() -> Iterator[bytes]:
    """The files of tests/data/crec, those of a reasonable size."""
    for path in sorted((DATA / "crec").glob("*.vector")):
        file = path.read_bytes().partition(b"\n\n")[2]
        if len(file) <= 1 << 16:
            yield file


def check_head(data: bytes) -> None:
    """A head parses to what it was built from, or the refusal points into it."""
    with contextlib.suppress(FormatError):
        needed = head_len_needed(data)
        assert 16 <= needed <= limits.CORE_LEN_MAX + limits.COMMITMENT_LEN + 8 + limits.SLOTS_LEN_MAX
    try:
        head = parse_head(data)
    except FormatError as error:
        assert error.field  # noqa: PT017 - no pytest here: a target is a plain function
        assert error.offset >= 0  # noqa: PT017 - as above
        return
    assert head.body_offset <= len(data)
    assert head.core.chunk_size in limits.CHUNK_SIZES


def check_slots(data: bytes) -> None:
    """Slots parse to what builds the same bytes again."""
    try:
        found = slots.parse_area(data)
    except FormatError:
        return
    rebuilt = slots.build_slots(found)
    assert data[: len(rebuilt)] == rebuilt
    assert not any(data[len(rebuilt) :])


def slot_seeds() -> Iterator[bytes]:
    """Areas of none, one and several slots."""
    one = slots.KeySlot(provider=1, key_id=b"arn:aws:kms:eu-central-1:1:key/2", wrapped=b"w" * 184)
    two = slots.KeySlot(provider=0x7F, key_id=b"", wrapped=b"")
    for area in ([], [one], [one, two], [two] * 5):
        yield slots.build_slots(area)


def check_sidecar(data: bytes) -> None:
    """A sidecar parses to what builds it again."""
    try:
        sidecar = slots.parse_sidecar(data, file_id=FILE_ID)
    except FormatError:
        return
    assert sidecar.build() == data


def sidecar_seeds() -> Iterator[bytes]:
    """One with a slot, one without."""
    slot = slots.KeySlot(provider=2, key_id=b"transit/clinic", wrapped=b"vault:v1:" + b"x" * 60)
    yield slots.Sidecar(file_id=FILE_ID, generation=7, slots=(slot,)).build()
    yield slots.Sidecar(file_id=FILE_ID, generation=1, slots=()).build()


def check_container(data: bytes) -> None:
    """Any bytes as a recording, its data key known."""
    with contextlib.suppress(RecordingError):
        read_everything(open_with_dek(io.BytesIO(data), DEK))


def check_sealed(data: bytes) -> None:
    """Authentic nonsense: records that somebody with a data key could make, in any order and of any content."""
    with contextlib.suppress(RecordingError):
        read_everything(open_with_dek(io.BytesIO(sealed_file(data)), DEK))


def read_everything(reader: RecordingReader) -> None:
    """Every way of reading; only the first, `verify`, may not even raise the product's own errors."""
    verdict = verify(reader)
    assert verdict.records >= 0
    if verdict.state is RecordingState.COMPLETE:
        records = list(reader.records())
        assert [record.index for record in records] == list(range(verdict.records))
        assert records[-1].is_final
    ways: tuple[Callable[[], object], ...] = (
        lambda: reader.meta,
        lambda: reader.first_position,
        lambda: sum(len(record.payload) for record in reader.audio()),
        lambda: list(itertools.islice(reader.audio(1000), 3)),
        lambda: list(reader.events()),
        reader.final,
    )
    for way in ways:
        with contextlib.suppress(RecordingError):
            way()


def sealed_file(script: bytes) -> bytes:
    """A recording whose records are as `script` says: final bit, length and beginning of each chunk."""
    core = CoreHeader(file_id=FILE_ID, salt=b"S" * 32, tenant_handle=b"T" * 16, chunk_size=CHUNK)
    keys = derive_keys(DEK, salt=core.salt, core=core.build())
    data = [build_head(core, commitment=keys.commitment, slots_area=slots.build_area([]))]
    at = index = 0
    while at + 3 <= len(script) and index < _MAX_RECORDS:
        final, length = struct.unpack_from(">BH", script, at)
        chunk = bytearray(script[at + 3 : at + 3 + min(length, CHUNK)].ljust(CHUNK, b"\0"))
        data.append(_seal(keys.body, chunk, index=index, final=bool(final & 1)))
        at, index = at + 3 + length, index + 1
    return b"".join(data)


def _seal(body: object, chunk: bytearray, *, index: int, final: bool) -> bytes:
    """As `seal_inner`, but the bit of the nonce need not agree with the type of the record."""
    nonce = struct.pack(">BBHQ", 1, final, 0, index)
    sealed: bytes = body.encrypt(nonce, bytes(chunk), None)  # type: ignore[attr-defined]
    assert len(sealed) == RECORD
    return sealed


def sealed_seeds() -> Iterator[bytes]:
    """A good recording as a script, and one with an event."""
    meta, final = META.build(), build_final(4, b'{"v":1,"ended_by":"a","reason":"bye","frames":40}')
    audio, event = ramp(40), b'{"v":1,"event":"hold","leg":"a"}'
    for records in (
        [(RecordType.META, meta, 0), (RecordType.FINAL, build_final(2, b"{}"), 0)],
        [
            (RecordType.META, meta, 0),
            (RecordType.AUDIO, audio, 0),
            (RecordType.EVENT, event, 40),
            (RecordType.FINAL, final, 40),
        ],
    ):
        yield b"".join(_script(*record) for record in records)


def _script(record_type: RecordType, payload: bytes, position: int) -> bytes:
    inner = bytearray(CHUNK)
    write_inner_header(inner, record_type=record_type, payload_len=len(payload), position=position)
    inner[16 : 16 + len(payload)] = payload
    beginning = inner[: 16 + len(payload)]
    return struct.pack(">BH", record_type is RecordType.FINAL, len(beginning)) + beginning


def check_content(data: bytes) -> None:
    """JSON of META, EVENT and FINAL."""
    for read in (parse_meta, parse_event, parse_final):
        with contextlib.suppress(MalformedContentError):
            read(data)


def content_seeds() -> Iterator[bytes]:
    """One of each."""
    yield META.build()
    yield b'{"v":1,"event":"gap","frames":160,"at":"2026-01-01T00:00:00.000Z"}'
    yield build_final(3, b'{"v":1,"ended_by":"caller","reason":"completed","frames":8000}')
    yield b'{"next":"0000000000000000000000000000000000000000000000000000"}'


# --- SIP


def check_sdp(data: bytes) -> None:
    """A verdict for any body; what is accepted has an allowed suite, and no more than is allowed."""
    for role in SDPRole:
        for allowed in (DEFAULT_SRTP_SUITES, tuple(SRTPSuite)):
            judged = judge(data, role=role, allowed=allowed)
            if isinstance(judged, SDPAccepted):
                assert judged.suites
                assert set(judged.suites) <= set(allowed)
                assert b"RTP/SAVP" in data.upper()  # compared without case, as the library does
            else:
                assert isinstance(judged, SDPRefusal)
    judge_content_type(data[:200].decode("latin-1"))


def sdp_seeds() -> Iterator[bytes]:
    """An offer with two suites, one on hold, one in IPv6, and what must be refused."""
    key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKis"
    lines = [
        "v=0",
        "o=- 1 1 IN IP4 127.0.0.1",
        "s=-",
        "c=IN IP4 127.0.0.1",
        "t=0 0",
        "m=audio 4000 RTP/SAVP 0 8 101",
    ]
    crypto = [
        f"a=crypto:1 AEAD_AES_256_GCM inline:{key}",
        "a=rtpmap:101 telephone-event/8000",
        "a=fmtp:101 0-16",
    ]
    short = ["a=crypto:2 AES_CM_128_HMAC_SHA1_32 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz|2^20|1:32"]
    for body in (
        lines + crypto,
        [*lines, *crypto, "a=sendonly", "a=ptime:20", "a=rtcp:4001 IN IP4 127.0.0.1"],
        [*lines, *crypto, *short],
        [line.replace("IP4 127.0.0.1", "IP6 ::1") for line in lines] + crypto,
        [*lines[:-1], "m=audio 4000 RTP/AVP 0"],
        [*lines, *crypto, "m=video 0 RTP/SAVP 96"],
    ):
        yield "".join(f"{line}\r\n" for line in body).encode()


def check_invite(data: bytes) -> None:
    """What the headers of an INVITE are read for."""
    with contextlib.suppress(HeaderError):
        found = read_invite(data, frozenset({"x-call-reference"}))
        for name, value in found.passed:
            assert not set("\r\n\0") & set(name + value)


def invite_seeds() -> Iterator[bytes]:
    """Compact and long forms, a folded line, a header that may pass."""
    yield (
        b"INVITE sips:2001@edge.example.test SIP/2.0\r\nVia: SIP/2.0/TLS 127.0.0.1;branch=z9hG4bK1\r\n"
        b'Max-Forwards: 70\r\nFrom: "A" <sips:1001@pbx.example.test>;tag=1\r\nTo: <sips:2001@edge.example.test>\r\n'
        b"Call-ID: 1@pbx\r\nCSeq: 1 INVITE\r\nX-Call-Reference: r-1\r\n folded\r\nContent-Length: 0\r\n\r\n"
    )
    yield (
        b"INVITE sip:2001@edge.example.test;transport=tls SIP/2.0\r\nv: SIP/2.0/TLS [::1]\r\nf: sip:1001@pbx\r\n"
        b"t: sip:2001@edge\r\ni: 2\r\nCSeq: 2 INVITE\r\nMax-Forwards: 0\r\nl: 0\r\n\r\n"
    )


# --- the configuration


def check_configuration(data: bytes) -> None:
    """Every fault is found and named with a cure; no file that it names is touched here."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    document, report = parse(text, Path("/nonexistent/fuzz.toml"))
    for check in ALL_CHECKS:
        check(document, report)
    for problem in report.ordered():
        assert problem.what
        assert problem.cure
        assert problem.line is None or 1 <= problem.line <= text.count("\n") + 2


def configuration_seeds() -> Iterator[bytes]:
    """What `init` writes, the README's smallest, and one with a fault in every line."""
    yield (DATA / "configuration" / "faults.toml").read_bytes()
    readme = (DATA.parents[1] / "README.md").read_text()
    yield readme.split("```toml\n")[1].split("```")[0].encode()
    yield b'environment = "production"\n[keys.main]\nprovider = "aws-kms"\nregion = "eu-central-1"\n[posture]\n'


TARGETS = {
    "head": Target(check=check_head, seeds=lambda: (each[:5000] for each in vectors()), max_len=5000),
    "slots": Target(check=check_slots, seeds=slot_seeds),
    "sidecar": Target(check=check_sidecar, seeds=sidecar_seeds),
    "container": Target(
        check=check_container,
        seeds=lambda: itertools.chain(vectors(), [recording(ramp(3000))]),
        max_len=1 << 16,
    ),
    "sealed": Target(check=check_sealed, seeds=sealed_seeds, max_len=8192),
    "content": Target(check=check_content, seeds=content_seeds),
    "sdp": Target(check=check_sdp, seeds=sdp_seeds, max_len=2048),
    "invite": Target(check=check_invite, seeds=invite_seeds),
    "configuration": Target(check=check_configuration, seeds=configuration_seeds, max_len=8192),
    "spool-state": Target(check=state_targets.check_spool_state, seeds=state_targets.spool_state_seeds),
    "upload-state": Target(check=state_targets.check_upload_state, seeds=state_targets.upload_state_seeds),
    "journal": Target(check=state_targets.check_journal, seeds=state_targets.journal_seeds),
    "control": Target(check=state_targets.check_control, seeds=state_targets.control_seeds),
}
