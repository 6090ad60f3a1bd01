"""Manifests made by the recorder and stored beside its objects; and what one is worth to whoever reads.

A segment's SHA-256 is taken while it is written. What a crash left is read once more, when it is recovered.
"""

from __future__ import annotations

import hashlib
import os
import threading
from dataclasses import dataclass
from typing import BinaryIO, Final

from recording.errors import MalformedContentError
from recording.format.manifest import MANIFEST_MAX, MANIFEST_TYPE, Manifest, ManifestState
from recording.observer import RecordingObserver, SilentObserver
from recording.settings import RecordingSettings
from recording.signing import PublicKey, SigningKey, Standing, Verifier
from recording.sinks.sink import ObjectName, Sink
from recording.spool_state import SpoolState

_BLOCK_BYTES: Final = 1 << 20


class Voucher:
    """Signs manifests and keeps each until it is stored. Any thread. Without a key it does nothing.

    The observer is told of each before it is stored, so that the audit log has what it says whatever comes of it.
    """

    def __init__(self, sink: Sink, key: SigningKey | None, observer: RecordingObserver | None = None) -> None:
        self._sink = sink
        self._observer = observer or SilentObserver()
        self._key = key
        self._waiting: dict[bytes, bytes] = {}
        self._lock = threading.Lock()

    @property
    def signs(self) -> bool:
        return self._key is not None

    def sign(
        self, state: SpoolState, *, sha256: bytes, size_bytes: int, records: int, is_complete: bool
    ) -> Manifest | None:
        """Vouch for a file as it was written; `store` takes it from here. None: nothing is signed here."""
        if self._key is None:
            return None
        manifest = Manifest(
            file_id=state.file_id,
            tenant_handle=state.tenant_handle,
            recording=state.recording,
            segment=state.segment,
            previous=state.previous,
            sha256=sha256,
            size_bytes=size_bytes,
            records=records,
            state=ManifestState.COMPLETE if is_complete else ManifestState.INCOMPLETE,
        )
        token = self._key.sign(manifest.build(), typ=MANIFEST_TYPE)
        with self._lock:
            self._waiting[state.file_id] = token
        self._observer.recording_signed(call_uid=state.call_uid, manifest=manifest)
        return manifest

    def sign_file(
        self, state: SpoolState, file: BinaryIO, *, records: int, is_complete: bool
    ) -> Manifest | None:
        """As `sign`, for a file whose hash is not known: it is read. Raises OSError."""
        if self._key is None:
            return None
        sha256, size_bytes = hash_file(file)
        return self.sign(
            state, sha256=sha256, size_bytes=size_bytes, records=records, is_complete=is_complete
        )

    def store(self, name: ObjectName) -> None:
        """Put the manifest of a stored object beside it, if there is one that was not. Raises SinkError."""
        with self._lock:
            token = self._waiting.get(name.file_id)
        if token is None:
            return
        self._sink.put_manifest(name.key, token)
        with self._lock:
            self._waiting.pop(name.file_id, None)


def build_voucher(
    settings: RecordingSettings, sink: Sink, observer: RecordingObserver | None = None
) -> Voucher:
    """The voucher of a recorder. Raises KeyConfigurationError: its signing key cannot be used."""
    path = settings.signing_key_path
    return Voucher(sink, None if path is None else SigningKey.load(path), observer)


def build_verifier(settings: RecordingSettings) -> Verifier:
    """What verifies manifests and checkpoints: the public keys named, and that of our own signing key.

    A signing key that this process may not read is passed over: who reads recordings need not be able to sign.

    Raises:
        KeyConfigurationError: a named public key can't be used.
    """
    keys = [PublicKey.load(path) for path in settings.verification_key_paths]
    own = settings.signing_key_path
    if own is not None and os.access(own, os.R_OK):
        keys.append(SigningKey.load(own).public)
    return Verifier(keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vouching:
    """What a manifest says of an object. `detail` says why it is not signed, or what was done to the object."""

    standing: Standing
    detail: str = ""
    manifest: Manifest | None = None
    is_cut: bool = False


def hash_file(file: BinaryIO) -> tuple[bytes, int]:
    """SHA-256 and size of all of a file, in bounded memory. Raises OSError, or what an object's reader raises."""
    digest = hashlib.sha256()
    file.seek(0)
    size = 0
    while block := file.read(_BLOCK_BYTES):
        digest.update(block)
        size += len(block)
    return digest.digest(), size


def judge(
    token: bytes | None, verifier: Verifier, *, file_id: bytes, sha256: bytes, size_bytes: int
) -> Vouching:
    """What a manifest is worth to this object: `signed`, `unsigned`, or `wrong` and how the object differs."""
    if token is None:
        return Vouching(standing=Standing.UNSIGNED, detail="it has no manifest")
    if not verifier.has_keys:
        return Vouching(standing=Standing.UNSIGNED, detail="no key to verify manifests by is configured")
    if len(token) > MANIFEST_MAX:
        return Vouching(standing=Standing.WRONG, detail="the manifest is longer than one can be")
    payload, what = verifier.verify(token, typ=MANIFEST_TYPE)
    if payload is None:
        return Vouching(standing=Standing.WRONG, detail=f"the manifest: {what}")
    try:
        manifest = Manifest.parse(payload)
    except MalformedContentError as error:
        return Vouching(standing=Standing.WRONG, detail=str(error))
    if manifest.file_id != file_id:
        return Vouching(standing=Standing.WRONG, detail="the manifest is another file's")
    if manifest.sha256 == sha256 and manifest.size_bytes == size_bytes:
        return Vouching(standing=Standing.SIGNED, manifest=manifest)
    return _differing(manifest, size_bytes)


def _differing(manifest: Manifest, size_bytes: int) -> Vouching:
    left = f"its recorder left it {manifest.state.value} with {manifest.records} records"
    if size_bytes < manifest.size_bytes:
        return Vouching(
            standing=Standing.WRONG,
            detail=f"cut in storage: {size_bytes} of {manifest.size_bytes} bytes are there; {left}",
            manifest=manifest,
            is_cut=True,
        )
    what = "lengthened" if size_bytes > manifest.size_bytes else "altered"
    return Vouching(standing=Standing.WRONG, detail=f"{what} in storage; {left}", manifest=manifest)
