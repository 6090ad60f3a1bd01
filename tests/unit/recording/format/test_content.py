"""The JSON of META, EVENT and FINAL: exact bytes out, tolerant of absence, strict about types, silent about values."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from recording.errors import MalformedContentError
from recording.format.content import (
    ChannelLayout,
    EventKind,
    FinalInfo,
    RecordingEvent,
    RecordingKind,
    RecordingMeta,
    parse_event,
    parse_final,
    parse_meta,
)

META = RecordingMeta(
    recording=b"\xab" * 16,
    segment=2,
    previous=b"\xcd" * 16,
    started_at=datetime(2026, 1, 2, 3, 4, 5, 678_900, tzinfo=UTC),
    rate_hz=16000,
    channels=2,
    layout=ChannelLayout.CALLER_CALLED,
    call_uid="uid",
    sip_call_ids=("a", "b"),
    from_="sip:a@example",
    to="sip:b@example",
    trunk_a="one",
    trunk_b="two",
)
META_JSON = (
    '{"v":1,"kind":"audio","recording":"' + "ab" * 16 + '","segment":2,"previous":"' + "cd" * 16 + '",'
    '"started_at":"2026-01-02T03:04:05.678Z","rate_hz":16000,"channels":2,"layout":"caller-called",'
    '"sample_format":"s16le","call_uid":"uid","sip_call_ids":["a","b"],"from":"sip:a@example","to":"sip:b@example",'
    '"trunk_a":"one","trunk_b":"two"}'
)


def test_meta_has_the_keys_of_the_format_in_their_order() -> None:
    assert META.build().decode() == META_JSON


def test_meta_comes_back_as_it_was_to_the_millisecond() -> None:
    parsed = parse_meta(META.build())
    assert parsed.started_at == datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
    assert parsed.build() == META.build()


def test_meta_of_an_artefact_names_its_parent_and_hash() -> None:
    meta = RecordingMeta(
        kind=RecordingKind.ARTEFACT, media_type="text/plain", sha256=b"\1" * 32, parent=b"\2" * 16
    )
    found = json.loads(meta.build())
    assert (found["kind"], found["media_type"]) == ("artefact", "text/plain")
    assert (found["sha256"], found["parent"]) == ("01" * 32, "02" * 16)
    assert parse_meta(meta.build()) == meta


def test_the_first_segment_says_that_nothing_came_before() -> None:
    assert json.loads(RecordingMeta().build())["previous"] is None
    assert json.loads(FinalInfo(count=1).build()[8:])["next"] is None


def test_unknown_keys_are_kept() -> None:
    parsed = parse_meta(b'{"v":1,"codec":{"name":"x"},"previous":null}')
    assert parsed.extra == {"codec": {"name": "x"}}
    assert json.loads(parsed.build())["codec"] == {"name": "x"}


def test_absent_keys_are_none() -> None:
    parsed = parse_meta(b"{}")
    assert (parsed.v, parsed.rate_hz, parsed.recording, parsed.kind) == (None, None, None, None)


def test_a_known_key_cannot_hide_among_the_unknown() -> None:
    with pytest.raises(ValueError, match="from"):
        RecordingMeta(extra={"from": "x"}).build()


def test_a_time_without_zone_is_not_written() -> None:
    with pytest.raises(ValueError, match="zone"):
        RecordingMeta(started_at=datetime(2026, 1, 1)).build()  # noqa: DTZ001


def test_a_time_of_another_zone_is_written_in_utc() -> None:
    local = datetime(2026, 1, 1, 1, 0, tzinfo=timezone(timedelta(hours=2)))
    assert b'"2025-12-31T23:00:00.000Z"' in RecordingMeta(started_at=local).build()


@pytest.mark.parametrize(
    "text", ["2026-01-02T03:04:05Z", "2026-01-02t03:04:05.000z", "2026-01-02T05:04:05+02:00"]
)
def test_times_of_rfc_3339_are_read(text: str) -> None:
    parsed = parse_meta(json.dumps({"started_at": text}).encode())
    assert parsed.started_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_text_that_is_no_unicode_does_not_stop_a_recording() -> None:
    assert b"sip:?@example" in RecordingMeta(from_="sip:\udcff@example").build()


@pytest.mark.parametrize("kind", list(EventKind))
def test_each_event_comes_back(kind: EventKind) -> None:
    event = RecordingEvent(
        event=kind, channel=1, frames=160, at=datetime(2026, 1, 1, tzinfo=UTC), extra={"x": 1}
    )
    assert parse_event(event.build()) == event
    assert json.loads(event.build()) == {
        "event": kind.value, "channel": 1, "frames": 160, "at": "2026-01-01T00:00:00.000Z", "x": 1,
    }  # fmt: skip


def test_an_event_without_its_name_is_refused() -> None:
    with pytest.raises(MalformedContentError, match=r"EVENT\.event"):
        parse_event(b"{}")


def test_final_is_a_count_and_json() -> None:
    final = FinalInfo(count=258, frames=7, ended_by="a", reason="bye", next=b"\3" * 16)
    assert final.build()[:8] == bytes.fromhex("0000000000000102")
    assert json.loads(final.build()[8:]) == {"frames": 7, "ended_by": "a", "reason": "bye", "next": "03" * 16}
    assert parse_final(memoryview(final.build())) == final


def test_a_final_too_short_for_its_count_is_refused() -> None:
    with pytest.raises(MalformedContentError, match="7 bytes"):
        parse_final(b"1234567")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("v", "1"), ("v", True), ("v", -1), ("v", 1.0),
        ("kind", "video"), ("kind", []), ("layout", "5.1"),
        ("recording", "AB"), ("recording", "abc"), ("recording", ""), ("recording", 5), ("previous", "zz"),
        ("started_at", "2026-01-02"), ("started_at", "2026-13-02T00:00:00Z"), ("started_at", "2026-01-02T03:04:05"),
        ("started_at", 0), ("rate_hz", "8000"), ("channels", [1]),
        ("sip_call_ids", "ab"), ("sip_call_ids", [1, 2]), ("from", 49301), ("to", {}), ("sha256", "g0"),
    ],
)  # fmt: skip
def test_a_known_key_of_another_type_is_named_and_its_value_is_not(name: str, value: object) -> None:
    with pytest.raises(MalformedContentError, match=rf"META\.{name} cannot be read") as caught:
        parse_meta(json.dumps({name: value}).encode())
    if isinstance(value, str) and len(value) > 2:
        assert value not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "payload",
    [b"", b"[]", b"1", b"null", b"{", b"\xff{}", b'{"v":NaN}', b'{"v":1}x', b"[" * 4000, b'{"x":' * 4000],
)
def test_what_is_no_json_object_is_refused(payload: bytes) -> None:
    with pytest.raises(MalformedContentError):
        parse_meta(payload)


@pytest.mark.parametrize("secret", ["sip:a@example", "sip:b@example"])
def test_repr_shows_no_party(secret: str) -> None:
    assert secret not in repr(META)
    assert "2026" not in repr(META)
