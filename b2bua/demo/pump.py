"""The media thread: paces the packets of many streams and takes what arrives for them, with one epoll loop.

A packet costs one struct, one libsrtp call and one system call; there is no task, lock or queue per packet. Only the
pump's thread touches a stream's state. Other threads hand it functions with `submit` and `call`.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Final, Protocol, Self, TypeVar

from b2bua.demo.errors import DemoError

_T = TypeVar("_T")
_MAX_EVENTS: Final = 256
_IDLE_S: Final = 1.0


class PumpedStream(Protocol):
    """What the pump asks of a stream; all of it is called on the pump's thread."""

    socket: socket.socket

    def on_slot(self, now_ns: int) -> int | None:
        """Send what is due and return the next due time (monotonic ns), or None to leave the schedule."""

    def on_readable(self) -> None:
        """Take one datagram."""

    def close_now(self) -> None:
        """Close the socket, after `forget`."""


class MediaPump:
    """A thread that serves any number of streams. A context manager: leaving it closes every stream still open."""

    def __init__(self, *, name: str = "media-pump") -> None:
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._streams: dict[int, PumpedStream] = {}
        self._due: list[tuple[int, int, PumpedStream]] = []
        self._order = itertools.count()
        self._jobs: deque[Callable[[], object]] = deque()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Close every stream and end the thread; blocks until it has ended."""
        self.submit(self._stop)
        self._thread.join()
        self._epoll.close()
        os.close(self._wake)

    def submit(self, job: Callable[[], object]) -> None:
        """Run a function on the pump's thread soon; from any thread. It must not raise."""
        self._jobs.append(job)
        os.eventfd_write(self._wake, 1)

    async def call(self, job: Callable[[], _T]) -> _T:
        """Run a function on the pump's thread and await its result or its exception.

        Raises:
            DemoError: the pump has stopped.
        """
        if self._stopping:
            raise DemoError("the media pump has stopped")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()

        def settle(result: _T | None, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]  # a _T whenever there is no error

        def run() -> None:
            result, error = None, None
            try:
                result = job()
            except BaseException as raised:  # noqa: BLE001 handed to the awaiting task, whatever it is
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop that asked is closed: nobody waits
                loop.call_soon_threadsafe(settle, result, error)

        self.submit(run)
        return await future

    def register(self, stream: PumpedStream) -> None:
        """Begin to receive for a stream; pump thread, repeated calls are harmless."""
        descriptor = stream.socket.fileno()
        if descriptor not in self._streams:
            self._streams[descriptor] = stream
            self._epoll.register(descriptor, select.EPOLLIN)

    def forget(self, stream: PumpedStream) -> None:
        """Stop to receive for a stream, before its socket is closed; pump thread."""
        descriptor = stream.socket.fileno()
        if self._streams.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def schedule(self, due_ns: int, stream: PumpedStream) -> None:
        """Call the stream's `on_slot` at a monotonic time; pump thread."""
        heapq.heappush(self._due, (due_ns, next(self._order), stream))

    def _stop(self) -> None:
        self._stopping = True
        for stream in list(self._streams.values()):
            stream.close_now()

    def _run(self) -> None:
        while not self._stopping:
            self._send_due()
            for descriptor, _ in self._epoll.poll(self._patience_s(), _MAX_EVENTS):
                stream = self._streams.get(descriptor)
                if stream is not None:
                    stream.on_readable()
                elif descriptor == self._wake:
                    os.eventfd_read(self._wake)
                    self._run_jobs()

    def _run_jobs(self) -> None:
        while self._jobs:
            self._jobs.popleft()()

    def _send_due(self) -> None:
        due, now_ns = self._due, time.monotonic_ns()
        while due and due[0][0] <= now_ns:
            stream = due[0][2]
            next_ns = stream.on_slot(now_ns)
            if next_ns is None:
                heapq.heappop(due)
            else:
                heapq.heapreplace(due, (next_ns, next(self._order), stream))

    def _patience_s(self) -> float:
        if not self._due:
            return _IDLE_S
        return max(0.0, (self._due[0][0] - time.monotonic_ns()) / 1e9)
