"""How old a key may be, and what is said of one that is older."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from b2bua.key_age import AgeState, KeyAge, KeyKind

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def age(kind: KeyKind, days: float) -> KeyAge:
    return KeyAge(kind=kind, name="x", action="turn it", since=NOW - days * DAY)


@pytest.mark.parametrize(
    ("kind", "limit"),
    [
        (KeyKind.KEY_ENCRYPTION, 365),
        (KeyKind.INDEX, 90),
        (KeyKind.SEARCH, 90),
        (KeyKind.SIGNING, 90),
        (KeyKind.TOKEN, 90),
    ],
)
def test_each_kind_has_its_limit_and_a_fortnight_of_warning(kind: KeyKind, limit: int) -> None:
    found = {
        days: age(kind, days).state(NOW)
        for days in (0, limit - 15, limit - 14, limit - 0.01, limit, limit + 100)
    }
    assert list(found.values()) == [
        AgeState.OK, AgeState.OK, AgeState.DUE_SOON, AgeState.DUE_SOON, AgeState.OVERDUE, AgeState.OVERDUE,
    ]  # fmt: skip


def test_every_kind_is_judged() -> None:
    assert {kind for kind in KeyKind if kind.most_days is None} == {KeyKind.CERTIFICATE}


@pytest.mark.parametrize(
    ("left", "state"),
    [(30, AgeState.OK), (14, AgeState.DUE_SOON), (0, AgeState.OVERDUE), (-3, AgeState.OVERDUE)],
)
def test_a_certificate_ends_when_it_says(left: int, state: AgeState) -> None:
    certificate = KeyAge(kind=KeyKind.CERTIFICATE, name="tls", action="renew it", ends_at=NOW + left * DAY)
    assert certificate.state(NOW) is state


def test_what_has_no_known_age_is_not_called_young() -> None:
    unknown = KeyAge(kind=KeyKind.KEY_ENCRYPTION, name="x", action="turn it")
    assert unknown.state(NOW) is AgeState.UNKNOWN
    assert unknown.next_action(NOW) == "find out its age, or renew it: turn it"
    assert unknown.facts(NOW)["due"] is None


def test_the_next_action_says_when() -> None:
    assert age(KeyKind.INDEX, 0).next_action(NOW) == "none before 2026-08-30"
    assert age(KeyKind.INDEX, 80).next_action(NOW) == "by 2026-06-11: turn it"
    assert age(KeyKind.INDEX, 91).next_action(NOW) == "now: turn it"
    assert age(KeyKind.INDEX, 91).facts(NOW) == {
        "kind": "index", "name": "x", "age_days": 91, "limit_days": 90, "due": "2026-05-31", "state": "overdue",
        "next_action": "now: turn it",
    }  # fmt: skip
