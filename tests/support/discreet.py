"""What log and audit must never hold, whatever a test made happen."""

from __future__ import annotations

import re
from typing import Final

from support.edge import CALLEE_USER, CALLER_USER
from support.torture import KEY, NUMBER

_SECRETS: Final = ("inline:", "a=crypto", "sip:", "sips:", "tel:", NUMBER, KEY)
_USERS: Final = re.compile(rf"\b(?:{CALLER_USER}|{CALLEE_USER})\b")


def assert_discreet(text: str) -> None:
    """No key, no URI and no number in the text of a log or an audit."""
    for secret in _SECRETS:
        assert secret not in text, f"{secret} in {text[max(0, text.index(secret) - 300) :][:600]}"
    found = _USERS.search(text)
    assert found is None, text[max(0, found.start() - 300) :][:600] if found else ""
