"""Routes: longest prefix, rewrite, none."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

import pytest

from b2bua.call.routing import find_destination, is_emergency
from b2bua.settings import Route, SIPTarget, TrunkSettings, URIScheme


def trunk(name: str, target: SIPTarget | None) -> TrunkSettings:
    return TrunkSettings(
        name=name,
        identities=frozenset({f"{name}.example.test"}),
        sources=(ipaddress.ip_network("127.0.0.0/8"),),
        target=target,
        tenant="clinic",
    )


@dataclass(frozen=True)
class Table:
    routes: tuple[Route, ...]
    trunks: dict[str, TrunkSettings]


SIPS = SIPTarget(scheme=URIScheme.SIPS, host="carrier.example.test", port=5071)
SIP = SIPTarget(scheme=URIScheme.SIP, host="::1")
TABLE = Table(
    routes=(
        Route(source="pbx", destination="carrier"),
        Route(source="pbx", destination="six", prefix="00", strip=2, prepend="+"),
    ),
    trunks={"pbx": trunk("pbx", None), "carrier": trunk("carrier", SIPS), "six": trunk("six", SIP)},
)


@pytest.mark.parametrize(
    ("user", "uri"),
    [
        ("2001", "sips:2001@carrier.example.test:5071"),
        ("00441", "sip:+441@[::1];transport=tls"),
        (None, "sips:carrier.example.test:5071"),
    ],
)
def test_longest_prefix_wins_and_rewrites(user: str | None, uri: str) -> None:
    found = find_destination(TABLE, "pbx", user)  # type: ignore[arg-type]
    assert found is not None
    assert found.request_uri == uri


def test_no_route() -> None:
    assert find_destination(TABLE, "carrier", "2001") is None  # type: ignore[arg-type]


def test_a_trunk_without_target_has_no_request_uri() -> None:
    table = Table(routes=(Route(source="six", destination="pbx"),), trunks=TABLE.trunks)
    found = find_destination(table, "six", "1")  # type: ignore[arg-type]
    assert found is not None
    with pytest.raises(ValueError, match="no target"):
        _ = found.request_uri


def test_emergency_numbers_are_exact() -> None:
    numbers = {"112"}
    assert is_emergency(numbers, "112")
    assert not is_emergency(numbers, "1121")
    assert not is_emergency(numbers, None)
