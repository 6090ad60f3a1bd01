"""The manifest of a segment: what its recorder says that the stored object is, so that a cut is told from a crash.

Pure: bytes in and out; `recording.signing` signs them. Source: docs/recording-format.md, Manifests.
"""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from typing import Any, Final, Self

from recording.errors import MalformedContentError

MANIFEST_TYPE: Final = "crec-manifest"
"""`typ` in the signature's header: a signature over anything else is none over a manifest (RFC 8725 section 3.11)."""
MANIFEST_SUFFIX: Final = ".manifest"
MANIFEST_MAX: Final = 4096
_VERSION: Final = 1


class ManifestState(enum.Enum):
    """How the recorder left the segment: with its FINAL record, or cut off by a crash or a full disk."""

    COMPLETE = "complete"
    INCOMPLETE = "incomplete"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One stored object. `sha256` and `size_bytes` are of all its bytes, `records` of its body."""

    file_id: bytes
    tenant_handle: bytes
    recording: bytes
    segment: int
    previous: bytes | None
    sha256: bytes
    size_bytes: int
    records: int
    state: ManifestState

    def build(self) -> bytes:
        """The JSON that is signed."""
        document = {
            "v": _VERSION,
            "file_id": self.file_id.hex(),
            "tenant": self.tenant_handle.hex(),
            "recording": self.recording.hex(),
            "segment": self.segment,
            "previous": None if self.previous is None else self.previous.hex(),
            "sha256": self.sha256.hex(),
            "size": self.size_bytes,
            "records": self.records,
            "state": self.state.value,
        }
        return json.dumps(document, separators=(",", ":")).encode()

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        """Unknown keys are passed over.

        Raises:
            MalformedContentError: it is no manifest, or one of another version.
        """
        try:
            found = json.loads(payload)
            if found["v"] != _VERSION:
                raise MalformedContentError(
                    f"a manifest of version {found['v']!r}; this program knows {_VERSION}"
                )
            return cls(
                file_id=_hex(found["file_id"], 16),
                tenant_handle=_hex(found["tenant"], 16),
                recording=_hex(found["recording"], 16),
                segment=_number(found["segment"]),
                previous=None if found["previous"] is None else _hex(found["previous"], 16),
                sha256=_hex(found["sha256"], 32),
                size_bytes=_number(found["size"]),
                records=_number(found["records"]),
                state=ManifestState(found["state"]),
            )
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise MalformedContentError("a manifest that can't be read") from error


def _hex(value: Any, length: int) -> bytes:
    data = bytes.fromhex(value)
    if len(data) != length or data.hex() != value:
        raise ValueError("ids and hashes are lower-case hex of their length")
    return data


def _number(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("counts are whole numbers")
    return value
