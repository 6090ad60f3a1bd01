"""The control socket: who may connect, what is read, and what is left of a dead process."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from b2bua.control import server as module
from b2bua.control.client import ask
from b2bua.control.protocol import (
    MAX_REQUEST_BYTES,
    Answer,
    Command,
    Request,
    accepted,
    is_reason,
    parse_answer,
    parse_request,
    refused,
)
from b2bua.control.server import MAX_CONNECTIONS, ControlServer
from b2bua.errors import ControlError, RefusedCommandError
from b2bua.settings import ControlSettings

UID = "0123456789abcdef" * 2
PAUSE = Request(command=Command.PAUSE, call_uid=UID, reason="card_number")
NOBODY = 65534


@dataclass
class Listening:
    """What the server told, and how it answers."""

    commands: list[tuple[str, str, str, int]] = field(default_factory=list)
    refusals: list[tuple[str, int]] = field(default_factory=list)
    asked: list[Request] = field(default_factory=list)
    answer: Callable[[Request], Answer | None] = lambda request: accepted(command=request.command.value)

    def control_command(self, *, command: str, call_uid: str, reason: str, uid: int) -> None:
        self.commands.append((command, call_uid, reason, uid))

    def control_refused(self, *, reason: str, uid: int) -> None:
        self.refusals.append((reason, uid))

    def submit(self, request: Request, reply: Callable[[Answer], None]) -> None:
        """Answers on another thread, as the SIP thread does."""
        self.asked.append(request)
        answer = self.answer(request)
        if answer is not None:
            threading.Thread(target=reply, args=(answer,)).start()


@pytest.fixture
def listening() -> Listening:
    return Listening()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "control.sock"


@pytest.fixture
def served(path: Path, listening: Listening) -> Iterator[Path]:
    server = ControlServer(ControlSettings(socket=path), submit=listening.submit, observer=listening)
    server.start()
    yield path
    server.stop()


def exchange(path: Path, data: bytes) -> bytes:
    """Everything that comes back for some bytes, until the server closes or the line ends."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        connection.sendall(data)
        received = b""
        while not received.endswith(b"\n") and (part := connection.recv(65536)):
            received += part
    return received


def test_a_command_is_asked_answered_and_told_to_the_audit(served: Path, listening: Listening) -> None:
    assert ask(served, PAUSE) == accepted(command="pause")
    assert listening.asked == [PAUSE]
    assert listening.commands == [("pause", UID, "card_number", os.geteuid())]
    assert ask(served, Request(command=Command.LIST))["command"] == "list"
    assert len(listening.commands) == 1, "looking is no change"


def test_a_deployment_may_lie_deep(tmp_path: Path, listening: Listening) -> None:
    """Its path is longer than a socket's address may be; what others may enter is refused there too."""
    path = tmp_path / ("deep-" * 20) / ("deeper-" * 20) / "run" / "control.sock"
    server = ControlServer(ControlSettings(socket=path), submit=listening.submit, observer=listening)
    server.start()
    assert ask(path, PAUSE)["ok"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    server.stop()
    assert not path.exists()


def test_the_place_is_this_users_alone(served: Path) -> None:
    assert stat.S_IMODE(served.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(served.stat().st_mode) == 0o600


def test_a_refusal_is_an_error_of_its_own(served: Path, listening: Listening) -> None:
    listening.answer = lambda request: refused("no_such_call")
    with pytest.raises(RefusedCommandError, match="calls list"):
        ask(served, PAUSE)


def test_a_process_that_does_not_answer_is_not_waited_for_long(
    served: Path, listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_S", 0.1)
    listening.answer = lambda request: None
    with pytest.raises(RefusedCommandError, match="in time"):
        ask(served, PAUSE)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"pause", "not_json"),
        (b"[" * 900, "not_json"),
        (b"[]", "malformed"),
        (b'{"command":"list","calls":"x"}', "malformed"),
        (b'{"command":5}', "malformed"),
        (b'{"command":"stop"}', "unknown_command"),
        (b"{}", "unknown_command"),
        (b'{"command":"show"}', "bad_call_uid"),
        (b'{"command":"show","call":"../../etc"}', "bad_call_uid"),
        (b'{"command":"list","call":"%s"}' % UID.encode(), "bad_call_uid"),
        (b'{"command":"pause","call":"%s"}' % UID.encode(), "bad_reason"),
        (b'{"command":"pause","call":"%s","reason":"4111111111111111"}' % UID.encode(), "bad_reason"),
        (b'{"command":"pause","call":"%s","reason":"card_41111"}' % UID.encode(), "bad_reason"),
        (b'{"command":"pause","call":"%s","reason":"Mrs Miller"}' % UID.encode(), "bad_reason"),
        (b'{"command":"show","call":"%s","reason":"x"}' % UID.encode(), "bad_reason"),
    ],
)
def test_a_request_of_another_form_is_refused_and_the_next_one_taken(
    served: Path, listening: Listening, line: bytes, error: str
) -> None:
    assert json.loads(exchange(served, line + b"\n")) == refused(error)
    assert listening.asked == []
    assert listening.refusals == [(error, os.geteuid())]
    assert ask(served, PAUSE)["ok"]


def test_several_requests_on_one_connection(served: Path) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(served))
        connection.sendall(b"nonsense\n" + PAUSE.build() + PAUSE.build())
        lines = connection.makefile("rb")
        assert [json.loads(lines.readline())["ok"] for _ in range(3)] == [False, True, True]


def test_a_line_without_an_end_closes_the_connection(served: Path, listening: Listening) -> None:
    answer = exchange(served, b"x" * (2 * MAX_REQUEST_BYTES))
    assert answer in (b"", b'{"ok":false,"error":"too_long"}\n')
    assert ("too_long", os.geteuid()) in listening.refusals
    assert ask(served, PAUSE)["ok"]


def test_a_client_that_says_nothing_is_left(
    served: Path, monkeypatch: pytest.MonkeyPatch, listening: Listening
) -> None:
    monkeypatch.setattr(module, "REQUEST_S", 0.1)
    assert exchange(served, b'{"command"') == b""
    assert listening.asked == []


def test_connections_are_few(served: Path, listening: Listening) -> None:
    held = []
    for _ in range(MAX_CONNECTIONS):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(10)
        connection.connect(str(served))
        connection.sendall(PAUSE.build())
        assert connection.recv(4096)
        held.append(connection)
    with pytest.raises(RefusedCommandError, match="too many"):
        ask(served, PAUSE)
    for connection in held:
        connection.close()
    answers = [exchange(served, PAUSE.build()) for _ in range(50)]
    assert json.loads(answers[-1])["ok"]


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_another_user_is_turned_away_even_where_the_modes_let_him_in(
    served: Path, listening: Listening
) -> None:
    connect = (
        "import os, socket, sys\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        "os.chdir(sys.argv[1])\n"
        "os.setuid(int(sys.argv[2]))\n"
        "s.settimeout(10)\n"
        "s.connect('control.sock')\n"
        "try:\n    s.sendall(sys.argv[3].encode())\nexcept BrokenPipeError:\n    pass\n"
        "print(s.recv(4096).decode())\n"
    )
    served.chmod(0o666)
    served.parent.chmod(0o755)

    def as_user(uid: int) -> str:
        command = [sys.executable, "-c", connect, str(served.parent), str(uid), PAUSE.build().decode()]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout

    assert "foreign_user" in as_user(NOBODY)
    assert listening.asked == []
    assert listening.refusals == [("foreign_user", NOBODY)]
    assert json.loads(as_user(0))["ok"]


def test_a_dead_process_leaves_no_obstacle_and_a_live_one_is_one(path: Path, listening: Listening) -> None:
    path.parent.mkdir(mode=0o700)
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    assert path.is_socket()
    server = ControlServer(ControlSettings(socket=path), submit=listening.submit, observer=listening)
    server.start()
    assert ask(path, PAUSE)["ok"]
    with pytest.raises(ControlError, match="another process"):
        ControlServer(ControlSettings(socket=path), submit=listening.submit, observer=listening)
    assert ask(path, PAUSE)["ok"], "the live one keeps its socket"
    server.stop()
    assert not path.exists()
    again = ControlServer(ControlSettings(socket=path), submit=listening.submit, observer=listening)
    again.start()
    assert ask(path, PAUSE)["ok"]
    again.stop()


def test_what_is_no_socket_is_left_alone(path: Path, listening: Listening) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_text("precious")
    with pytest.raises(ControlError, match="no socket"):
        ControlServer(ControlSettings(socket=path), submit=listening.submit, observer=listening)
    assert path.read_text() == "precious"


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o777])
def test_a_directory_that_others_may_enter_is_refused(path: Path, listening: Listening, mode: int) -> None:
    path.parent.mkdir()
    path.parent.chmod(mode)
    with pytest.raises(ControlError, match="chmod 700"):
        ControlServer(ControlSettings(socket=path), submit=listening.submit, observer=listening)


def test_a_link_in_place_of_the_directory_is_refused(
    path: Path, tmp_path: Path, listening: Listening
) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    path.parent.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ControlError, match="this user alone"):
        ControlServer(ControlSettings(socket=path), submit=listening.submit, observer=listening)


def test_nobody_there(path: Path) -> None:
    with pytest.raises(ControlError, match="b2bua serve"):
        ask(path, PAUSE)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400", b"[]", b'{"ok":1}', b"", b"x" * (1 << 21)])
def test_an_answer_of_something_else(tmp_path: Path, answer: bytes) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "other.sock"))
    listener.listen()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            try:
                connection.sendall(answer + (b"\n" if 0 < len(answer) < 100 else b""))
            except OSError:
                return

    thread = threading.Thread(target=serve)
    thread.start()
    with listener, pytest.raises(ControlError, match="this product"):
        ask(tmp_path / "other.sock", PAUSE)
    thread.join(10)


def test_requests_survive_their_line() -> None:
    for command in Command:
        request = Request(
            command=command,
            call_uid="" if command is Command.LIST else UID,
            reason="why.not-1" if command.changes else "",
        )
        assert parse_request(request.build()) == request
    assert parse_answer(b'{"ok":true}') == accepted()
    assert [is_reason(text) for text in ("", "a" * 65, "a" * 64)] == [False, False, True]
