"""Which trunk a call goes out on and with which request URI. Pure look-ups over frozen settings."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from b2bua.call.headers import escape_user
from b2bua.settings import Route, Settings, TrunkSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where leg B goes: `user` is the called user part after the route's rewrite."""

    trunk: TrunkSettings
    user: str | None

    @property
    def request_uri(self) -> str:
        """The request URI of leg B.

        Raises:
            ValueError: the trunk has no target; configuration checks keep such a trunk out of routes.
        """
        if self.trunk.target is None:
            raise ValueError(f"trunk {self.trunk.name} has no target")
        return self.trunk.target.uri(None if self.user is None else escape_user(self.user))


def find_destination(settings: Settings, source: str, called_user: str | None) -> Destination | None:
    """The longest matching prefix among the routes of trunk `source`; None: no route, the caller gets 404."""
    user = called_user or ""
    matching = [
        route for route in settings.routes if route.source == source and user.startswith(route.prefix)
    ]
    if not matching:
        return None
    route = max(matching, key=lambda candidate: len(candidate.prefix))
    trunk = settings.trunks[route.destination]
    return Destination(trunk=trunk, user=_rewrite(route, called_user))


def _rewrite(route: Route, user: str | None) -> str | None:
    if user is None:
        return route.prepend or None
    return f"{route.prepend}{user[route.strip :]}"


def is_emergency(numbers: Collection[str], called_user: str | None) -> bool:
    """True when the called user is listed.

    Such a call is never refused or ended for recording, key or admission reasons.
    """
    return called_user is not None and called_user in numbers
