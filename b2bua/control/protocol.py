"""What is said over the control socket: one JSON object a line, a request from the client, an answer for each.

Pure. Nothing here can carry a number: a call is named by its uid, a reason is a label, and answers hold ids, trunk
names, states and counts. Requests come from another process and are not trusted to be well-formed.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from b2bua.errors import ControlError

MAX_REQUEST_BYTES: Final = 1024
MAX_ANSWER_BYTES: Final = 1 << 20
"""A thousand calls at some 300 bytes, three times over."""

_CALL = re.compile(r"[0-9a-f]{32}")
_REASON = re.compile(r"[a-z][a-z0-9_.-]{0,63}")


class Command(enum.Enum):
    """What can be asked."""

    LIST = "list"
    SHOW = "show"
    PAUSE = "pause"
    RESUME = "resume"
    HANG_UP = "hang_up"

    @property
    def changes(self) -> bool:
        """Whether it does something, and so needs a reason and is audited."""
        return self in (Command.PAUSE, Command.RESUME, Command.HANG_UP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A command in the right form. `call_uid` "" for LIST; `reason` "" for what only looks."""

    command: Command
    call_uid: str = ""
    reason: str = ""

    def build(self) -> bytes:
        """The line."""
        values = {"command": self.command.value, "call": self.call_uid, "reason": self.reason}
        return json.dumps({name: value for name, value in values.items() if value}).encode() + b"\n"


Answer = Mapping[str, Any]


def is_reason(text: str) -> bool:
    """A label as the audit log takes them: no room for a name or number."""
    return _REASON.fullmatch(text) is not None and re.search(r"[0-9]{5}", text) is None


def is_call_uid(text: str) -> bool:
    """32 hex digits."""
    return _CALL.fullmatch(text) is not None


def accepted(**values: object) -> Answer:
    """The command was carried out."""
    return {"ok": True, **values}


def refused(error: str) -> Answer:
    """It was not; `error` is a label."""
    return {"ok": False, "error": error}


def parse_request(line: bytes) -> Request:
    """Read a client's line.

    Raises:
        ControlError: it is none; the message is a label for the answer and quotes nothing.
    """
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        raise ControlError("not_json") from None
    if not isinstance(values, dict) or not values.keys() <= {"command", "call", "reason"}:
        raise ControlError("malformed")
    if not all(isinstance(value, str) for value in values.values()):
        raise ControlError("malformed")
    try:
        command = Command(values.get("command"))
    except ValueError:
        raise ControlError("unknown_command") from None
    request = Request(command=command, call_uid=values.get("call", ""), reason=values.get("reason", ""))
    if (command is not Command.LIST) is not bool(is_call_uid(request.call_uid)):
        raise ControlError("bad_call_uid")
    if command.changes is not is_reason(request.reason):
        raise ControlError("bad_reason")
    return request


def parse_answer(line: bytes) -> Answer:
    """Read a server's line.

    Raises:
        ControlError: it is none.
    """
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ControlError(
            "the control socket gave an answer that is not JSON; is it this product's?"
        ) from error
    if not isinstance(values, dict) or not isinstance(values.get("ok"), bool):
        raise ControlError("the control socket gave an answer of another form; is it this product's?")
    return values
