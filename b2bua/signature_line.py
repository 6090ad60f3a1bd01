"""What the audit log says of a manifest: what is in storage can be held against it, whatever became of the manifest."""

from __future__ import annotations

from typing import Any

from recording.format.manifest import Manifest


def signature_fields(manifest: Manifest, *, call_uid: str) -> dict[str, Any]:
    """The fields of a line `recording_signed`."""
    return {
        "file_id": manifest.file_id.hex(),
        "call_uid": call_uid or None,
        "fingerprint": manifest.sha256.hex(),
        "count": manifest.records,
        "reason": manifest.state.value,
    }
