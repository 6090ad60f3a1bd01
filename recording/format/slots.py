"""Key slots, in the file's head and in sidecars. Source: docs/recording-format.md, Key slots.

Slots are not authenticated. Altering them can keep a file from being opened; what is opened is what was
written, for the commitment decides.
"""

from __future__ import annotations

import enum
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from recording.errors import FormatError
from recording.format import limits
from recording.format.header import body_offset

SIDECAR_MAGIC: Final = b"\x89CRES\r\n\x1a"
SIDECAR_SUFFIX: Final = ".slots"

FILE_ID_LEN: Final = 16

_COUNT: Final = struct.Struct(">H")
_SLOT: Final = struct.Struct(">HHH")
_SIDECAR: Final = struct.Struct(">8s16sII")
_SIDECAR_NAME: Final = re.compile(r"([0-9a-f]{32})\.(0|[1-9][0-9]{0,9})\.slots")


class SlotProvider(enum.IntEnum):
    """Who wrapped the data key of a slot."""

    AWS_KMS = 1
    VAULT_TRANSIT = 2
    PKCS11_AES_KW = 3
    RSA_OAEP_SHA256 = 4
    GCP_KMS = 5
    AZURE_KEY_VAULT = 6
    LOCAL_DEV = 0x7F


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySlot:
    """One wrapped data key.

    `provider` is a plain number, since a file may hold slots of providers unknown here.
    """

    provider: int
    key_id: bytes
    wrapped: bytes = field(repr=False)

    def __post_init__(self) -> None:
        for name, value in (
            ("key_id", len(self.key_id)),
            ("wrapped", len(self.wrapped)),
            ("provider", self.provider),
        ):
            if not 0 <= value <= 0xFFFF:
                raise FormatError(f"{value} does not fit into 16 bits", field=f"slot.{name}", offset=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecar:
    """Slots that replace the embedded ones after a rewrap.

    The highest generation that opens the file counts.
    """

    file_id: bytes
    generation: int
    slots: tuple[KeySlot, ...]

    def __post_init__(self) -> None:
        if len(self.file_id) != FILE_ID_LEN:
            raise FormatError(f"{len(self.file_id)} bytes, not {FILE_ID_LEN}", field="file_id", offset=8)
        if not 0 <= self.generation <= limits.GENERATION_MAX:
            raise FormatError(f"{self.generation} does not fit into 32 bits", field="generation", offset=24)

    @property
    def name(self) -> str:
        """File name beside the recording, or last part of the object key."""
        return f"{self.file_id.hex()}.{self.generation}{SIDECAR_SUFFIX}"

    def build(self) -> bytes:
        """The sidecar's bytes. Raises FormatError where the slots are too many or too long for a reader."""
        body = build_slots(self.slots)
        if len(body) > limits.SLOTS_LEN_MAX:
            raise FormatError(
                f"the slots need {len(body)} bytes, {limits.SLOTS_LEN_MAX} fit", field="length", offset=28
            )
        return _SIDECAR.pack(SIDECAR_MAGIC, self.file_id, self.generation, len(body)) + body


def build_slots(slots: Sequence[KeySlot]) -> bytes:
    """Count and slots, without padding."""
    if len(slots) > limits.MAX_SLOTS:
        raise FormatError(f"{len(slots)} slots, at most {limits.MAX_SLOTS} fit", field="count", offset=0)
    parts = [_COUNT.pack(len(slots))]
    for slot in slots:
        parts += (_SLOT.pack(slot.provider, len(slot.key_id), len(slot.wrapped)), slot.key_id, slot.wrapped)
    return b"".join(parts)


def build_area(slots: Sequence[KeySlot], *, core_len: int = limits.CORE_LEN) -> bytes:
    """The slots area of a file's head: slots, then zeros up to the next page."""
    body = build_slots(slots)
    area_len = len(body) + -body_offset(core_len=core_len, slots_len=len(body)) % limits.BODY_ALIGNMENT
    if area_len > limits.SLOTS_LEN_MAX:
        raise FormatError(
            f"the slots need {area_len} bytes, {limits.SLOTS_LEN_MAX} fit", field="slots_len", offset=0
        )
    return body.ljust(area_len, b"\0")


def parse_area(area: bytes) -> tuple[KeySlot, ...]:
    """The slots of a zero-padded area. Offsets in errors count from its start."""
    slots, end = _parse_slots(area)
    if any(memoryview(area)[end:]):
        raise FormatError("bytes after the last slot are not zero", field="padding", offset=end)
    return slots


def parse_sidecar(data: bytes, *, file_id: bytes) -> Sidecar:
    """A sidecar, which must belong to `file_id` and fill `data` exactly."""
    if len(data) < _SIDECAR.size:
        raise FormatError(
            f"{_SIDECAR.size} bytes are needed, {len(data)} are there", field="sidecar", offset=len(data)
        )
    magic, owner, generation, length = _SIDECAR.unpack_from(data)
    if magic != SIDECAR_MAGIC:
        raise FormatError("a sidecar starts otherwise", field="magic", offset=0)
    if owner != file_id:
        raise FormatError(f"belongs to {owner.hex()}, not to {file_id.hex()}", field="file_id", offset=8)
    if length != len(data) - _SIDECAR.size or length > limits.SLOTS_LEN_MAX:
        raise FormatError(
            f"{length} stated, {len(data) - _SIDECAR.size} bytes are there", field="length", offset=28
        )
    slots, end = _parse_slots(data[_SIDECAR.size :])
    if end != length:
        raise FormatError("bytes after the last slot", field="slots", offset=_SIDECAR.size + end)
    return Sidecar(file_id=owner, generation=generation, slots=slots)


def sidecar_generation(name: str, *, file_id: bytes) -> int | None:
    """The generation in a sidecar's file name, None if it is not a sidecar of this file."""
    match = _SIDECAR_NAME.fullmatch(name)
    if match is None or match[1] != file_id.hex() or int(match[2]) > limits.GENERATION_MAX:
        return None
    return int(match[2])


def _parse_slots(data: bytes) -> tuple[tuple[KeySlot, ...], int]:
    """The slots, and where they end."""
    if len(data) < _COUNT.size:
        raise FormatError("no room for a count", field="count", offset=0)
    (count,) = _COUNT.unpack_from(data)
    if count > limits.MAX_SLOTS:
        raise FormatError(f"{count} slots, at most {limits.MAX_SLOTS} are allowed", field="count", offset=0)
    at = _COUNT.size
    slots = []
    for number in range(count):
        if len(data) - at < _SLOT.size:
            raise FormatError("the area ends inside the slot", field=f"slot[{number}]", offset=at)
        provider, key_id_len, wrapped_len = _SLOT.unpack_from(data, at)
        key_id_at = at + _SLOT.size
        wrapped_at = key_id_at + key_id_len
        end = wrapped_at + wrapped_len
        if end > len(data):
            raise FormatError(
                f"reaches to {end}, the area ends at {len(data)}", field=f"slot[{number}]", offset=at
            )
        slots.append(
            KeySlot(provider=provider, key_id=data[key_id_at:wrapped_at], wrapped=data[wrapped_at:end])
        )
        at = end
    return tuple(slots), at
