"""A parsed configuration file: tables checked one by one, so that a fault in one hides none in another."""

from __future__ import annotations

import copy
import difflib
import functools
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, cast, get_args

from pydantic import ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined

from b2bua import config_values as values
from b2bua.config_keys import KEY_TABLES, KeyProviderName, KeyTable
from b2bua.config_lines import KeyPath, key_lines, line_of
from b2bua.config_shape_calls import SIP, TLS, LimitsTable, Media, RouteTable, TenantTable, TrunkTable
from b2bua.config_shape_index import IndexTable
from b2bua.config_shape_process import AuditTable, ControlTable, General, LogTable, MetricsTable, PostureTable
from b2bua.config_shape_recording import Recording
from b2bua.config_shape_sink import SinkTable
from b2bua.config_table import Table
from b2bua.errors import ConfigurationProblem

TableType = TypeVar("TableType", bound=Table)

SINGLE_TABLES: Mapping[str, type[Table]] = {
    "sip": SIP,
    "tls": TLS,
    "media": Media,
    "recording": Recording,
    "index": IndexTable,
    "metrics": MetricsTable,
    "limits": LimitsTable,
    "audit": AuditTable,
    "control": ControlTable,
    "log": LogTable,
    "posture": PostureTable,
}
REQUIRED_TABLES = ("sip", "tls", "media", "recording", "audit")
OPTIONAL_TABLES = ("metrics", "control")
"""Absent, they switch something off; the others have defaults."""
SINK_PATH: KeyPath = ("recording", "sink")
NAMED_TABLES = ("keys", "tenants", "trunks")
_SECRET_KEY = re.compile(
    r"^(?!.*_file$).*(?:password|passwd|passphrase|secret|credential|access_key|api_key|(?:^|_)(?:token|pin)$)",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(
    r"PRIVATE KEY-----|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|^[0-9a-fA-F]{64}$|://[^/@\s]+:[^/@\s]+@"
)
_REMOVE = "remove it and change it: key files are named by path, cloud credentials come from their own chain"


class Report:
    """Collects problems and knows the line of each key."""

    def __init__(self, path: Path, lines: dict[KeyPath, int]) -> None:
        self._path = path
        self._lines = lines
        self._secrets: set[KeyPath] = set()
        self.problems: list[ConfigurationProblem] = []

    def add_secret(self, key: KeyPath, what: str) -> None:
        """Refuse what stands at `key`. Nothing more is said of it, for a message might quote the secret."""
        self.add(key, what, _REMOVE)
        self._secrets.add(key)

    def add(self, key: KeyPath, what: str, cure: str) -> None:
        """Note one problem."""
        if key in self._secrets:
            return
        self.problems.append(
            ConfigurationProblem(
                path=str(self._path), line=line_of(self._lines, key), key=dotted(key), what=what, cure=cure
            )
        )

    def ordered(self) -> list[ConfigurationProblem]:
        """In the order of the file; what belongs to no line comes first."""
        return sorted(dict.fromkeys(self.problems), key=lambda problem: problem.line or 0)


def dotted(key: KeyPath) -> str:
    """`("trunks", "pbx", "sources", 0)` as `trunks.pbx.sources[0]`."""
    text = ""
    for part in key:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text or "(file)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Section(Generic[TableType]):
    """One table. `bad` names the fields of `value` that must not be looked at: they were refused or are missing."""

    path: KeyPath
    value: TableType
    bad: frozenset[str] = frozenset()

    def good(self, *names: str) -> bool:
        return self.bad.isdisjoint(names)

    def key(self, name: str) -> KeyPath:
        """The place of a field, by its name in the file."""
        return (*self.path, type(self.value).model_fields[name].alias or name)

    def is_set(self, name: str) -> bool:
        """Whether the file gives the field a value that was accepted."""
        return name in self.value.model_fields_set and name not in self.bad


@dataclass(slots=True, kw_only=True)
class Document:
    """Every table of a file; a single one that is absent and required, or not a table, is None."""

    directory: Path
    general: Section[General]
    sink: Section[SinkTable] = field(default_factory=lambda: Section(path=SINK_PATH, value=SinkTable()))
    sip: Section[SIP] | None = None
    tls: Section[TLS] | None = None
    media: Section[Media] | None = None
    recording: Section[Recording] | None = None
    index: Section[IndexTable] | None = None
    limits: Section[LimitsTable] | None = None
    metrics: Section[MetricsTable] | None = None
    audit: Section[AuditTable] | None = None
    control: Section[ControlTable] | None = None
    log: Section[LogTable] | None = None
    posture: Section[PostureTable] | None = None
    keys: dict[str, Section[KeyTable] | None] = field(default_factory=dict)
    tenants: dict[str, Section[TenantTable]] = field(default_factory=dict)
    trunks: dict[str, Section[TrunkTable]] = field(default_factory=dict)
    routes: list[Section[RouteTable]] = field(default_factory=list)

    def file(self, text: str) -> Path:
        """A path of the file as an absolute one: relative paths are relative to the file's directory."""
        return Path(self.directory / text)


def parse(text: str, path: Path) -> tuple[Document, Report]:
    """Read the text of `path`; what can't be read is in the report. A syntax error leaves an empty document."""
    directory = path.absolute().parent
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return _empty(directory), _syntax_report(path, error, text)
    report = Report(path, key_lines(text))
    _refuse_secrets(data, (), report)
    return _Reader(data, directory, report).document(), report


def _empty(directory: Path) -> Document:
    return Document(directory=directory, general=Section(path=(), value=General()))


def _syntax_report(path: Path, error: tomllib.TOMLDecodeError, text: str) -> Report:
    match = re.search(r"line (\d+)", str(error))
    line = int(match[1]) if match else text.count("\n") + 1
    report = Report(path, {("syntax",): line})
    report.add(
        ("syntax",),
        f"not valid TOML: {error}",
        "mend this line; texts need quotes, a key stands once in a table",
    )
    return report


class _Reader:
    def __init__(self, data: dict[str, Any], directory: Path, report: Report) -> None:
        self._data = data
        self._directory = directory
        self._report = report

    def document(self) -> Document:
        known = {*SINGLE_TABLES, *NAMED_TABLES, "routes"}
        sink = self._sink()
        general = {key: value for key, value in self._data.items() if key not in known}
        document = Document(directory=self._directory, general=self._section(General, general, ()))
        document.sink = sink
        for name, shape in SINGLE_TABLES.items():
            setattr(document, name, self._single(name, shape))
        document.keys = {name: self._key(name, table) for name, table in self._named("keys").items()}
        document.tenants = {
            name: self._section(TenantTable, table, ("tenants", name))
            for name, table in self._named("tenants").items()
        }
        document.trunks = {
            name: self._section(TrunkTable, table, ("trunks", name))
            for name, table in self._named("trunks").items()
        }
        document.routes = self._routes()
        return document

    def _sink(self) -> Section[SinkTable]:
        """The table within [recording], taken out of it: it is judged key by key like those at the top."""
        recording = self._data.get("recording")
        if not isinstance(recording, dict) or "sink" not in recording:
            return Section(path=SINK_PATH, value=SinkTable())
        self._data = {**self._data, "recording": {**recording}}
        table = self._table(self._data["recording"].pop("sink"), SINK_PATH)
        return (
            Section(path=SINK_PATH, value=SinkTable(), bad=frozenset({"kind"}))
            if table is None
            else (self._section(SinkTable, table, SINK_PATH))
        )

    def _single(self, name: str, shape: type[Table]) -> Section[Any] | None:
        if name not in self._data:
            if name in REQUIRED_TABLES:
                keys = _required_keys(shape) or _first_keys(shape)
                self._report.add((name,), f"the table [{name}] is missing", f"add it with {keys}")
                return None
            return None if name in OPTIONAL_TABLES else Section(path=(name,), value=shape())
        table = self._table(self._data[name], (name,))
        return None if table is None else self._section(shape, table, (name,))

    def _table(self, value: object, path: KeyPath) -> dict[str, Any] | None:
        if isinstance(value, dict):
            return value
        self._report.add(
            path, "must be a table", f"write [{dotted(path)}] on a line of its own and its keys below"
        )
        return None

    def _named(self, kind: str) -> dict[str, dict[str, Any]]:
        """The tables of a kind by name. Names that can't be used are reported and still count as declared."""
        tables = self._table(self._data.get(kind, {}), (kind,)) or {}
        if not tables:
            self._report.add(
                (kind,), f"there is no [{kind}.NAME] table", "add one; docs/configuration.md has the keys"
            )
        found = {}
        for name, value in tables.items():
            fault = values.name_fault(name)
            if fault is not None:
                self._report.add((kind, name), fault, "choose another name")
            table = self._table(value, (kind, name))
            if table is not None:
                found[name] = table
        return found

    def _key(self, name: str, table: dict[str, Any]) -> Section[KeyTable] | None:
        path = ("keys", name)
        known = {member.value: member for member in KeyProviderName}
        provider = table.get("provider")
        if not isinstance(provider, str) or provider not in known:
            what = "the key is missing" if provider is None else f"{provider!r} is not a key provider"
            allowed = " or ".join(f'"{value}"' for value in known)
            self._report.add((*path, "provider"), what, f"write provider = {allowed}")
            return None
        shape: type[Any] = KEY_TABLES[known[provider]]
        return self._section(shape, table, path)

    def _routes(self) -> list[Section[RouteTable]]:
        routes = self._data.get("routes", [])
        if not isinstance(routes, list) or not all(isinstance(route, dict) for route in routes):
            self._report.add(
                ("routes",), "must be an array of tables", "write each route under a line [[routes]]"
            )
            return []
        if not routes:
            self._report.add(
                ("routes",),
                "there is no route, so no call could go anywhere",
                "add [[routes]] with from and to",
            )
        return [self._section(RouteTable, route, ("routes", index)) for index, route in enumerate(routes)]

    def _section(self, shape: type[TableType], table: dict[str, Any], path: KeyPath) -> Section[TableType]:
        try:
            return Section(path=path, value=shape.model_validate(table))
        except ValidationError as error:
            details = error.errors(include_url=False)
        for detail in details:
            self._report_detail(shape, path, detail)
        by_place = {info.alias or name: name for name, info in shape.model_fields.items()}
        bad_places = {str(detail["loc"][0]) for detail in details}
        good = {
            place: value for place, value in table.items() if place in by_place and place not in bad_places
        }
        bad = frozenset(by_place[place] for place in bad_places if place in by_place)
        return Section(path=path, value=cast("TableType", _lenient(shape).model_validate(good)), bad=bad)

    def _report_detail(self, shape: type[Table], path: KeyPath, detail: ErrorDetails) -> None:
        location = detail["loc"]
        owner, leaf = _field_at(shape, location)
        key = (*path, *location)
        if detail["type"] == "extra_forbidden":
            self._report.add(key, *_unknown_key(owner, str(location[-1]), top_level=not path))
            return
        self._report.add(key, *_fault(detail, leaf))


def _field_at(shape: type[Table], location: Sequence[int | str]) -> tuple[type[Table], FieldInfo | None]:
    """The table class that holds the last key of `location`, and that key's field, if it has one."""
    owner: type[Table] = shape
    leaf: FieldInfo | None = None
    for part in location:
        if isinstance(part, int):
            continue
        owner = owner if leaf is None else _table_in(leaf.annotation) or owner
        leaf = next((info for name, info in owner.model_fields.items() if (info.alias or name) == part), None)
    return owner, leaf


def _table_in(annotation: Any) -> type[Table] | None:
    """The table class of a field that holds a table or may hold one."""
    choices = get_args(annotation) or (annotation,)
    return next((kind for kind in choices if isinstance(kind, type) and issubclass(kind, Table)), None)


def _unknown_key(shape: type[Table], name: str, *, top_level: bool) -> tuple[str, str]:
    allowed = [info.alias or field_name for field_name, info in shape.model_fields.items()]
    if top_level:
        allowed += [*SINGLE_TABLES, *NAMED_TABLES, "routes"]
    near = difflib.get_close_matches(name, allowed, n=1, cutoff=0.6)
    cure = f'did you mean "{near[0]}"?' if near else f"remove it; known here: {', '.join(sorted(allowed))}"
    return "unknown key", cure


_BOUND_TYPES = {
    "greater_than_equal": ("is below {ge}", "use {ge} or more"),
    "less_than_equal": ("is above {le}", "use {le} or less"),
    "multiple_of": ("is no multiple of {multiple_of}", "use a multiple of {multiple_of}"),
}
_TYPE_NAMES = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be a text in quotes",
    "list_type": "must be an array in square brackets",
    "model_type": "must be a table",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": "does not have the form of this key",
}


def _fault(detail: ErrorDetails, leaf: FieldInfo | None) -> tuple[str, str]:
    """What is wrong and what mends it, from pydantic's error and the field's own example."""
    context = detail.get("ctx", {})
    if detail["type"] == values.REFUSED:
        return str(context["what"]), str(context["cure"])
    example = (
        f"write it like {leaf.examples[0]}"
        if leaf is not None and leaf.examples
        else "see docs/configuration.md"
    )
    if detail["type"] == "missing":
        return "the key is missing", example.replace("write it", "add it,")
    if detail["type"] in _BOUND_TYPES:
        what, cure = _BOUND_TYPES[detail["type"]]
        return f"{detail['input']} {what.format(**context)}", cure.format(**context)
    return _TYPE_NAMES.get(detail["type"], detail["msg"]), example


def _required_keys(shape: type[Table]) -> str:
    return ", ".join(
        f"{info.alias or name} = {(info.examples or ['…'])[0]}"
        for name, info in shape.model_fields.items()
        if info.is_required()
    )


def _first_keys(shape: type[Table]) -> str:
    """For a table that no key is required of by itself: the two that come first."""
    fields = list(shape.model_fields.items())[:2]
    return ", ".join(f"{info.alias or name} = {(info.examples or ['…'])[0]}" for name, info in fields)


@functools.cache
def _lenient(shape: type[Table]) -> type[Table]:
    """`shape` with every required field absent as None, for a table whose bad fields were taken out."""
    fields: dict[str, Any] = {}
    for name, info in shape.model_fields.items():
        optional = copy.copy(info)
        if optional.default is PydanticUndefined:
            optional.default = None
        fields[name] = (info.annotation, optional)
    return create_model(shape.__name__, __base__=shape, **fields)


def _refuse_secrets(value: object, path: KeyPath, report: Report) -> None:
    """Report whatever looks like a secret, without quoting it."""
    if isinstance(value, dict):
        for key, child in value.items():
            if _SECRET_KEY.search(key) and not key.endswith("_file") and not isinstance(child, dict):
                report.add_secret((*path, key), "a secret has no place in this file")
            _refuse_secrets(child, (*path, key), report)
    elif isinstance(value, list):
        for index, child in enumerate(value):
            _refuse_secrets(child, (*path, index), report)
    elif isinstance(value, str) and _SECRET_VALUE.search(value):
        report.add_secret(path, "the value looks like a secret, which has no place in this file")
