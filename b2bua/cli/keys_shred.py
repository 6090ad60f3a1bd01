"""`b2bua keys shred`: destroy a tenant's key-encryption keys; then nobody opens its recordings, nor copies of them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from b2bua.audit import AuditEvent
from b2bua.cli import output
from b2bua.cli.custody import Custody, add_reason, open_custody, utc_now
from b2bua.cli.parser import add_command, add_configuration, add_json, configuration_path
from b2bua.errors import CommandError, NotConfirmedError
from b2bua.settings import RecordingPolicy, Tenant
from recording.index import IndexEntry, IndexState
from recording.keys.administration import build_administration
from recording.keys.dependants import Dependants, key_id_text
from recording.keys.errors import KeyInUseError, UnknownKeyError
from recording.keys.openers import Opener, stored_files

if TYPE_CHECKING:
    from b2bua.cli.parser import Subparsers


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "shred",
        summary="Destroy the keys of a tenant, so that its recordings can be opened by nobody, wherever copies are.",
        example="b2bua keys shred old-clinic -c administrator.toml --reason contract-ended",
        run=run,
    )
    parser.add_argument("tenant", metavar="TENANT", help="of [tenants.NAME]")
    parser.add_argument(
        "--elsewhere",
        metavar="KEY",
        action="append",
        default=[],
        help="of [keys.KEY], a key of the tenant that is destroyed by other means, as a public key's private part is",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask for the tenant's name to be typed")
    add_configuration(parser)
    add_reason(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Check that nothing must be kept and nobody else needs the keys, have it confirmed, destroy, read back."""
    with open_custody(configuration_path(arguments), action="shred", reason=arguments.reason) as custody:
        tenant = custody.settings.tenants.get(arguments.tenant)
        if tenant is None:
            known = ", ".join(sorted(custody.settings.tenants))
            raise CommandError(f"there is no [tenants.{arguments.tenant}]; there are: {known}")
        with custody.noting_refusal(tenant.key):
            files, done = _shred(
                custody, tenant, elsewhere=frozenset(arguments.elsewhere), is_confirmed=arguments.yes
            )
    if arguments.json:
        output.print_json(
            {"tenant": tenant.name, "files": files, "destroyed": done, "elsewhere": arguments.elsewhere}
        )
    else:
        for name, words in done.items():
            output.print_line(f"keys.{name}: {words}; take [keys.{name}] out of the configuration")
        left = ", ".join(f"keys.{name}" for name in arguments.elsewhere)
        unless = f" once {left} is destroyed too" if left else ""
        output.print_line(f"{files} files of tenant {tenant.name} can be opened by nobody{unless}")
    return 0


def _shred(
    custody: Custody, tenant: Tenant, *, elsewhere: frozenset[str], is_confirmed: bool
) -> tuple[int, dict[str, str]]:
    """How many files open no more, and what became of each key section."""
    what = f"shredding tenant {tenant.name}"
    _require_not_recorded(custody, tenant, what)
    with custody.index().unchanged(tenant.handle) as entries:
        seen = custody.sorted(entries)
        _require_unkept(seen, what)
    names = _keys_to_destroy(custody, tenant, seen, what, elsewhere)
    if not is_confirmed:
        _confirm(tenant, names, seen)
    with custody.index().unchanged(
        tenant.handle
    ) as entries:  # a hold may have come since, and none comes now
        found = custody.sorted(entries)
        _require_unkept(found, what)
        if {each.file_id for each in found.entries} != {each.file_id for each in seen.entries}:
            raise KeyInUseError(
                f"{what} is refused, its recordings have changed meanwhile; look, then repeat"
            )
        return len(found.entries), _destroy_all(custody, tenant, names, len(found.entries))


def _require_not_recorded(custody: Custody, tenant: Tenant, what: str) -> None:
    """No call of the tenant is recorded any more: what its last data keys sealed could not be opened.

    Raises:
        KeyInUseError: a trunk would.
    """
    trunks = sorted(
        trunk.name
        for trunk in custody.settings.trunks.values()
        if trunk.tenant == tenant.name and trunk.recording is not RecordingPolicy.OFF
    )
    if trunks:
        raise KeyInUseError(
            f"{what} is refused, calls of trunk {', '.join(trunks)} are recorded for it; give them another tenant or "
            "take them out, restart the service, then shred"
        )


def _require_unkept(dependants: Dependants, what: str) -> None:
    """Nothing must be kept, nothing is being made. Raises KeyInUseError, which names what is."""
    dependants.require_unkept(what)
    running = [entry.file_id for entry in dependants.entries if entry.state is IndexState.RECORDING]
    if running:
        raise KeyInUseError(
            f"{what} is refused, calls are being recorded: {running[0].hex()}", file_ids=running
        )


def _keys_to_destroy(
    custody: Custody, tenant: Tenant, dependants: Dependants, what: str, elsewhere: frozenset[str]
) -> list[str]:
    """A section for each key that opens a file of the tenant, retired ones included, and that nobody else needs.

    Raises:
        KeyInUseError: a file that the index does not know, or that is under a key that no section names; or another
        tenant, a sealed log or the index needs one of the keys.
    """
    sections = custody.sections()
    own = custody.opener(tenant.key)
    openers = {_opener_of_entry(entry): entry.file_id for entry in dependants.entries}
    openers |= _openers_found(custody, tenant, dependants, what)
    unnamed = {opener: file_id for opener, file_id in openers.items() if opener not in sections}
    if unnamed:
        told = (f"{key_id_text(key_id)} opens {file_id.hex()}" for (_, key_id), file_id in unnamed.items())
        raise KeyInUseError(
            f"{what} is refused, its files are under keys that no section names, and would stay readable: "
            f"{', '.join(told)}; add sections for them first",
            file_ids=list(unnamed.values()),
        )
    doomed = {own, *openers} - {custody.opener(name) for name in elsewhere}
    names = sorted(sections[opener][0] for opener in doomed)
    for name in names:
        _require_of_tenant_alone(custody, tenant, name, what)
        build_administration(name, custody.key(name))  # one that cannot be destroyed here keeps all of them
    return names


def _openers_found(
    custody: Custody, tenant: Tenant, dependants: Dependants, what: str
) -> dict[Opener, bytes]:
    """What opens the tenant's files in the store by their own slots, each with one of them.

    Raises:
        KeyInUseError: a file in store or spool is not in the index, or the store itself must keep it.
    """
    known = {entry.file_id for entry in dependants.entries}
    unknown = [file.file_id for file in custody.spooled_unknown() if file.tenant_handle == tenant.handle]
    openers: dict[Opener, bytes] = {}
    keys = list(custody.sink.keys(f"{tenant.handle.hex()}/"))
    locked: list[bytes] = []
    files = stored_files(custody.sink, keys, now=utc_now())
    with output.progress_bar() as progress:
        for file in progress.track(files, total=len(keys), description="looking"):
            if file is None:
                continue
            openers |= dict.fromkeys(file.openers, file.file_id)
            if file.file_id not in known:
                unknown.append(file.file_id)
            if file.is_locked:
                locked.append(file.file_id)
    if unknown:
        raise KeyInUseError(
            f"{what} is refused, {len(unknown)} files of it are not in the index, {unknown[0].hex()} among them, so "
            "nobody knows whether they must be kept; enter them first: b2bua recordings recover, b2bua index rebuild",
            file_ids=unknown,
        )
    if locked:
        raise KeyInUseError(
            f"{what} is refused, the store keeps {len(locked)} files of it by Object Lock or a legal hold, "
            f"{locked[0].hex()} among them; they must stay readable for as long",
            file_ids=locked,
        )
    return openers


def _opener_of_entry(entry: IndexEntry) -> Opener:
    return entry.provider, entry.key_id.encode("ascii", "backslashreplace")


def _require_of_tenant_alone(custody: Custody, tenant: Tenant, name: str, what: str) -> None:
    others = [user for user in custody.users(name) if user != f"tenant {tenant.name}"]
    if others:
        raise KeyInUseError(
            f"{what} is refused, keys.{name} is also that of {', '.join(others)}; retire it to another"
        )
    foreign = [each for each in custody.dependants(name).entries if each.tenant_handle != tenant.handle]
    if foreign:
        raise KeyInUseError(
            f"{what} is refused, {len(foreign)} files of other tenants are under keys.{name}, "
            f"{foreign[0].file_id.hex()} among them",
            file_ids=[each.file_id for each in foreign],
        )
    custody.require_no_other(name, what)
    if any(key.tenant_handle != tenant.handle for key in custody.index_keys(name)):
        raise KeyInUseError(f"{what} is refused, keys of the index for other tenants are under keys.{name}")


def _confirm(tenant: Tenant, names: Iterable[str], dependants: Dependants) -> None:
    """Have the tenant's name typed. Raises NotConfirmedError."""
    sys.stderr.write(
        f"This destroys {', '.join(f'keys.{name}' for name in names)}. {len(dependants.entries)} files of tenant "
        f"{tenant.name}, and all copies of them, can then be opened by nobody, ever.\n"
        f"Type the tenant's name to go on: "
    )
    sys.stderr.flush()
    if sys.stdin.readline().strip() != tenant.name:
        raise NotConfirmedError("not confirmed, nothing was destroyed; type the tenant's name, or say --yes")


def _destroy_all(custody: Custody, tenant: Tenant, names: Iterable[str], files: int) -> dict[str, str]:
    """Each in turn; the audit log has the order before the key service has it.

    Raises:
        UnknownKeyError: after all others were destroyed, where a service has no such key. So it is after a run that was
        killed; but it may be a section that names the wrong place, and the key is alive.
    """
    done: dict[str, str] = {}
    missing: list[str] = []
    for name in names:
        administration = build_administration(name, custody.key(name))
        custody.note(AuditEvent.KEY_CHANGE_STARTED, key=name, tenant_handle=tenant.handle, count=files)
        try:
            done[name] = administration.destroy()
        except UnknownKeyError as error:
            missing.append(f"keys.{name}: {error}")
        else:
            custody.note(AuditEvent.KEY_DESTROYED, key=name, tenant_handle=tenant.handle, count=files)
    if missing:
        raise UnknownKeyError(
            "destroyed: "
            + (", ".join(f"keys.{name}" for name in done) or "nothing")
            + "; not found, so destroyed before, or its section names the wrong place: "
            + "; ".join(missing)
        )
    return done
