"""Every key that tomllib finds has a line, and it is the line where a reader would look for it."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b2bua.config_lines import KeyPath, key_lines, line_of

DOCUMENTS = {
    "plain": "a = 1\nb = 2\n",
    "tables": "[a]\nx = 1\n\n[b.c]\ny = 2\n",
    "dotted": "a.b.c = 1\na.b.d = 2\n[t]\nx.y = 3\n",
    "quoted": '"a b" = 1\n\'c.d\'.e = 2\n["x.y".\'z\']\n"q\\"r\\u00e9" = 3\n',
    "arrays of tables": "[[r]]\nx = 1\n[[r]]\nx = 2\n[[r]]\n",
    "nested arrays of tables": "[[r]]\n[[r.s]]\nx = 1\n[[r.s]]\n[r.t]\ny = 1\n[[r]]\n[[r.s]]\nz = 1\n",
    "inline": "a = { b = 1, c.d = [1, { e = 2 }], 'f' = {} }\n",
    "multi-line array": 'a = [\n  "x", # one ]\n  # [nothing]\n  ["y",\n "z"],\n]\nb = 1\n',
    "multi-line strings": "a = \"\"\"\nx = 1\n[t]\n\"\"\"\nb = '''\n# no\n'''\nc = 1\n",
    "quotes in multi-line": 'a = """x"""""\nb = """\\""" y"""\nc = \'\'\'\'x\'\'\'\'\'\nd = 1\n',
    "escaped line ends": 'a = """one \\\n   two \\\n\n three"""\nb = 1\n',
    "hash in text": "a = \"# no\" # yes = 1\nb = '#'\n",
    "scalars": "a = 1979-05-27 07:32:00\nb = 1_000\nc = +inf\nd = 07:32:00\ne = true\nf = -1.5e3\n",
    "windows": 'a = 1\r\n[t]\r\nb = """\r\nx\r\n"""\r\nc = 2\r\n',
    "no final newline": "[a]\nb = [1]",
    "blank header": "[ a . b ]\n x = 1\n\t[[ c ]] # end\ny=1\n",
    "empty": "",
    "comments": "# a = 1\n\n   # b\n",
    "supertable later": "[a.b]\nx = 1\n[a]\ny = 2\n",
}


def paths(value: Any, at: KeyPath = ()) -> set[KeyPath]:
    """Every key, table and element of a parsed document."""
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    found = {at} if at else set()
    for key, child in children:
        found |= paths(child, (*at, key))
    return found


@pytest.mark.parametrize("text", DOCUMENTS.values(), ids=DOCUMENTS.keys())
def test_finds_what_tomllib_finds(text: str) -> None:
    assert set(key_lines(text)) == paths(tomllib.loads(text))


@pytest.mark.parametrize(
    ("document", "path", "line"),
    [
        ("plain", ("b",), 2),
        ("tables", ("b", "c", "y"), 5),
        ("dotted", ("a", "b", "d"), 2),
        ("dotted", ("a",), 1),
        ("quoted", ("x.y", "z", 'q"ré'), 4),
        ("arrays of tables", ("r", 1, "x"), 4),
        ("arrays of tables", ("r", 2), 5),
        ("nested arrays of tables", ("r", 1, "s", 0, "z"), 9),
        ("multi-line array", ("a", 0), 2),
        ("multi-line array", ("a", 1, 1), 5),
        ("multi-line array", ("b",), 7),
        ("multi-line strings", ("c",), 8),
        ("quotes in multi-line", ("d",), 4),
        ("escaped line ends", ("b",), 5),
        ("windows", ("t", "c"), 6),
        ("supertable later", ("a", "y"), 4),
    ],
)
def test_line_of_a_key(document: str, path: KeyPath, line: int) -> None:
    assert key_lines(DOCUMENTS[document])[path] == line


def test_absent_keys_take_the_line_of_what_would_hold_them() -> None:
    lines = key_lines("a = 1\n[b]\nc = 2\n")
    assert line_of(lines, ("b", "missing", "deeper")) == 2
    assert line_of(lines, ("missing",)) is None


BARE_KEYS = st.from_regex(r"[A-Za-z0-9_-]{1,6}", fullmatch=True)
QUOTED_KEYS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=6)
KEYS = BARE_KEYS | QUOTED_KEYS
TEXTS = st.text(
    st.sampled_from("ab#[]{}=,.'\n\t ") | st.characters(exclude_categories=["Cs", "Cc"]), max_size=12
)
SCALARS = st.integers(-999, 999) | st.booleans() | TEXTS
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
TABLES = st.dictionaries(KEYS, VALUES, max_size=4)
DOCUMENT = st.tuples(
    TABLES, st.dictionaries(KEYS, TABLES | st.lists(TABLES, min_size=1, max_size=3), max_size=4)
)


def escaped(text: str, *, keep_newlines: bool = False) -> str:
    kept = "\n" if keep_newlines else ""
    return "".join(
        character
        if character in kept or (character.isprintable() and character not in '"\\')
        else f"\\U{ord(character):08x}"
        for character in text
    )


class Emitter:
    """Writes TOML in many of its spellings and notes the line of each key by counting what it wrote."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.text = ""
        self.lines: dict[KeyPath, int] = {}

    def line(self) -> int:
        return self.text.count("\n") + 1

    def choose(self, *spellings: str) -> None:
        self.text += self.data.draw(st.sampled_from(spellings))

    def key(self, key: str) -> None:
        if key and all(c.isascii() and (c.isalnum() or c in "_-") for c in key):
            self.choose(key, f'"{key}"', f"'{key}'")
        else:
            self.text += f'"{escaped(key)}"'

    def pair(self, key: str, value: object, at: KeyPath) -> None:
        self.lines[(*at, key)] = self.line()
        self.key(key)
        self.choose("=", " = ", "\t=")
        self.value(value, (*at, key))

    def value(self, value: object, at: KeyPath) -> None:
        if isinstance(value, bool):
            self.text += str(value).lower()
        elif isinstance(value, int):
            self.text += str(value)
        elif isinstance(value, str):
            self.choose(f'"{escaped(value)}"', f'"""\n{escaped(value, keep_newlines=True)}"""')
        elif isinstance(value, list):
            self.text += "["
            for index, child in enumerate(value):
                self.choose("", "\n", " # a comment, [not] = an element\n")
                self.lines[(*at, index)] = self.line()
                self.value(child, (*at, index))
                self.choose(",", " ,\n")
            self.text += "]"
        elif isinstance(value, dict):
            self.text += "{"
            for index, (key, child) in enumerate(value.items()):
                self.text += ", " if index else " "
                self.pair(key, child, at)
            self.text += " }"

    def table(self, table: dict[str, object], at: KeyPath) -> None:
        for key, value in table.items():
            self.choose("", "\n", "# comment = 1\n", "  ")
            self.pair(key, value, at)
            self.choose("\n", " # [end]\n", "\r\n")


@given(st.data())
def test_lines_of_generated_documents(data: st.DataObject) -> None:
    head, rest = data.draw(DOCUMENT)
    emitter = Emitter(data)
    emitter.table(head, ())
    for name, content in rest.items():
        if name in head:
            continue
        for index, table in enumerate(content if isinstance(content, list) else [content]):
            is_array = isinstance(content, list)
            at: KeyPath = (name, index) if is_array else (name,)
            emitter.lines.setdefault((name,), emitter.line())
            emitter.lines[at] = emitter.line()
            emitter.text += "[[" if is_array else "["
            emitter.key(name)
            emitter.text += "]]\n" if is_array else "]\n"
            emitter.table(table, at)
            emitter.text += "\n"
    assert set(emitter.lines) == paths(tomllib.loads(emitter.text))
    assert key_lines(emitter.text) == emitter.lines
