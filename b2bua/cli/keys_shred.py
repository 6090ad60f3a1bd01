"""`b2bua keys shred`: destroy a tenant's key-encryption keys; then nobody opens its recordings, nor copies of them."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from b2bua.audit import AuditEvent
from b2bua.cli import output
from b2bua.cli.custody import Custody, add_reason, open_custody
from b2bua.cli.parser import add_command, add_configuration, add_json, configuration_path
from b2bua.errors import CommandError, NotConfirmedError
from b2bua.settings import Tenant
from recording.index import IndexEntry, IndexState
from recording.keys.administration import build_administration
from recording.keys.build import build_provider
from recording.keys.dependants import Dependants, key_id_text
from recording.keys.errors import KeyConfigurationError, KeyInUseError

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
    parser.add_argument("--yes", action="store_true", help="do not ask for the tenant's name to be typed")
    add_configuration(parser)
    add_reason(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Check that nothing must be kept and nobody else needs the keys, have it confirmed, destroy, read back."""
    with open_custody(configuration_path(arguments), reason=arguments.reason) as custody:
        tenant = custody.settings.tenants.get(arguments.tenant)
        if tenant is None:
            known = ", ".join(sorted(custody.settings.tenants))
            raise CommandError(f"there is no [tenants.{arguments.tenant}]; there are: {known}")
        with custody.noting_refusal(tenant.key):
            dependants = custody.dependants_of_tenant(tenant.handle)
            names = _keys_to_destroy(custody, tenant, dependants)
            if not arguments.yes:
                _confirm(tenant, names, dependants)
        done = {name: _destroy(custody, tenant, name, len(dependants.entries)) for name in names}
    if arguments.json:
        output.print_json({"tenant": tenant.name, "files": len(dependants.entries), "destroyed": done})
    else:
        for name, words in done.items():
            output.print_line(f"keys.{name}: {words}; take [keys.{name}] out of the configuration")
        output.print_line(f"{len(dependants.entries)} files of tenant {tenant.name} can be opened by nobody")
    return 0


def _keys_to_destroy(custody: Custody, tenant: Tenant, dependants: Dependants) -> list[str]:
    """All sections that a file of the tenant may be under, and of nobody else.

    Raises:
        KeyInUseError: a file must be kept, is being written, is under a key that no section names, or another tenant,
        the audit log or the index needs one of the keys.
    """
    what = f"shredding tenant {tenant.name}"
    dependants.require_unkept(what)
    running = [entry.file_id for entry in dependants.entries if entry.state is IndexState.RECORDING]
    if running:
        raise KeyInUseError(
            f"{what} is refused, calls are being recorded: {running[0].hex()}", file_ids=running
        )
    names = _sections_of(custody, tenant, dependants)
    for name in names:
        _require_of_tenant_alone(custody, tenant, name, what)
        build_administration(name, custody.key(name))  # one that cannot be destroyed here keeps all of them
    return names


def _sections_of(custody: Custody, tenant: Tenant, dependants: Dependants) -> list[str]:
    by_key: dict[tuple[int, str], str] = {}
    for name, key in custody.settings.recording.keys.items():
        try:
            provider = build_provider(name, key)
        except KeyConfigurationError:
            if name == tenant.key:
                raise
            continue  # a section whose key is gone names nothing
        by_key[provider.slot_provider, key_id_text(provider.slot_key_id)] = name
    lost = [entry.file_id for entry in dependants.entries if _key_of(entry) not in by_key]
    if lost:
        raise KeyInUseError(
            f"{len(lost)} files of tenant {tenant.name} are under keys that no section names, {lost[0].hex()} among "
            "them, and would stay readable; add their sections first",
            file_ids=lost,
        )
    return sorted({tenant.key, *(by_key[_key_of(entry)] for entry in dependants.entries)})


def _key_of(entry: IndexEntry) -> tuple[int, str]:
    return entry.provider, entry.key_id


def _require_of_tenant_alone(custody: Custody, tenant: Tenant, name: str, what: str) -> None:
    settings = custody.settings
    others = sorted(
        each.name for each in settings.tenants.values() if name in each.key_names and each.name != tenant.name
    )
    if others:
        raise KeyInUseError(
            f"{what} is refused, keys.{name} is also that of {', '.join(others)}; retire it to another"
        )
    index = settings.recording.index
    if name in (settings.audit.key_name, index.key, index.backup_key):
        raise KeyInUseError(
            f"{what} is refused, the audit log or the index is under keys.{name}; give it a key of its own"
        )
    foreign = [each for each in custody.dependants(name).entries if each.tenant_handle != tenant.handle]
    if foreign:
        raise KeyInUseError(
            f"{what} is refused, {len(foreign)} files of other tenants are under keys.{name}, "
            f"{foreign[0].file_id.hex()} among them",
            file_ids=[each.file_id for each in foreign],
        )
    custody.require_no_audit(name, what)
    if any(key.tenant_handle != tenant.handle for key in custody.index_keys(name)):
        raise KeyInUseError(f"{what} is refused, keys of the index for other tenants are under keys.{name}")


def _confirm(tenant: Tenant, names: list[str], dependants: Dependants) -> None:
    """Have the tenant's name typed. Raises NotConfirmedError."""
    sys.stderr.write(
        f"This destroys {', '.join(f'keys.{name}' for name in names)}. {len(dependants.entries)} files of tenant "
        f"{tenant.name}, and all copies of them, can then be opened by nobody, ever.\n"
        f"Type the tenant's name to go on: "
    )
    sys.stderr.flush()
    if sys.stdin.readline().strip() != tenant.name:
        raise NotConfirmedError("not confirmed, nothing was destroyed; type the tenant's name, or say --yes")


def _destroy(custody: Custody, tenant: Tenant, name: str, files: int) -> str:
    """The audit log has the order before the key service has it."""
    administration = build_administration(name, custody.key(name))
    custody.note(AuditEvent.KEY_DESTRUCTION_STARTED, key=name, tenant_handle=tenant.handle, count=files)
    with custody.noting_refusal(name):
        done = administration.destroy()
    custody.note(AuditEvent.KEY_DESTROYED, key=name, tenant_handle=tenant.handle, count=files)
    return done
