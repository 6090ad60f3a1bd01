"""The asking side of the control socket, for the command line."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from b2bua.control.place import address, opened
from b2bua.control.protocol import MAX_ANSWER_BYTES, Answer, Request, parse_answer
from b2bua.control.server import ANSWER_S, REQUEST_S
from b2bua.errors import ControlError, RefusedCommandError

_CURES = {
    "no_such_call": "no live call has this uid; `b2bua calls list` shows those there are",
    "not_recorded": "the call is not recorded, so there is nothing to pause",
    "not_paused": "the recording is not paused",
    "ending": "the call is ending",
    "ended": "the call ended before this could be done",
    "foreign_user": "the socket serves the process's own user and root only",
    "too_many_connections": "too many commands at once; try again",
    "no_answer_in_time": "the process did not answer in time; it may be overloaded, see its metrics",
    "internal": "the process failed to carry it out; its log says more",
}


def ask(path: Path, request: Request) -> Answer:
    """One request, one answer.

    Raises:
        ControlError: nobody listens there, or what answers is not this product.
        RefusedCommandError: the process would not do it.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_S + REQUEST_S)
        try:
            with opened(path.parent) as directory:
                connection.connect(address(directory, path.name))
            with contextlib.suppress(BrokenPipeError):  # turned away: the answer says why
                connection.sendall(request.build())
            answer = parse_answer(_read_line(connection))
        except OSError as error:
            reason = error.strerror or "no answer in time"
            raise ControlError(
                f"{path}: {reason}; is `b2bua serve` running with this configuration, as this user?"
            ) from error
    if not answer["ok"]:
        error_label = str(answer.get("error"))
        raise RefusedCommandError(
            f"refused: {error_label}; {_CURES.get(error_label, 'see docs/operations.md')}"
        )
    return answer


def _read_line(connection: socket.socket) -> bytes:
    data = bytearray()
    while b"\n" not in data:
        part = connection.recv(65536)
        data += part
        if not part or len(data) > MAX_ANSWER_BYTES:
            raise ControlError("the control socket gave no whole answer; is it this product's?")
    return bytes(data)
