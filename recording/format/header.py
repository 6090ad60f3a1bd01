"""The head of a file: core header, commitment and the frame of the slots area.

Source: docs/recording-format.md, Layout.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from recording.errors import FormatError, NotARecordingError, UnsupportedVersionError
from recording.format import limits
from recording.format.suites import Suite

MAGIC: Final = b"\x89CREC\r\n\x1a"
MAJOR: Final = 1
MINOR: Final = 0

# magic, major, minor, suite, core_len, file_id, salt, tenant_handle, chunk_size, segment_no, flags, reserved
_CORE: Final = struct.Struct(">8sBBHI16s32s16sIIII")
_OFFSET: Final = {
    "magic": 0,
    "major": 8,
    "suite": 10,
    "core_len": 12,
    "file_id": 16,
    "salt": 32,
    "tenant_handle": 64,
    "chunk_size": 80,
    "segment_no": 84,
    "flags": 88,
}
_SLOTS: Final = struct.Struct(">II")
_PREFIX_LEN: Final = 16  # magic to core_len: enough to know how much more to read


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreHeader:
    """The immutable fields.

    `extension`: bytes past the 96 known ones, which a later minor version may use; hashed, not read.
    """

    file_id: bytes
    salt: bytes
    tenant_handle: bytes
    chunk_size: int = limits.DEFAULT_CHUNK_SIZE
    segment_no: int = 0
    suite: Suite = Suite.AES_256_GCM_HKDF_SHA256
    minor: int = MINOR
    extension: bytes = b""

    def __post_init__(self) -> None:
        for name, value, length in (
            ("file_id", self.file_id, 16),
            ("salt", self.salt, 32),
            ("tenant_handle", self.tenant_handle, 16),
        ):
            if len(value) != length:
                raise FormatError(
                    f"must have {length} bytes, has {len(value)}", field=name, offset=_OFFSET[name]
                )
        _check_core_len(self.core_len)
        _check_chunk_size(self.chunk_size)

    @property
    def core_len(self) -> int:
        return limits.CORE_LEN + len(self.extension)

    @property
    def record_len(self) -> int:
        """Bytes of a record in the file."""
        return self.chunk_size + limits.TAG_LEN

    def build(self) -> bytes:
        """The core header's bytes, which the commitment covers."""
        fixed = _CORE.pack(
            MAGIC, MAJOR, self.minor, self.suite, self.core_len, self.file_id, self.salt, self.tenant_handle,
            self.chunk_size, self.segment_no, 0, 0,
        )  # fmt: skip
        return fixed + self.extension


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Everything before the body, as parsed. Nothing in it is authentic until the commitment was compared."""

    core: CoreHeader
    core_bytes: bytes
    commitment: bytes
    slots_generation: int
    slots_area: bytes

    @property
    def body_offset(self) -> int:
        return body_offset(core_len=len(self.core_bytes), slots_len=len(self.slots_area))

    def record_offset(self, index: int) -> int:
        """File offset of record `index`."""
        return self.body_offset + index * self.core.record_len


def body_offset(*, core_len: int, slots_len: int) -> int:
    """File offset of record 0."""
    return core_len + limits.COMMITMENT_LEN + limits.SLOTS_HEADER_LEN + slots_len


def build_head(core: CoreHeader, *, commitment: bytes, slots_area: bytes, slots_generation: int = 0) -> bytes:
    """The bytes before the body.

    `slots_area` must have one of the lengths that put the body on a page (see `slots`).
    """
    core_bytes = core.build()
    _check_slots_len(len(slots_area), core_len=len(core_bytes))
    if len(commitment) != limits.COMMITMENT_LEN:
        raise FormatError(
            f"must have {limits.COMMITMENT_LEN} bytes", field="commitment", offset=len(core_bytes)
        )
    return core_bytes + commitment + _SLOTS.pack(len(slots_area), slots_generation) + slots_area


def head_len_needed(data: bytes) -> int:
    """How many bytes from the file's start are needed to parse its head, as far as `data` can tell.

    A reader asks again with more.

    Raises:
        NotARecordingError, UnsupportedVersionError, FormatError: as soon as what is there shows it.
    """
    _check_magic(data)
    if len(data) < _PREFIX_LEN:
        return _PREFIX_LEN
    core_len = _core_len(data)
    slots_header_end = body_offset(core_len=core_len, slots_len=0)
    if len(data) < slots_header_end:
        return slots_header_end
    slots_len, _ = _SLOTS.unpack_from(data, slots_header_end - limits.SLOTS_HEADER_LEN)
    _check_slots_len(slots_len, core_len=core_len)
    return body_offset(core_len=core_len, slots_len=slots_len)


def parse_head(data: bytes) -> Head:
    """Parse a complete head; `data` may go on past it.

    Raises:
        NotARecordingError: wrong magic, or too short to carry one.
        UnsupportedVersionError: unknown major version, suite or flag.
        FormatError: a field out of bounds, or `data` ends before the head does.
    """
    needed = head_len_needed(data)
    if len(data) < needed:
        raise FormatError(f"{needed} bytes are needed, {len(data)} are there", field="head", offset=len(data))
    core_len = _core_len(data)
    fields = _CORE.unpack_from(data)
    minor, suite, file_id, salt, tenant_handle, chunk_size, segment_no, flags = (*fields[2:4], *fields[5:11])
    if flags != 0:
        raise UnsupportedVersionError(f"unknown flags {flags:#x}", field="flags", offset=_OFFSET["flags"])
    core = CoreHeader(
        file_id=file_id,
        salt=salt,
        tenant_handle=tenant_handle,
        chunk_size=chunk_size,
        segment_no=segment_no,
        suite=Suite(suite),
        minor=minor,
        extension=data[limits.CORE_LEN : core_len],
    )
    slots_at = core_len + limits.COMMITMENT_LEN
    _, generation = _SLOTS.unpack_from(data, slots_at)
    return Head(
        core=core,
        core_bytes=data[:core_len],
        commitment=data[core_len:slots_at],
        slots_generation=generation,
        slots_area=data[slots_at + limits.SLOTS_HEADER_LEN : needed],
    )


def _check_magic(data: bytes) -> None:
    start = data[: len(MAGIC)]
    if start != MAGIC:
        raise NotARecordingError("a recording starts otherwise", field="magic", offset=0)


def _core_len(data: bytes) -> int:
    """Check what stands before core_len, then core_len itself."""
    _, major, _, suite, core_len = struct.unpack_from(">8sBBHI", data)
    if major != MAJOR:
        raise UnsupportedVersionError(
            f"major version {major}, this reader knows {MAJOR}", field="major", offset=_OFFSET["major"]
        )
    if suite not in Suite.__members__.values():
        raise UnsupportedVersionError(f"unknown suite {suite:#06x}", field="suite", offset=_OFFSET["suite"])
    _check_core_len(core_len)
    assert isinstance(core_len, int)
    return core_len


def _check_core_len(core_len: int) -> None:
    if not limits.CORE_LEN <= core_len <= limits.CORE_LEN_MAX:
        raise FormatError(
            f"{core_len} is not within {limits.CORE_LEN}..{limits.CORE_LEN_MAX}",
            field="core_len",
            offset=_OFFSET["core_len"],
        )


def _check_chunk_size(chunk_size: int) -> None:
    if chunk_size not in limits.CHUNK_SIZES:
        raise FormatError(
            f"{chunk_size} is not one of {limits.CHUNK_SIZES}",
            field="chunk_size",
            offset=_OFFSET["chunk_size"],
        )


def _check_slots_len(slots_len: int, *, core_len: int) -> None:
    offset = core_len + limits.COMMITMENT_LEN
    if slots_len > limits.SLOTS_LEN_MAX:
        raise FormatError(
            f"{slots_len} is more than {limits.SLOTS_LEN_MAX}", field="slots_len", offset=offset
        )
    if body_offset(core_len=core_len, slots_len=slots_len) % limits.BODY_ALIGNMENT:
        raise FormatError(
            f"{slots_len} does not put the body on a multiple of {limits.BODY_ALIGNMENT}",
            field="slots_len",
            offset=offset,
        )
