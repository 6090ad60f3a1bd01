"""What every file of the format begins with: a fresh salt, the core header, the keys that follow, the head on disk."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from recording.format.header import CoreHeader, build_head
from recording.format.suites import derive_keys, wipe


@dataclass(frozen=True, slots=True, kw_only=True)
class FileHead:
    """The head as it is written, and what seals the records behind it."""

    core: CoreHeader
    head: bytes
    body: AESGCM = field(repr=False)


def begin_file(
    *,
    file_id: bytes,
    tenant_handle: bytes,
    dek: bytearray,
    slots_area: bytes,
    segment: int | None,
    chunk_size: int,
    salt: bytes | None,
) -> FileHead:
    """Derive the file's keys and wipe `dek`, whatever comes of it. `salt` None draws it; only vectors give one.

    Raises:
        FormatError: an id, the chunk size or the area is not as the format asks.
    """
    try:
        core = CoreHeader(
            file_id=file_id,
            salt=os.urandom(32) if salt is None else salt,
            tenant_handle=tenant_handle,
            chunk_size=chunk_size,
            segment_no=segment or 0,
        )
        keys = derive_keys(dek, salt=core.salt, core=core.build())
    finally:
        wipe(dek)
    head = build_head(core, commitment=keys.commitment, slots_area=slots_area)
    return FileHead(core=core, head=head, body=keys.body)
