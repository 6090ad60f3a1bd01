"""What the AWS policies say of the store, as a bucket's policy on a real S3 server: Ceph's gateway, not AWS.

The gateway evaluates actions, resources and explicit denials. It lets who wrote an object have it, whatever an allow
leaves out; the denials hold against that too. Its wildcards take the nearest match: `*.slots` would not fit two dots.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from botocore.exceptions import ClientError

from support.rgw import RGW, UPLOADER

DIRECTORY: Final = Path(__file__).parents[2] / "packaging" / "policies" / "aws"
BUCKET: Final = "policies"
ROLES: Final = ("recorder", "uploader", "player", "rewrapper", "key-administrator", "auditor", "steward")
RECORDING, SLOTS, OWN, OWN_SLOTS = "kept.crec", "kept.1.slots", "own.crec", "own.1.slots"

_STORES: Final = frozenset({"put recording", "put slots", "list", "retain", "see retention"})
MAY: Final[Mapping[str, frozenset[str]]] = {
    "recorder": _STORES,
    "uploader": _STORES,
    "player": frozenset({"get recording", "get slots", "list"}),
    "rewrapper": frozenset(
        {"get recording", "get slots", "put slots", "list", "see retention", "see hold", "hold slots"}
    ),
    "key-administrator": frozenset(),
    "auditor": frozenset({"get recording", "get slots", "list", "see retention", "see hold"}),
    "steward": frozenset(
        {"list", "retain", "see retention", "see hold", "hold", "hold slots", "delete version"}
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """A bucket of the owner's, with a recording and slots in it, and somebody whose rights a policy sets."""

    owner: Any
    role: Any

    def take_on(self, role: str, *, without: str | None = None) -> None:
        """Let the role's client do what the role's policy says of S3; `without` the statement of that name."""
        document = json.loads((DIRECTORY / f"{role}.json").read_text())
        kept = []
        for statement in document["Statement"]:
            actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
            if not actions[0].startswith("s3:") or statement["Sid"] == without:
                continue
            text = json.dumps(statement).replace("example-recordings", BUCKET)
            if '"*"' in text:
                text = text.replace(
                    '"Resource": "*"', f'"Resource": ["arn:aws:s3:::{BUCKET}", "arn:aws:s3:::{BUCKET}/*"]'
                )
            principal = {"AWS": [f"arn:aws:iam:::user/{UPLOADER}"]}
            kept.append({**json.loads(text), "Principal": principal})
        self.owner.put_bucket_policy(
            Bucket=BUCKET, Policy=json.dumps({"Version": "2012-10-17", "Statement": kept})
        )

    def is_allowed(self, operation: str) -> bool:
        try:
            OPERATIONS[operation](self.role)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 403:
                raise
            return False
        return True

    def allowed(self) -> set[str]:
        return {operation for operation in OPERATIONS if self.is_allowed(operation)}


def _put(client: Any, key: str) -> None:
    client.put_object(Bucket=BUCKET, Key=key, Body=io.BytesIO(b"ciphertext"))


def _retain(client: Any) -> None:
    until = datetime.now(UTC) + timedelta(seconds=1)
    client.put_object_retention(
        Bucket=BUCKET, Key=RECORDING, Retention={"Mode": "GOVERNANCE", "RetainUntilDate": until}
    )


def _release(client: Any, key: str) -> None:
    client.put_object_legal_hold(Bucket=BUCKET, Key=key, LegalHold={"Status": "OFF"})


def _delete_versions(client: Any, key: str) -> None:
    """The version need not exist: who may not delete is told so first."""
    client.delete_object(Bucket=BUCKET, Key=key, VersionId="null")


OPERATIONS: Final[Mapping[str, Callable[[Any], object]]] = {
    "put recording": lambda s3: _put(s3, OWN),
    "put slots": lambda s3: _put(s3, OWN_SLOTS),
    "get recording": lambda s3: s3.get_object(Bucket=BUCKET, Key=RECORDING)["Body"].read(),
    "get slots": lambda s3: s3.get_object(Bucket=BUCKET, Key=SLOTS)["Body"].read(),
    "list": lambda s3: s3.list_objects_v2(Bucket=BUCKET),
    "retain": _retain,
    "see retention": lambda s3: s3.get_object_retention(Bucket=BUCKET, Key=RECORDING),
    "see hold": lambda s3: s3.get_object_legal_hold(Bucket=BUCKET, Key=RECORDING),
    "hold": lambda s3: _release(s3, RECORDING),
    "hold slots": lambda s3: _release(s3, SLOTS),
    "delete version": lambda s3: _delete_versions(s3, "gone.crec"),
    "delete": lambda s3: s3.delete_object(Bucket=BUCKET, Key="gone.crec"),
    "change access": lambda s3: s3.put_object_acl(Bucket=BUCKET, Key=RECORDING, ACL="public-read"),
    "change policy": lambda s3: s3.delete_bucket_policy(Bucket=BUCKET),
}


@pytest.fixture(scope="module")
def store(rgw: RGW) -> Iterator[Store]:
    owner, role = rgw.client(rgw.owner), rgw.client(rgw.uploader)
    owner.create_bucket(Bucket=BUCKET, ObjectLockEnabledForBucket=True)
    for key in (RECORDING, SLOTS):
        _put(owner, key)
        _release(owner, key)
    _retain(owner)
    yield Store(owner=owner, role=role)
    owner.close()
    role.close()


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_do_what_it_needs_and_nothing_else(store: Store, role: str) -> None:
    store.take_on(role)
    assert store.allowed() == MAY[role]


@pytest.mark.parametrize("role", ["recorder", "uploader"])
def test_who_wrote_an_object_cannot_read_or_delete_it_because_of_the_explicit_denial(
    store: Store, role: str
) -> None:
    def reads() -> bytes:
        found: bytes = store.role.get_object(Bucket=BUCKET, Key=OWN)["Body"].read()
        return found

    store.take_on(role)
    _put(store.role, OWN)
    with pytest.raises(ClientError, match="AccessDenied"):
        reads()
    with pytest.raises(ClientError, match="AccessDenied"):
        store.role.delete_object(Bucket=BUCKET, Key=OWN)
    store.take_on(role, without="NeverReadDeleteOrOpen")
    assert reads() == b"ciphertext", "its owner has it where nothing denies it"
