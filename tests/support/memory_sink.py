"""A sink in memory that can be told to fail."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from recording.format import limits
from recording.format.manifest import MANIFEST_MAX
from recording.sinks.sink import (
    NO_RETENTION,
    LockMode,
    ObjectConflictError,
    ObjectLockedError,
    ObjectMissingError,
    ObjectName,
    Retention,
    SinkError,
    SlotFile,
    check_directory,
    check_key,
    sidecar_key,
)


class MemorySink:
    """Keeps objects in a dictionary. `failures`: raised by the next calls of `put`, one each."""

    name = "memory"
    locks = True
    part_bytes = None

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.retentions: dict[str, Retention] = {}
        self.sidecars: dict[tuple[str, int], bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.failures: list[SinkError] = []
        self.attempts = 0
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def put(self, source: Path, name: ObjectName) -> int:
        self.attempts += 1
        self.entered.set()
        self.gate.wait(30)
        if self.failures:
            raise self.failures.pop(0)
        if not source.exists():
            if name.key not in self.objects:
                raise ObjectMissingError(f"neither {source} nor {name.key} is there")
            return len(self.objects[name.key])
        content = source.read_bytes()
        if self.objects.setdefault(name.key, content) != content:
            raise ObjectConflictError(f"{name.key} exists with other content")
        if name.retain_until is not None and name.retain_until > datetime.now(UTC):
            self.extend_retention(name.key, name.retain_until)
        return len(content)

    def advance(self, source: Path, name: ObjectName, durable_bytes: int) -> None:
        """Nothing: whole files only."""

    def size(self, key: str) -> int | None:
        content = self.objects.get(check_key(key))
        return None if content is None else len(content)

    def open(self, key: str) -> BinaryIO:
        if check_key(key) not in self.objects:
            raise ObjectMissingError(f"no object {key}")
        return io.BytesIO(self.objects[key])

    def put_slots(self, key: str, generation: int, data: bytes) -> None:
        if self.failures:
            raise self.failures.pop(0)
        sidecar_key(key, generation)
        if self.sidecars.setdefault((key, generation), data) != data:
            raise ObjectConflictError(f"generation {generation} of {key} exists with other content")

    def put_all_slots(self, files: Sequence[SlotFile]) -> list[SlotFile]:
        conflicts = []
        for file in files:
            try:
                self.put_slots(file.object_key, file.generation, file.data)
            except ObjectConflictError:
                conflicts.append(file)
        return conflicts

    def slot_generations(self, key: str) -> list[int]:
        check_key(key)
        return sorted((generation for owner, generation in self.sidecars if owner == key), reverse=True)

    def slots_below(self, directory: str) -> dict[str, list[int]]:
        check_directory(directory)
        owners = {owner for owner, _ in self.sidecars if owner.startswith(directory)}
        return {owner: self.slot_generations(owner) for owner in owners}

    def slots(self, key: str, generation: int) -> bytes:
        sidecar_key(key, generation)
        if (key, generation) not in self.sidecars:
            raise ObjectMissingError(f"no generation {generation} of {key}")
        return self.sidecars[key, generation][: limits.SIDECAR_LEN_MAX + 1]

    def put_manifest(self, key: str, data: bytes) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.manifests.setdefault(check_key(key), data)

    def manifest(self, key: str) -> bytes | None:
        found = self.manifests.get(check_key(key))
        return None if found is None else found[: MANIFEST_MAX + 1]

    def keys(self, prefix: str = "") -> Iterator[str]:
        return iter(sorted(key for key in self.objects if key.startswith(prefix)))

    def health(self) -> None:
        if self.failures:
            raise self.failures[0]

    def delete(self, key: str) -> None:
        if check_key(key) in self.objects and self.retention(key).keeps_at(datetime.now(UTC)):
            raise ObjectLockedError(f"{key} is kept")
        self.objects.pop(key, None)
        for generation in self.slot_generations(key):
            del self.sidecars[key, generation]
        self.manifests.pop(key, None)
        self.retentions.pop(key, None)

    def retention(self, key: str) -> Retention:
        if check_key(key) not in self.objects:
            raise ObjectMissingError(f"no object {key}")
        return self.retentions.get(key, NO_RETENTION)

    def extend_retention(self, key: str, until: datetime) -> Retention:
        kept = self.retention(key)
        if kept.until is None or until > kept.until:
            self.retentions[key] = replace(kept, mode=LockMode.GOVERNANCE, until=until)
        return self.retention(key)

    def set_hold(self, key: str, *, is_held: bool) -> Retention:
        self.retentions[key] = replace(self.retention(key), is_held=is_held)
        return self.retention(key)
