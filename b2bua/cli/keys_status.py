"""`b2bua keys status`: every key and certificate: whether it answers, how old it is, what needs it, what to do next."""

from __future__ import annotations

import argparse
import contextlib
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509

from b2bua import config
from b2bua.cli import output
from b2bua.cli.parser import add_command, add_configuration, add_json, configuration_path
from b2bua.errors import KeyOverdueError
from b2bua.key_age import AgeState, KeyAge, KeyKind
from b2bua.settings import Settings
from recording.errors import RecordingError
from recording.format.suites import wipe
from recording.index import RecordingIndex
from recording.keys.build import build_provider
from recording.keys.dependants import Dependants, find_dependants
from recording.keys.provider import KeyContext, KeyProvider, told_lifecycle
from recording.settings import KeySettings, LocalKeySettings
from tls.settings import TLSMaterialSettings

if TYPE_CHECKING:
    from b2bua.cli.parser import Subparsers


_WITHOUT = {
    KeyKind.SIGNING: "none is configured; manifests and checkpoints are not signed",
    KeyKind.SEARCH: "none is configured; nobody is found by number or name",
    KeyKind.INDEX: "none was made yet",
    KeyKind.TOKEN: "none is configured; this program issues no tokens",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Key:
    """A key section: what was found of it, its age, and what went wrong."""

    facts: dict[str, object]
    age: KeyAge
    failure: RecordingError | None = None


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "status",
        summary="Say of each key where it is, who needs it, whether it answers, its age, and what to do next.",
        example="""
            b2bua keys status -c lab/b2bua.toml
            b2bua keys status -c lab/b2bua.toml --request --json
        """,
        run=run,
    )
    add_configuration(parser)
    parser.add_argument(
        "--request", action="store_true", help="ask for a data key too and throw it away: shows permissions"
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Ask every provider, those after a failing one too. The exit code is that of the first failure, or of an age."""
    now = datetime.now(UTC)
    settings = config.load(configuration_path(arguments))
    with _open_index(settings) as index:
        keys = [
            _key(name, key, settings, index, request=arguments.request, now=now)
            for name, key in settings.recording.keys.items()
        ]
        ages = [*(key.age for key in keys), *_other_ages(settings, index)]
    if arguments.json:
        facts = [key.facts for key in keys]
        output.print_json({"keys": facts, "ages": [age.facts(now) for age in ages], "absent": _absent(ages)})
    else:
        _print(keys, ages, now)
    for key in keys:
        if key.failure is not None:
            output.print_error(str(key.failure))
    overdue = [age for age in ages if _is_overdue(age, now)]
    for age in overdue:
        output.print_error(f"{age.kind.value} {age.name} is {age.state(now).value}; {age.next_action(now)}")
    failures = [key.failure.exit_code for key in keys if key.failure is not None]
    return next(iter(failures), KeyOverdueError.exit_code if overdue else 0)


@contextlib.contextmanager
def _open_index(settings: Settings) -> Iterator[RecordingIndex | None]:
    """None where nothing was ever recorded; none is made."""
    place = settings.recording.index_place
    if isinstance(place, Path) and not place.exists():
        yield None
        return
    with contextlib.closing(RecordingIndex(place)) as index:
        yield index


def _key(
    name: str,
    key: KeySettings,
    settings: Settings,
    index: RecordingIndex | None,
    *,
    request: bool,
    now: datetime,
) -> _Key:
    tenants = sorted(tenant.name for tenant in settings.tenants.values() if name in tenant.key_names)
    facts: dict[str, object] = {"name": name, "tenants": ", ".join(tenants) or None}
    began = time.monotonic_ns()
    unknown = KeyAge(kind=KeyKind.KEY_ENCRYPTION, name=f"keys.{name}", action=_action(name, key))
    try:
        provider = build_provider(name, key)
        facts |= provider.describe()
        facts |= _dependants(index, provider, settings, now)
        provider.health()
        lifecycle = told_lifecycle(provider)
        facts |= {"lifecycle": f"unknown: {lifecycle}"} if isinstance(lifecycle, str) else lifecycle.facts()
        if request:
            _request(provider)
    except RecordingError as error:
        return _Key(facts={**facts, "health": f"failed: {error}"}, age=unknown, failure=error)
    milliseconds = (time.monotonic_ns() - began) / 1e6
    facts |= {
        "health": "a data key was made" if request else "answers",
        "took_ms": round(milliseconds, 1),
    }
    since = None if isinstance(lifecycle, str) else lifecycle.versions[-1].created_at
    return _Key(facts=facts, age=replace(unknown, since=since))


def _absent(ages: list[KeyAge]) -> dict[str, str]:
    """Kinds of which there is no key, said plainly: what is not shown would be taken for forgotten."""
    present = {age.kind for age in ages}
    return {kind.value: why for kind, why in _WITHOUT.items() if kind not in present}


def _is_overdue(age: KeyAge, now: datetime) -> bool:
    """Or a certificate that nobody can read, which is no better than one that has ended."""
    state = age.state(now)
    return state is AgeState.OVERDUE or (age.kind is KeyKind.CERTIFICATE and state is AgeState.UNKNOWN)


def _dependants(
    index: RecordingIndex | None, provider: KeyProvider, settings: Settings, now: datetime
) -> dict[str, object]:
    """How many files need the key; None where there is no index that would know."""
    if index is None:
        return {"recordings": None}
    found: Dependants = find_dependants(index, provider, now=now, retention=settings.recording.retention)
    return {
        "recordings": len(found.entries),
        "on_hold": len(found.held),
        "retained": len(found.retained),
    }


def _action(name: str, key: KeySettings) -> str:
    if isinstance(key, LocalKeySettings):
        return f"b2bua keys retire {name} --to ANOTHER --rewrap"
    return f"b2bua keys rotate {name}"


def _other_ages(settings: Settings, index: RecordingIndex | None) -> Iterator[KeyAge]:
    """Keys and certificates besides the key sections."""
    yield _certificate("tls", settings.tls)
    if settings.metrics is not None and settings.metrics.tls != settings.tls:
        yield _certificate("metrics", settings.metrics.tls)
    signing_key = settings.recording.signing_key_path
    if signing_key is not None:
        yield KeyAge(
            kind=KeyKind.SIGNING,
            name="signing_key",
            action="make a new one, and keep the public part of this one among the verification_keys",
            since=_modified(signing_key),
        )
    search_key = settings.recording.index.search_key_path
    if search_key is not None:
        yield KeyAge(
            kind=KeyKind.SEARCH,
            name="index.search_key",
            action="make a new search key, name it in the configuration, and rebuild the index",
            since=_modified(search_key),
        )
    if index is not None:
        yield from _index_keys(index, settings)


def _index_keys(index: RecordingIndex, settings: Settings) -> Iterator[KeyAge]:
    """The newest of each tenant: a running recorder takes a new one every day."""
    names = {tenant.handle: tenant.name for tenant in settings.tenants.values()}
    newest = {key.tenant_handle: key.created_hour for key in index.index_keys()}  # oldest first
    for handle, created in newest.items():
        yield KeyAge(
            kind=KeyKind.INDEX,
            name=f"index key of tenant {names.get(handle, handle.hex())}",
            action="start the service, which takes a new one",
            since=created,
        )


def _certificate(name: str, settings: TLSMaterialSettings) -> KeyAge:
    """The end of the first certificate of the chain that ends; None where none can be read."""
    path = settings.certificate_path
    try:
        chain = x509.load_pem_x509_certificates(path.read_bytes())
        ends_at = min(certificate.not_valid_after_utc for certificate in chain)
    except (OSError, ValueError):
        ends_at = None
    return KeyAge(
        kind=KeyKind.CERTIFICATE,
        name=f"{name}.certificate",
        action=f"renew {path}; b2bua check says whether it fits",
        ends_at=ends_at,
    )


def _modified(path: Path) -> datetime | None:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except OSError:
        return None


def _request(provider: KeyProvider) -> None:
    """A data key for a file and a tenant that don't exist, wiped at once."""
    context = KeyContext(file_id=secrets.token_bytes(16), tenant_handle=secrets.token_bytes(16))
    wipe(provider.new_key(context).dek)


def _print(keys: list[_Key], ages: list[KeyAge], now: datetime) -> None:
    for key in keys:
        output.print_table(
            ["key", str(key.facts["name"])],
            [[name, value] for name, value in key.facts.items() if name != "name"],
        )
        output.print_line()
    told = [age.facts(now) for age in ages]
    output.print_table(
        ["kind", "key", "days", "limit", "due", "state", "next"],
        [
            [
                row["kind"],
                row["name"],
                row["age_days"],
                row["limit_days"],
                row["due"],
                row["state"],
                row["next_action"],
            ]
            for row in told
        ],
    )
    for kind, why in _absent(ages).items():
        output.print_line(f"{kind}: {why}")
