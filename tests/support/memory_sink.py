"""A sink in memory that can be told to fail."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import BinaryIO

from recording.sinks.sink import (
    ObjectConflictError,
    ObjectMissingError,
    ObjectName,
    SinkError,
    check_key,
)


class MemorySink:
    """Keeps objects in a dictionary. `failures`: raised by the next calls of `put`, one each."""

    name = "memory"

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
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
        return len(content)

    def size(self, key: str) -> int | None:
        content = self.objects.get(check_key(key))
        return None if content is None else len(content)

    def open(self, key: str) -> BinaryIO:
        if check_key(key) not in self.objects:
            raise ObjectMissingError(f"no object {key}")
        return io.BytesIO(self.objects[key])

    def health(self) -> None:
        if self.failures:
            raise self.failures[0]
