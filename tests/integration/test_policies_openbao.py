"""The policies for OpenBao and Vault, on a real server: each role does its work and nothing else.

What a role may do is asked with a token of its policy alone; what it must never do with a token that has, beside it, a
policy that allows everything, or another role's. Each block of each file is needed: without it some answer is another.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from recording.format.content import RecordingMeta
from recording.keys.administration import build_administration
from recording.keys.build import build_mover, build_provider, slot_keys
from recording.keys.errors import ContextMismatchError, NotPermittedError
from recording.keys.provider import KeyContext
from recording.keys.rewrap import Outcome, RewrapTask, rewrap_file
from recording.keys.vault import VaultTransitProvider
from recording.observer import SilentObserver
from recording.reader import open_recording
from recording.recorder import Recorder, TenantKey
from recording.settings import Layout, RecordingSettings, VaultTransitKeySettings
from recording.sinks.local import LocalSink
from recording.verify import RecordingState, verify
from support.openbao import OpenBao, vault_settings

DIRECTORY: Final = Path(__file__).parents[2] / "packaging" / "policies" / "openbao"
ROLES: Final = ("recorder", "uploader", "player", "rewrapper", "key-administrator", "auditor")
EVERYTHING: Final = 'path "transit/*" { capabilities = ["create", "read", "update", "delete", "list"] }'
_BLOCK: Final = re.compile(r"^path .*?^\}\n", re.DOTALL | re.MULTILINE)

# What each role may do: operation and key. All else must be refused.
MAY: Final[Mapping[str, frozenset[tuple[str, str]]]] = {
    "recorder": frozenset(
        {("datakey", "recordings"), ("datakey", "audit"), ("read", "recordings"), ("read", "audit")}
    ),
    "uploader": frozenset(),
    "player": frozenset({("decrypt", "recordings"), ("read", "recordings")}),
    "rewrapper": frozenset({("rewrap", "recordings"), ("read", "recordings")}),
    "key-administrator": frozenset(
        {
            (operation, key)
            for operation in ("create", "read", "rotate", "config", "delete")
            for key in ("recordings", "audit")
        }
        | {("list", "")}
    ),
    "auditor": frozenset({("decrypt", "audit"), ("read", "audit"), ("read", "recordings"), ("list", "")}),
}

# What stays refused whatever else the token may.
NEVER: Final[Mapping[str, frozenset[tuple[str, str]]]] = {
    "recorder": frozenset(
        {
            (operation, key)
            for operation in ("decrypt", "rewrap", "export")
            for key in ("recordings", "audit", "other")
        }
    ),
    "uploader": frozenset(
        {
            (operation, "recordings")
            for operation in ("datakey", "decrypt", "rewrap", "encrypt", "export", "read", "rotate")
        }
    ),
    "player": frozenset({(operation, "recordings") for operation in ("datakey", "encrypt", "rewrap")}),
    "rewrapper": frozenset({(operation, "recordings") for operation in ("datakey", "decrypt", "export")}),
    "key-administrator": frozenset(
        {
            (operation, "recordings")
            for operation in ("datakey", "encrypt", "decrypt", "rewrap", "export", "backup")
        }
        | {
            (operation, key)
            for operation in ("create-exportable", "allow-backup", "import")
            for key in ("recordings", "audit")
        }
    ),
    "auditor": frozenset(
        {("decrypt", "recordings"), ("datakey", "recordings"), ("rewrap", "recordings"), ("datakey", "audit")}
    ),
}

# Roles that a careless administrator gives to one token, and what that token may not do all the same.
TOGETHER: Final[Mapping[tuple[str, str], frozenset[tuple[str, str]]]] = {
    ("recorder", "player"): frozenset({("decrypt", "recordings")}),
    ("recorder", "auditor"): frozenset({("decrypt", "audit")}),
    ("recorder", "rewrapper"): frozenset({("rewrap", "recordings")}),
    ("auditor", "player"): frozenset({("decrypt", "recordings")}),
}


def policy(role: str) -> str:
    return (DIRECTORY / f"{role}.hcl").read_text()


def request(operation: str, key: str) -> tuple[str, str, dict[str, object] | None]:
    """Method, path and body. Bodies are such that nothing changes where they are allowed."""
    context = base64.b64encode(b"context").decode()
    text = {"context": context, "ciphertext": "vault:v1:AAAA"}
    name = f"{key}-policies"
    return {
        "datakey": ("POST", f"transit/datakey/plaintext/{name}", {"context": context}),
        "encrypt": ("POST", f"transit/encrypt/{name}", {"context": context, "plaintext": context}),
        "decrypt": ("POST", f"transit/decrypt/{name}", text),
        "rewrap": ("POST", f"transit/rewrap/{name}", text),
        "export": ("GET", f"transit/export/encryption-key/{name}", None),
        "backup": ("GET", f"transit/backup/{name}", None),
        "read": ("GET", f"transit/keys/{name}", None),
        "create": ("POST", f"transit/keys/{name}", {"derived": True}),
        "rotate": ("POST", f"transit/keys/{name}/rotate", {}),
        "config": ("POST", f"transit/keys/{name}/config", {"min_decryption_version": 1}),
        "create-exportable": ("POST", f"transit/keys/{name}", {"derived": True, "exportable": "1"}),
        "allow-backup": ("POST", f"transit/keys/{name}/config", {"allow_plaintext_backup": True}),
        "import": ("POST", f"transit/keys/{name}/import_version", {"ciphertext": "AAAA"}),
        "delete": ("DELETE", f"transit/keys/{name}", None),
        "list": ("LIST", "transit/keys", None),
    }[operation]


OPERATIONS: Final = [
    ("list", ""),
    *(
        (operation, key)
        for key in ("recordings", "audit", "other")
        for operation in (
            "datakey",
            "encrypt",
            "decrypt",
            "rewrap",
            "export",
            "backup",
            "read",
            "create",
            "rotate",
            "config",
            "create-exportable",
            "allow-backup",
            "import",
            "delete",
        )
    ),
]


@pytest.fixture(scope="module")
def server(openbao: OpenBao) -> OpenBao:
    """With a key of each sort, which no test uses for anything else."""
    for key in ("recordings", "audit", "other"):
        openbao.create_key(f"{key}-policies")
    return openbao


def is_allowed(server: OpenBao, token: str, operation: str, key: str) -> bool:
    method, path, body = request(operation, key)
    status, _ = server.call(method, path, body, token=token)
    return status != 403


def wrong_answers(server: OpenBao, role: str, text: str) -> list[str]:
    """What a policy in the place of the role's answers otherwise than the role's must."""
    found = []
    alone = server.token(text)
    found += [
        f"{operation} {key} alone"
        for operation, key in OPERATIONS
        if is_allowed(server, alone, operation, key) != ((operation, key) in MAY[role])
    ]
    wide = beside(server, text, EVERYTHING)
    found += [
        f"{operation} {key} with everything allowed"
        for operation, key in sorted(NEVER[role])
        if is_allowed(server, wide, operation, key)
    ]
    for (first, second), refused in TOGETHER.items():
        if first == role:
            both = beside(server, text, policy(second))
            found += [
                f"{operation} {key} beside {second}"
                for operation, key in sorted(refused)
                if is_allowed(server, both, operation, key)
            ]
    return found


def beside(server: OpenBao, *texts: str) -> str:
    """A token with several policies."""
    names = []
    for text in texts:
        names.append(f"beside-{secrets.token_hex(8)}")
        server.admin("PUT", f"sys/policies/acl/{names[-1]}", {"policy": text})
    body = {"policies": names, "no_default_policy": True, "no_parent": True}
    token: str = server.admin("POST", "auth/token/create", body)["auth"]["client_token"]
    return token


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_do_what_it_needs_and_nothing_else(server: OpenBao, role: str) -> None:
    assert wrong_answers(server, role, policy(role)) == []


@cache
def blocks(role: str) -> tuple[str, ...]:
    return tuple(_BLOCK.findall(policy(role)))


@pytest.mark.parametrize(
    ("role", "number"), [(role, number) for role in ROLES for number in range(len(blocks(role)))]
)
def test_every_block_is_needed(server: OpenBao, role: str, number: int) -> None:
    without = policy(role).replace(blocks(role)[number], "")
    assert without != policy(role)
    if not _BLOCK.search(without):
        without += 'path "nowhere" { capabilities = ["read"] }\n'
    assert wrong_answers(server, role, without) != []


def test_the_patterns_see_whole_files() -> None:
    for role in ROLES:
        rest = _BLOCK.sub("", policy(role))
        assert [line for line in rest.splitlines() if line and not line.startswith("#")] == []


# ---- the product under each role's token


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """One key, and its settings with each role's token."""

    by_role: Mapping[str, VaultTransitKeySettings]

    def provider(self, role: str) -> VaultTransitProvider:
        made = build_provider(role, self.by_role[role])
        assert isinstance(made, VaultTransitProvider)
        return made


@pytest.fixture
def roles(openbao: OpenBao, tmp_path: Path) -> Roles:
    key = f"recordings-{secrets.token_hex(8)}"
    openbao.create_key(key)
    return Roles(
        by_role={
            role: vault_settings(
                openbao,
                key,
                tmp_path / f"{role}.token",
                policy=policy(role).replace("{", "{{").replace("}", "}}"),
            )
            for role in ROLES
        }
    )


def record(settings: RecordingSettings) -> bytes:
    """One call through the product's recorder. Returns its file id."""
    tenants = {"clinic": TenantKey(handle=b"T" * 16, provider="main")}
    recorder = Recorder(
        settings, tenants, {"main": build_provider("main", settings.keys["main"])}, SilentObserver()
    )
    recorder.start()
    try:
        assert recorder.wait_ready(20)
        failures: list[Exception] = []
        call = recorder.open(
            recorder.reserve("clinic"),
            meta=RecordingMeta(rate_hz=8000, call_uid=secrets.token_hex(16)),
            layout=Layout.MIXED,
            on_failure=failures.append,
        )
        call.append(memoryview(PCM), len(PCM) // 2, 0)
        call.finish(ended_by="caller", reason="caller_hung_up")
    finally:
        assert recorder.stop(20)
    assert failures == []
    (file_id,) = call.file_ids
    return file_id


PCM: Final = struct.pack("<8000h", *(at % 30000 for at in range(8000)))


def recorder_settings(directory: Path, key: VaultTransitKeySettings) -> RecordingSettings:
    return RecordingSettings(
        directory=directory / "store",
        spool_directory=directory / "spool",
        index_path=directory / "index.sqlite",
        keys={"main": key},
        min_free_bytes=0,
    )


def test_the_recorders_own_credentials_open_no_byte_of_what_it_recorded(roles: Roles, tmp_path: Path) -> None:
    settings = recorder_settings(tmp_path, roles.by_role["recorder"])
    file_id = record(settings)
    (path,) = settings.directory.glob(f"**/{file_id.hex()}.crec")
    with pytest.raises(NotPermittedError):
        open_recording(path, keys=slot_keys([build_provider("main", settings.keys["main"])]))
    for role in ("uploader", "rewrapper", "key-administrator", "auditor"):
        with pytest.raises(NotPermittedError):
            open_recording(path, keys=slot_keys([roles.provider(role)]))
    with open_recording(path, keys=slot_keys([roles.provider("player")])) as reader:
        assert b"".join(bytes(record.payload) for record in reader.audio()) == PCM
        assert verify(reader).state is RecordingState.COMPLETE


def test_the_rewrapper_moves_what_the_administrator_rotated_and_the_player_reads_on(
    roles: Roles, tmp_path: Path
) -> None:
    settings = recorder_settings(tmp_path, roles.by_role["recorder"])
    file_id = record(settings)
    (path,) = settings.directory.glob(f"**/{file_id.hex()}.crec")
    sink = LocalSink(settings.directory)
    task = RewrapTask(
        object_key=str(path.relative_to(settings.directory)),
        context=KeyContext(file_id=file_id, tenant_handle=b"T" * 16),
    )
    administration = build_administration("main", roles.by_role["key-administrator"])
    administration.rotate()
    for role in ("recorder", "player", "key-administrator", "auditor"):
        mover = build_mover("main", "main", {"main": roles.by_role[role]})
        with pytest.raises(NotPermittedError):
            rewrap_file(sink, mover, task)
    mover = build_mover("main", "main", {"main": roles.by_role["rewrapper"]})
    assert rewrap_file(sink, mover, task) is Outcome.MOVED
    for role in ("recorder", "player", "rewrapper", "auditor"):
        with pytest.raises(NotPermittedError):
            build_administration("main", roles.by_role[role]).disable_older()
    administration.disable_older()
    with open_recording(path, keys=slot_keys([roles.provider("player")])) as reader:
        assert b"".join(bytes(record.payload) for record in reader.audio()) == PCM


def test_only_the_recorder_makes_data_keys_and_only_the_administrator_destroys(roles: Roles) -> None:
    context = KeyContext(file_id=os.urandom(16), tenant_handle=os.urandom(16))
    made = roles.provider("recorder").new_key(context)
    for role in ("player", "rewrapper", "key-administrator", "auditor", "uploader"):
        with pytest.raises(NotPermittedError):
            roles.provider(role).new_key(context)
    assert roles.provider("player").unwrap(made.slot, context) == made.dek
    for role in ("recorder", "player", "rewrapper", "auditor", "uploader"):
        with pytest.raises(NotPermittedError):
            build_administration("main", roles.by_role[role]).destroy()
    assert build_administration("main", roles.by_role["key-administrator"]).destroy()


def test_a_slot_does_not_open_for_the_player_under_another_files_name(roles: Roles) -> None:
    context = KeyContext(file_id=os.urandom(16), tenant_handle=os.urandom(16))
    made = roles.provider("recorder").new_key(context)
    with pytest.raises(ContextMismatchError):
        roles.provider("player").unwrap(made.slot, replace(context, file_id=os.urandom(16)))
