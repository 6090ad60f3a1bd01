"""Where each key of a TOML document stands: `tomllib` gives values only, and an error without a line is half of one.

The scanner trusts that `tomllib` has accepted the text, so it follows structure and checks no syntax.
Source: TOML 1.0.0.
"""

from __future__ import annotations

import string

KeyPath = tuple[str | int, ...]
"""Keys from the root; an int is an index into an array, of tables or of values."""

_BARE = frozenset(string.ascii_letters + string.digits + "_-")
_BLANK = frozenset(" \t\r")
_SCALAR_END = frozenset(",]}#\n")
_SIMPLE_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", '"': '"', "\\": "\\"}
_CODE_POINT_DIGITS = {"u": 4, "U": 8}


def key_lines(text: str) -> dict[KeyPath, int]:
    """Map every key, table and array element of `text` to the 1-based line where it first appears.

    Args:
        text: a document that `tomllib.loads` accepts.
    """
    return _Scanner(text).scan()


def line_of(lines: dict[KeyPath, int], path: KeyPath) -> int | None:
    """The line of `path`, or of its nearest ancestor that stands in the document; None for the root."""
    for length in range(len(path), 0, -1):
        line = lines.get(path[:length])
        if line is not None:
            return line
    return None


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text.replace("\r\n", "\n")
        self._at = 0
        self._line = 1
        self._lines: dict[KeyPath, int] = {}
        self._last_index: dict[KeyPath, int] = {}

    def scan(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        while self._skip_blank_lines():
            if self._starts("[["):
                table = self._array_header()
            elif self._starts("["):
                table = self._table_header()
            else:
                self._key_value(table)
        return self._lines

    # --- characters

    def _starts(self, token: str) -> bool:
        return self._text.startswith(token, self._at)

    def _advance(self, count: int = 1) -> None:
        self._line += self._text.count("\n", self._at, self._at + count)
        self._at += count

    def _advance_to(self, position: int) -> None:
        self._advance(position - self._at)

    def _skip_blank(self) -> None:
        while self._at < len(self._text) and self._text[self._at] in _BLANK:
            self._at += 1

    def _skip_blank_lines(self) -> bool:
        """Pass white space, newlines and comments; False at the end of the text."""
        while self._at < len(self._text):
            here = self._text[self._at]
            if here == "#":
                end = self._text.find("\n", self._at)
                self._advance_to(len(self._text) if end < 0 else end)
            elif here in _BLANK or here == "\n":
                self._advance()
            else:
                return True
        return False

    # --- headers and keys

    def _array_header(self) -> KeyPath:
        self._advance(2)
        line, keys = self._line, self._dotted_key()
        self._skip_blank()
        self._advance(2)
        path = (*self._resolve(keys[:-1], line), keys[-1])
        self._lines.setdefault(path, line)
        self._last_index[path] = self._last_index.get(path, -1) + 1
        element: KeyPath = (*path, self._last_index[path])
        self._lines[element] = line
        return element

    def _table_header(self) -> KeyPath:
        self._advance()
        line, keys = self._line, self._dotted_key()
        self._skip_blank()
        self._advance()
        return self._resolve(keys, line)

    def _resolve(self, keys: list[str], line: int) -> KeyPath:
        """The path a header means: a name of an array of tables stands for its latest element."""
        path: KeyPath = ()
        for key in keys:
            path = (*path, key)
            self._lines.setdefault(path, line)
            if path in self._last_index:
                path = (*path, self._last_index[path])
        return path

    def _key_value(self, table: KeyPath) -> None:
        path = table
        line = self._line
        for key in self._dotted_key():
            path = (*path, key)
            self._lines.setdefault(path, line)
        self._skip_blank()
        self._advance()
        self._skip_blank()
        self._value(path)

    def _dotted_key(self) -> list[str]:
        keys = []
        while True:
            self._skip_blank()
            keys.append(self._simple_key())
            self._skip_blank()
            if not self._starts("."):
                return keys
            self._advance()

    def _simple_key(self) -> str:
        if self._starts('"') or self._starts("'"):
            return self._string()
        start = self._at
        while self._at < len(self._text) and self._text[self._at] in _BARE:
            self._at += 1
        return self._text[start : self._at]

    # --- values

    def _value(self, path: KeyPath) -> None:
        if self._starts('"') or self._starts("'"):
            self._string()
        elif self._starts("["):
            self._array(path)
        elif self._starts("{"):
            self._inline_table(path)
        else:
            while self._at < len(self._text) and self._text[self._at] not in _SCALAR_END:
                self._at += 1

    def _array(self, path: KeyPath) -> None:
        self._advance()
        index = 0
        while self._skip_blank_lines() and not self._starts("]"):
            if self._starts(","):
                self._advance()
                continue
            element = (*path, index)
            self._lines[element] = self._line
            self._value(element)
            index += 1
        self._advance()

    def _inline_table(self, path: KeyPath) -> None:
        self._advance()
        while self._skip_blank_lines() and not self._starts("}"):
            if self._starts(","):
                self._advance()
                continue
            self._key_value(path)
        self._advance()

    def _string(self) -> str:
        """Pass a string of any of the four kinds; its value, which only keys (never multi-line) need."""
        quote = self._text[self._at]
        if self._starts(quote * 3):
            self._multi_line(quote)
            return ""
        self._advance()
        characters = []
        while not self._starts(quote):
            if quote == '"' and self._starts("\\"):
                characters.append(self._escape())
            else:
                characters.append(self._text[self._at])
                self._advance()
        self._advance()
        return "".join(characters)

    def _escape(self) -> str:
        kind = self._text[self._at + 1]
        digits = _CODE_POINT_DIGITS.get(kind)
        if digits is None:
            self._advance(2)
            return _SIMPLE_ESCAPES[kind]
        code_point = int(self._text[self._at + 2 : self._at + 2 + digits], 16)
        self._advance(2 + digits)
        return chr(code_point)

    def _multi_line(self, quote: str) -> None:
        self._advance(3)
        while not self._starts(quote * 3):
            self._advance(2 if quote == '"' and self._starts("\\") else 1)
        self._advance(3)
        for _ in range(2):  # up to two quotes may stand right before the closing three
            if self._starts(quote):
                self._advance()
