"""Noticing that certificate files have changed, and offering the new set only once it is whole and good.

No thread and no timer: the caller polls `check`, and calls it with `force=True` on SIGHUP. A certificate and its
key are two files, so a poll may fall between two writes; a set that does not fit together is given time before it
is reported. What is in use stays in use until the caller swaps it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from tls.certificate import Usage
from tls.errors import MaterialError
from tls.material import BOTH_USAGES, TLSMaterial, judge_material, read_material
from tls.policy import utc_now
from tls.settings import TLS13_ONLY, PolicyProfile, TLSMaterialSettings

GRACE_S: Final = 10.0
"""How long a set may be inconsistent before it is reported: ample for a script that writes one file after another."""

_Stamp = tuple[tuple[int, ...] | None, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RotationOffered:
    """A new, wholly checked set. `changed` is false when only force asked for it."""

    material: TLSMaterial
    previous: TLSMaterial
    changed: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class RotationRefused:
    """The files on disk do not do; `kept` stays in use until its own end."""

    error: MaterialError
    kept: TLSMaterial


Rotation = RotationOffered | RotationRefused


class MaterialWatcher:
    """Watches the files behind one material. Not thread-safe: one caller polls.

    A change is noticed by stat (cheap, every poll), believed by content: a file that was only touched is no change.
    A bad set is reported once, not at every poll.
    """

    def __init__(
        self,
        material: TLSMaterial,
        *,
        profile: PolicyProfile = TLS13_ONLY,
        usages: frozenset[Usage] = BOTH_USAGES,
        grace_s: float = GRACE_S,
        clock: Callable[[], datetime] = utc_now,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._material = material
        self._profile = profile
        self._usages = usages
        self._grace_s = grace_s
        self._clock = clock
        self._monotonic_s = monotonic_s
        # Unknown, so that the first check reads the files: they may have changed since `material` was loaded.
        self._stamp: _Stamp | None = None
        self._bad_since_s: float | None = None
        self._reported_digest: bytes | None = None

    @property
    def material(self) -> TLSMaterial:
        """The last good set."""
        return self._material

    def check(self, *, force: bool = False) -> Rotation | None:
        """Look once; None when there is nothing to do (yet).

        With `force` the files are read and judged whatever their stamps say, without grace, and a good set is offered
        even when it is the one in use.
        """
        stamp = _stamp_of(self._material.settings)
        if not force and stamp == self._stamp and self._bad_since_s is None:
            return None
        files = read_material(self._material.settings)
        digest = files.digest
        if not force and digest == self._material.digest:
            self._settle(stamp)
            return None
        try:
            fresh = judge_material(files, now=self._clock(), profile=self._profile, usages=self._usages)
        except MaterialError as error:
            return self._refuse(error, stamp, digest, force=force)
        previous, self._material = self._material, fresh
        self._settle(stamp)
        return RotationOffered(material=fresh, previous=previous, changed=digest != previous.digest)

    def _settle(self, stamp: _Stamp) -> None:
        self._stamp = stamp
        self._bad_since_s = None
        self._reported_digest = None

    def _refuse(
        self, error: MaterialError, stamp: _Stamp, digest: bytes, *, force: bool
    ) -> RotationRefused | None:
        now_s = self._monotonic_s()
        self._stamp = stamp
        if self._bad_since_s is None:
            self._bad_since_s = now_s
        within_grace = now_s - self._bad_since_s < self._grace_s
        if not force and (within_grace or digest == self._reported_digest):
            return None
        self._reported_digest = digest
        return RotationRefused(error=error, kept=self._material)


def _stamp_of(settings: TLSMaterialSettings) -> _Stamp:
    paths = (settings.certificate_path, settings.private_key_path, settings.trust_path, settings.crl_path)
    return tuple(_inode_stamp(path) for path in paths if path is not None)


def _inode_stamp(path: Path) -> tuple[int, ...] | None:
    """Everything stat knows that changes when a file is replaced, rewritten or given other rights."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_mode,
        status.st_uid,
    )
