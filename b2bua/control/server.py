"""The control socket of a serving process: a listener thread, and a thread for each of a few connections.

Nothing of it runs on the SIP thread: a request is posted there and its answer waited for here, for a limited time.
Who may connect is decided three times: the directory (0700), the socket (0600), and the peer's user id as the kernel
gives it (SO_PEERCRED, unix(7)).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import queue
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import structlog

from b2bua.control.place import address, opened
from b2bua.control.protocol import MAX_REQUEST_BYTES, Answer, Request, parse_request, refused
from b2bua.errors import ControlError
from b2bua.settings import ControlSettings

_log = structlog.get_logger(__name__)

MAX_CONNECTIONS: Final = 8
"""Operators and their scripts; a ninth is told to come again."""
REQUEST_S: Final = 5.0
"""How long a connection may take for one line, and for taking one answer."""
ANSWER_S: Final = 5.0
"""How long the SIP thread may take. It turns a hundred times a second, the pump in at most a second."""
_BACKLOG: Final = 16
_CREDENTIALS: Final = struct.Struct("3i")

Submit = Callable[[Request, Callable[[Answer], None]], None]
"""Hand a request to the SIP thread; the answer comes back on any thread, at most once."""


class ControlObserver(Protocol):
    """Told on the control threads; quick, thread-safe, never raising."""

    def control_command(self, *, command: str, call_uid: str, reason: str, uid: int) -> None: ...
    def control_refused(self, *, reason: str, uid: int) -> None: ...


class ControlServer:
    """Made before calls are served, closed before they end."""

    def __init__(self, settings: ControlSettings, *, submit: Submit, observer: ControlObserver) -> None:
        """Take the socket's place.

        Raises:
            ControlError: the directory is not this user's alone, another process has the socket, or something else
                lies in its place.
        """
        self._path = settings.socket
        self._submit = submit
        self._observer = observer
        self._free = threading.Semaphore(MAX_CONNECTIONS)
        self._stopping = False
        self._connections: set[socket.socket] = set()
        self._changing = threading.Lock()
        _prepare_directory(self._path.parent)
        self._lock = _lock(self._path)
        try:
            self._listener = _listen(self._path)
        except BaseException:
            os.close(self._lock)
            raise
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)

    def start(self) -> None:
        """Begin to accept."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more, cut what is open, and leave the place as if nothing had been."""
        self._stopping = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        if self._thread.is_alive():
            self._thread.join(REQUEST_S)
        with self._changing:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        os.close(self._lock)

    def _run(self) -> None:
        while not self._stopping:
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                if not self._stopping:
                    _log.warning("control_accept_failed", error=error.strerror)
                    time.sleep(0.1)  # out of descriptors: nothing tells when there are some again
                continue
            self._take(connection)

    def _take(self, connection: socket.socket) -> None:
        uid = _peer_uid(connection)
        if uid not in (os.geteuid(), 0):
            self._turn_away(connection, "foreign_user", uid)
        elif not self._free.acquire(blocking=False):
            self._turn_away(connection, "too_many_connections", uid)
        else:
            with self._changing:
                self._connections.add(connection)
            threading.Thread(
                target=self._serve, args=(connection, uid), name="control-connection", daemon=True
            ).start()

    def _turn_away(self, connection: socket.socket, reason: str, uid: int) -> None:
        self._observer.control_refused(reason=reason, uid=uid)
        with connection, contextlib.suppress(OSError):
            connection.setblocking(False)
            connection.send(_line(refused(reason)))

    def _serve(self, connection: socket.socket, uid: int) -> None:
        try:
            with contextlib.suppress(OSError), connection:
                buffer = bytearray()
                while not self._stopping and (line := _read_line(connection, buffer)) is not None:
                    if len(line) > MAX_REQUEST_BYTES:  # what follows may be its rest, so no more is read
                        self._turn_away(connection, "too_long", uid)
                        return
                    answer = self._answer(line, uid)
                    connection.settimeout(REQUEST_S)
                    connection.sendall(_line(answer))
        finally:
            with self._changing:
                self._connections.discard(connection)
            self._free.release()

    def _answer(self, line: bytes, uid: int) -> Answer:
        try:
            request = parse_request(line)
        except ControlError as error:
            self._observer.control_refused(reason=str(error), uid=uid)
            return refused(str(error))
        if request.command.changes:
            self._observer.control_command(
                command=request.command.value, call_uid=request.call_uid, reason=request.reason, uid=uid
            )
        answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._submit(request, answers.put)
        try:
            return answers.get(timeout=ANSWER_S)
        except queue.Empty:
            return refused("no_answer_in_time")


def _read_line(connection: socket.socket, buffer: bytearray) -> bytes | None:
    """The next line without its end, a longer one cut just over the limit; None at the end, also of patience."""
    deadline = time.monotonic() + REQUEST_S
    while b"\n" not in buffer and len(buffer) <= MAX_REQUEST_BYTES:
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        connection.settimeout(left)
        data = connection.recv(MAX_REQUEST_BYTES)
        if not data:
            return None
        buffer += data
    line, _, rest = bytes(buffer).partition(b"\n")
    buffer[:] = rest if b"\n" in buffer else b""
    return line


def _line(answer: Answer) -> bytes:
    return json.dumps(answer, separators=(",", ":")).encode() + b"\n"


def _peer_uid(connection: socket.socket) -> int:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(raw)
    return int(uid)


def _prepare_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = os.lstat(directory)
    except OSError as error:
        raise ControlError(f"{directory}: {error.strerror}; name a directory that can be made") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise ControlError(
            f"{directory} must be a directory of this user alone; run: chmod 700 {directory}, or name another one"
        )


def _lock(path: Path) -> int:
    """Held for the life of the process, so that a socket found in its place is a dead process's."""
    lock = path.with_name(f"{path.name}.lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ControlError(
            f"{lock}: {error.strerror}; name a socket in a directory of this user's"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise ControlError(f"another process has {path}; give each process a socket of its own") from error
    return descriptor


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        with opened(path.parent) as directory:
            listener.bind(address(directory, path.name))
        path.chmod(0o600)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ControlError(f"{path}: {error.strerror}; name another place for the control socket") from error
    except ControlError:
        listener.close()
        raise
    return listener


def _remove_stale(path: Path) -> None:
    """A dead process's socket. Nobody else can have made it: the directory is ours and so is the lock."""
    try:
        is_socket = stat.S_ISSOCK(os.lstat(path).st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise ControlError(f"{path} is there and is no socket; move it away or name another place")
    path.unlink()
