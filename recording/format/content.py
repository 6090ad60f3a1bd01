"""What META, EVENT and FINAL records say, as JSON.

Source: docs/recording-format.md, Contents; RFC 8259, RFC 3339.

Every key may be absent and unknown keys are kept, so that a later minor version can add to them. These texts
carry
protected health information (numbers, names, exact times): they exist in memory and inside records, nowhere
else.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NoReturn

from recording.errors import MalformedContentError
from recording.format.record import COUNT_LEN, build_final

SAMPLE_FORMAT: Final = "s16le"
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")
_HEX: Final = re.compile(r"([0-9a-f]{2})+")


class RecordingKind(enum.Enum):
    """What a container holds."""

    AUDIO = "audio"
    ARTEFACT = "artefact"
    AUDIT = "audit"
    LOG = "log"


class ChannelLayout(enum.Enum):
    """`mixed`: one channel, both parties summed. `caller-called`: two channels, the caller's first."""

    MIXED = "mixed"
    CALLER_CALLED = "caller-called"

    @property
    def channels(self) -> int:
        return 1 if self is ChannelLayout.MIXED else 2


class EventKind(enum.Enum):
    """What can happen in a recording. `dtmf`: that a digit was sent, never which."""

    ANSWERED = "answered"
    PAUSE = "pause"
    RESUME = "resume"
    HOLD = "hold"
    UNHOLD = "unhold"
    DTMF = "dtmf"
    GAP = "gap"
    PARTY = "party"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingMeta:
    """META, the first record of a segment.

    `recording`, `previous`, `parent`, `sha256` are bytes here, hex in the file.

    `sip_call_ids`: leg A's, leg B's. `from_` and `to` are the parties as the call named them.
    """

    v: int | None = 1
    kind: RecordingKind | None = RecordingKind.AUDIO
    recording: bytes | None = None
    segment: int | None = 0
    previous: bytes | None = None
    started_at: datetime | None = field(default=None, repr=False)
    rate_hz: int | None = None
    channels: int | None = None
    layout: ChannelLayout | None = None
    sample_format: str | None = SAMPLE_FORMAT
    call_uid: str | None = None
    sip_call_ids: tuple[str, ...] | None = field(default=None, repr=False)
    from_: str | None = field(default=None, repr=False)
    to: str | None = field(default=None, repr=False)
    trunk_a: str | None = None
    trunk_b: str | None = None
    media_type: str | None = None
    sha256: bytes | None = None
    parent: bytes | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def build(self) -> bytes:
        """The payload of the META record."""
        return _build(self, _META, always=("previous",))


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingEvent:
    """EVENT.

    `channel` is None for both; `frames` is a length in sample frames where the event has one; `at` wall
    time.
    """

    event: EventKind
    channel: int | None = None
    frames: int | None = None
    at: datetime | None = field(default=None, repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def build(self) -> bytes:
        """The payload of the EVENT record."""
        return _build(self, _EVENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalInfo:
    """FINAL, the last record.

    `count`: records in the file with this one; `frames`: sample frames in this segment.

    `next`: file id of the segment that goes on where this one ends.
    """

    count: int
    frames: int | None = None
    ended_by: str | None = None
    reason: str | None = None
    next: bytes | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def build(self) -> bytes:
        """The payload of the FINAL record."""
        return build_final(self.count, _build(self, _FINAL, always=("next",)))


def parse_meta(payload: bytes | memoryview) -> RecordingMeta:
    """Read a META payload. Keys that are absent become None.

    Raises:
        MalformedContentError: not JSON, or a known key has a value of another type.
    """
    return RecordingMeta(**_parse(payload, "META", _META))


def parse_event(payload: bytes | memoryview) -> RecordingEvent:
    """Read an EVENT payload; raises MalformedContentError as `parse_meta`, also where `event` is absent."""
    values = _parse(payload, "EVENT", _EVENT)
    if values["event"] is None:
        raise MalformedContentError("EVENT.event is absent")
    return RecordingEvent(**values)


def parse_final(payload: bytes | memoryview) -> FinalInfo:
    """Read a FINAL payload; raises MalformedContentError as `parse_meta`, also where there is no count."""
    if len(payload) < COUNT_LEN:
        raise MalformedContentError(f"FINAL has {len(payload)} bytes, its count alone has {COUNT_LEN}")
    count = int.from_bytes(payload[:COUNT_LEN], "big")
    return FinalInfo(count=count, **_parse(payload[COUNT_LEN:], "FINAL", _FINAL))


# ---- JSON values -------------------------------------------------------------------------------------------


def _integer(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("is no whole number")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("is no string")  # noqa: TRY004 - bad input, not a caller's wrong type
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError("is no list")  # noqa: TRY004 - bad input, not a caller's wrong type
    return tuple(_text(item) for item in value)


def _identifier(value: object) -> bytes:
    text = _text(value)
    if not _HEX.fullmatch(text):
        raise ValueError("is not lower-case hex")
    return bytes.fromhex(text)


def _time(value: object) -> datetime:
    text = _text(value)
    if not _TIME.fullmatch(text):
        raise ValueError("is no RFC 3339 time")
    return datetime.fromisoformat(text.upper()).astimezone(UTC)


def _time_text(value: datetime) -> str:
    if value.tzinfo is None:
        raise ValueError("wall time must carry its zone")
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class _Key:
    """One JSON key: the dataclass field, how its value is read, how it is written."""

    attribute: str
    read: Callable[[object], Any]
    write: Callable[[Any], object] = lambda value: value


_META: Final[Mapping[str, _Key]] = {
    "v": _Key("v", _integer),
    "kind": _Key("kind", RecordingKind, lambda kind: kind.value),
    "recording": _Key("recording", _identifier, bytes.hex),
    "segment": _Key("segment", _integer),
    "previous": _Key("previous", _identifier, bytes.hex),
    "started_at": _Key("started_at", _time, _time_text),
    "rate_hz": _Key("rate_hz", _integer),
    "channels": _Key("channels", _integer),
    "layout": _Key("layout", ChannelLayout, lambda layout: layout.value),
    "sample_format": _Key("sample_format", _text),
    "call_uid": _Key("call_uid", _text),
    "sip_call_ids": _Key("sip_call_ids", _texts, list),
    "from": _Key("from_", _text),
    "to": _Key("to", _text),
    "trunk_a": _Key("trunk_a", _text),
    "trunk_b": _Key("trunk_b", _text),
    "media_type": _Key("media_type", _text),
    "sha256": _Key("sha256", _identifier, bytes.hex),
    "parent": _Key("parent", _identifier, bytes.hex),
}
_EVENT: Final[Mapping[str, _Key]] = {
    "event": _Key("event", EventKind, lambda event: event.value),
    "channel": _Key("channel", _integer),
    "frames": _Key("frames", _integer),
    "at": _Key("at", _time, _time_text),
}
_FINAL: Final[Mapping[str, _Key]] = {
    "frames": _Key("frames", _integer),
    "ended_by": _Key("ended_by", _text),
    "reason": _Key("reason", _text),
    "next": _Key("next", _identifier, bytes.hex),
}


def _build(
    content: RecordingMeta | RecordingEvent | FinalInfo,
    keys: Mapping[str, _Key],
    always: tuple[str, ...] = (),
) -> bytes:
    """JSON with the known keys in the order of the table, then the others.

    None is left out but for `always`.
    """
    values: dict[str, object] = {}
    for name, key in keys.items():
        value = getattr(content, key.attribute)
        if value is not None:
            values[name] = key.write(value)
        elif name in always:
            values[name] = None
    clash = content.extra.keys() & keys.keys()
    if clash:
        raise ValueError(f"extra keys {sorted(clash)} are known keys")
    values.update(content.extra)
    # A lone surrogate cannot be UTF-8; it can only come from a peer's bytes decoded leniently, so it is
    # replaced.
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _parse(payload: bytes | memoryview, record: str, keys: Mapping[str, _Key]) -> dict[str, Any]:
    """Field values by dataclass field, `extra` included."""
    try:
        found = json.loads(bytes(payload).decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise MalformedContentError(f"{record} is not JSON") from error
    if not isinstance(found, dict):
        raise MalformedContentError(f"{record} is no JSON object")
    values: dict[str, Any] = {key.attribute: None for key in keys.values()}
    for name, key in keys.items():
        value = found.pop(name, None)
        if value is None:
            continue
        try:
            values[key.attribute] = key.read(value)
        except ValueError as error:
            # The value itself stays out of the message: it may be a number or a name.
            raise MalformedContentError(f"{record}.{name} cannot be read: {_reason(error)}") from None
    values["extra"] = found
    return values


def _reason(error: ValueError) -> str:
    """Our own wording; an enum's message would quote the value."""
    text = str(error)
    return text if text.startswith("is ") else "is not one of the known words"


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
