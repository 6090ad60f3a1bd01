"""A sink that tries another sink more than once."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

from recording.sinks.sink import ObjectName, Retention, Sink, SinkUnavailableError, SlotFile

ATTEMPTS: Final = 4
FIRST_PAUSE_S: Final = 0.2
MAX_PAUSE_S: Final = 10.0

_Result = TypeVar("_Result")


class RetryingSink:
    """Repeats what failed for the time being, with a growing, jittered pause. What is refused is not repeated.

    `put` may be repeated because it is idempotent. `stop` ends a pause at once.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        attempts: int = ATTEMPTS,
        first_pause_s: float = FIRST_PAUSE_S,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        if attempts < 1:
            raise ValueError(f"attempts must be at least 1, not {attempts}")
        self.name = sink.name
        self._sink = sink
        self._attempts = attempts
        self._first_pause_s = first_pause_s
        self._jitter = jitter
        self._stopping = threading.Event()

    def put(self, source: Path, name: ObjectName) -> int:
        return self._repeated(lambda: self._sink.put(source, name))

    @property
    def part_bytes(self) -> int | None:
        return self._sink.part_bytes

    def advance(self, source: Path, name: ObjectName, durable_bytes: int) -> None:
        """Tried once: the next part, or `put`, sends what this could not."""
        self._sink.advance(source, name, durable_bytes)

    def size(self, key: str) -> int | None:
        return self._repeated(lambda: self._sink.size(key))

    def open(self, key: str) -> BinaryIO:
        return self._repeated(lambda: self._sink.open(key))

    def put_slots(self, key: str, generation: int, data: bytes) -> None:
        self._repeated(lambda: self._sink.put_slots(key, generation, data))

    def put_all_slots(self, files: Sequence[SlotFile]) -> list[SlotFile]:
        return self._repeated(lambda: self._sink.put_all_slots(files))

    def slot_generations(self, key: str) -> list[int]:
        return self._repeated(lambda: self._sink.slot_generations(key))

    def slots_below(self, directory: str) -> dict[str, list[int]]:
        return self._repeated(lambda: self._sink.slots_below(directory))

    def slots(self, key: str, generation: int) -> bytes:
        return self._repeated(lambda: self._sink.slots(key, generation))

    def put_manifest(self, key: str, data: bytes) -> None:
        self._repeated(lambda: self._sink.put_manifest(key, data))

    def manifest(self, key: str) -> bytes | None:
        return self._repeated(lambda: self._sink.manifest(key))

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Not repeated: a listing that failed half-way is begun again by who asked."""
        return self._sink.keys(prefix)

    def health(self) -> None:
        """Asked once: who asks wants to know how things are now."""
        self._sink.health()

    @property
    def locks(self) -> bool:
        return self._sink.locks

    def delete(self, key: str) -> None:
        self._repeated(lambda: self._sink.delete(key))

    def retention(self, key: str) -> Retention:
        return self._repeated(lambda: self._sink.retention(key))

    def extend_retention(self, key: str, until: datetime) -> Retention:
        return self._repeated(lambda: self._sink.extend_retention(key, until))

    def set_hold(self, key: str, *, is_held: bool) -> Retention:
        return self._repeated(lambda: self._sink.set_hold(key, is_held=is_held))

    def stop(self) -> None:
        """From now on nothing is repeated. Any thread."""
        self._stopping.set()

    def _repeated(self, operation: Callable[[], _Result]) -> _Result:
        for attempt in range(self._attempts - 1):
            try:
                return operation()
            except SinkUnavailableError:
                step_s = min(MAX_PAUSE_S, self._first_pause_s * 2**attempt)
                if self._stopping.wait(step_s * (0.5 + 0.5 * self._jitter())):
                    raise
        return operation()
