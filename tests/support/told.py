"""Key services that answer as told, for what no real one would do, and the providers that ask them.

with told_server(vault_told(), directory) as server:
    server.service.reply = vault_refusal(503, "Vault is sealed")    # until it is reset
    vault_at(server).new_key(CONTEXT)
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from recording.format.slots import KeySlot, SlotProvider
from recording.keys.aws_kms import AWSKMSProvider
from recording.keys.provider import KeyContext
from recording.keys.vault import VaultTransitProvider
from recording.settings import TransitSettings, VaultTransitKeySettings
from support.kms import REGION, Reply, ServerFiles, https_server, issue_server_files, json_reply, kms_settings

CONTEXT: Final = KeyContext(file_id=b"F" * 16, tenant_handle=b"T" * 16)
DEK: Final = bytes(range(32))


def encoded(value: bytes) -> str:
    return base64.b64encode(value).decode()


class Told:
    """Answers as told and keeps what it was asked. `standing`: answers to paths that never change what is told."""

    def __init__(self, good: Reply, standing: Mapping[str, Reply] | None = None) -> None:
        self.good = good
        self._standing = standing or {}
        self.reset()

    def reset(self) -> None:
        self.asked: list[tuple[str, dict[str, object]]] = []
        self.replies: list[Reply] = []
        self.reply = self.good
        self.standing = dict(self._standing)

    def __call__(self, operation: str, request: dict[str, object]) -> Reply:
        if operation in self.standing:
            return self.standing[operation]
        self.asked.append((operation, request))
        return self.replies.pop(0) if self.replies else self.reply


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldServer:
    """One that serves."""

    files: ServerFiles
    service: Told
    url: str


@contextlib.contextmanager
def told_server(service: Told, directory: Path) -> Iterator[ToldServer]:
    files = issue_server_files(directory)
    with https_server(files, service) as url:
        yield ToldServer(files=files, service=service, url=url)


# --- AWS KMS

ARN: Final = f"arn:aws:kms:{REGION}:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
AWS_SLOT: Final = KeySlot(provider=SlotProvider.AWS_KMS, key_id=ARN.encode(), wrapped=b"wrapped")
AWS_GOOD: Final = {
    "Plaintext": encoded(DEK),
    "CiphertextBlob": encoded(AWS_SLOT.wrapped),
    "KeyId": ARN,
    "KeyMetadata": {"Arn": ARN, "KeyId": ARN, "KeyState": "Enabled"},
}
"""To whatever is asked: what an operation does not answer with is not looked at."""


def aws_told() -> Told:
    return Told(json_reply(AWS_GOOD))


def aws_at(url: str, files: ServerFiles, *, timeout_s: float = 10) -> AWSKMSProvider:
    """It wants credentials in the environment, and half a second of boto3's."""
    return AWSKMSProvider("main", kms_settings(url, files, key_id=ARN, timeout_s=timeout_s))


def aws_refusal(code: str, status: int = 400) -> Reply:
    return json_reply({"__type": code, "message": "no"}, status=status)


# --- a transit engine

VAULT_KEY_PATH: Final = "/v1/transit/keys/recordings"
VAULT_KEY: Final = {"derived": True, "keys": {"1": 1795515984}, "latest_version": 1, "auto_rotate_period": 0}
VAULT_SLOT: Final = KeySlot(
    provider=SlotProvider.VAULT_TRANSIT,
    key_id=b"vault/transit/recordings",
    wrapped=b"vault:v1:" + base64.b64encode(bytes(60)),
)
VAULT_GOOD: Final = {"plaintext": encoded(DEK), "ciphertext": VAULT_SLOT.wrapped.decode(), "key_version": 1}


def vault_told() -> Told:
    """The key's facts are not counted among what is asked."""
    return Told(vault_reply(VAULT_GOOD), {VAULT_KEY_PATH: vault_reply(VAULT_KEY)})


def vault_at(url: str, files: ServerFiles, *, timeout_s: float = 10) -> VaultTransitProvider:
    """Its token lies beside the server's certificate."""
    token = files.ca_path.with_name("token")
    token.touch(mode=0o600)
    token.write_text("s.token")
    server = TransitSettings(
        address=url, token_path=token, ca_path=files.ca_path, server_id="vault", timeout_s=timeout_s
    )
    return VaultTransitProvider("main", VaultTransitKeySettings(key="recordings", server=server))


def vault_reply(data: object) -> Reply:
    return json_reply({"data": data})


def vault_refusal(status: int, *errors: str, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    return Reply(status=status, body=json.dumps({"errors": errors}).encode(), headers=headers)
