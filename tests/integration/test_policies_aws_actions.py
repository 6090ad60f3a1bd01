"""The AWS policies' actions, enforced by a server: moto with its IAM checks on, a user for each role.

moto looks at actions: resources and conditions are taken out of the files first, with the statements about the bucket's
own key, so that what is left speaks of a recording's key and of the bucket. Those parts have their table in
tests/conformance/test_policies_aws.py. None of this is evaluated by AWS.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import boto3
import pytest
import urllib3
from botocore.exceptions import ClientError

from support.kms import REGION, TEST_CREDENTIALS, MotoKMS

DIRECTORY: Final = Path(__file__).parents[2] / "packaging" / "policies" / "aws"
ROLES: Final = ("recorder", "uploader", "player", "rewrapper", "key-administrator", "auditor", "steward")
BUCKET: Final = "example-recordings"
CONTEXT: Final = {"crec-file": "a" * 32, "crec-tenant": "00112233445566778899aabbccddeeff"}

MAY: Final[Mapping[str, frozenset[str]]] = {
    "recorder": frozenset({"generate_data_key", "put_object", "list_objects_v2"}),
    "uploader": frozenset({"put_object", "list_objects_v2"}),
    "player": frozenset({"decrypt", "get_object", "list_objects_v2"}),
    "rewrapper": frozenset({"re_encrypt", "get_object", "put_object", "list_objects_v2"}),
    "key-administrator": frozenset({"describe_key", "rotate_key_on_demand", "create_key"}),
    "auditor": frozenset({"describe_key", "get_object", "list_objects_v2"}),
    "steward": frozenset({"list_objects_v2"}),
}
"""moto asks for one permission named after the operation: ReEncrypt, where AWS asks for ReEncryptFrom and ReEncryptTo.
"""


def by_actions(role: str) -> str:
    """The role's policy with its actions alone."""
    document = json.loads((DIRECTORY / f"{role}.json").read_text())
    kept = []
    for statement in document["Statement"]:
        if statement["Sid"] in ("UseTheBucketsOwnKeyThroughS3", "OpenTheAuditLog"):
            continue
        actions = statement["Action"]
        listed = [actions] if isinstance(actions, str) else actions
        if "kms:ReEncryptFrom" in listed:
            listed = [*listed, "kms:ReEncrypt"]
        if statement["Sid"] == "NeverWriteARecording":
            continue  # about other objects than slots: without its resource it would speak of those too
        kept.append({"Effect": statement["Effect"], "Action": listed, "Resource": "*"})
    return json.dumps({"Version": "2012-10-17", "Statement": kept})


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A server that enforces, with a key, a bucket and a user for each role."""

    server: MotoKMS
    key: str
    blob: bytes
    users: Mapping[str, tuple[str, str]]

    def client(self, service: str, role: str) -> Any:
        return _client(self.server, service, self.users[role])

    def is_allowed(self, role: str, operation: str) -> bool:
        service, ask = OPERATIONS[operation]
        client = self.client(service, role)
        try:
            ask(client, self)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 403:
                raise
            return False
        finally:
            client.close()
        return True


Ask = Callable[[Any, Account], object]
OPERATIONS: Final[Mapping[str, tuple[str, Ask]]] = {
    "generate_data_key": (
        "kms",
        lambda kms, at: kms.generate_data_key(KeyId=at.key, KeySpec="AES_256", EncryptionContext=CONTEXT),
    ),
    "decrypt": ("kms", lambda kms, at: kms.decrypt(CiphertextBlob=at.blob, EncryptionContext=CONTEXT)),
    "encrypt": ("kms", lambda kms, at: kms.encrypt(KeyId=at.key, Plaintext=b"x")),
    "re_encrypt": (
        "kms",
        lambda kms, at: kms.re_encrypt(
            CiphertextBlob=at.blob,
            SourceEncryptionContext=CONTEXT,
            DestinationKeyId=at.key,
            DestinationEncryptionContext=CONTEXT,
        ),
    ),
    "describe_key": ("kms", lambda kms, at: kms.describe_key(KeyId=at.key)),
    "create_key": ("kms", lambda kms, at: kms.create_key()),
    "rotate_key_on_demand": ("kms", lambda kms, at: kms.rotate_key_on_demand(KeyId=at.key)),
    "put_object": ("s3", lambda s3, at: s3.put_object(Bucket=BUCKET, Key="made.slots", Body=b"y")),
    "get_object": ("s3", lambda s3, at: s3.get_object(Bucket=BUCKET, Key="kept.crec")),
    "delete_object": ("s3", lambda s3, at: s3.delete_object(Bucket=BUCKET, Key="gone.crec")),
    "list_objects_v2": ("s3", lambda s3, at: s3.list_objects_v2(Bucket=BUCKET)),
}


def _client(server: MotoKMS, service: str, credentials: tuple[str, str]) -> Any:
    session = boto3.session.Session(
        aws_access_key_id=credentials[0], aws_secret_access_key=credentials[1], region_name=REGION
    )
    return session.client(service, endpoint_url=server.url, verify=str(server.files.ca_path))  # type: ignore[call-overload]


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    root = (TEST_CREDENTIALS["AWS_ACCESS_KEY_ID"], TEST_CREDENTIALS["AWS_SECRET_ACCESS_KEY"])
    with MotoKMS(tmp_path_factory.mktemp("moto-iam")) as server:
        kms, s3, iam = (_client(server, service, root) for service in ("kms", "s3", "iam"))
        key = kms.create_key()["KeyMetadata"]["Arn"]
        made = kms.generate_data_key(KeyId=key, KeySpec="AES_256", EncryptionContext=CONTEXT)
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        s3.put_object(Bucket=BUCKET, Key="kept.crec", Body=b"x")
        users = {}
        for role in ROLES:
            iam.create_user(UserName=role)
            iam.put_user_policy(UserName=role, PolicyName="role", PolicyDocument=by_actions(role))
            access = iam.create_access_key(UserName=role)["AccessKey"]
            users[role] = (access["AccessKeyId"], access["SecretAccessKey"])
        for client in (kms, s3, iam):
            client.close()
        pool = urllib3.PoolManager(ca_certs=str(server.files.ca_path))
        assert pool.request("POST", f"{server.url}/moto-api/reset-auth", body=b"0").status == 200
        pool.clear()
        yield Account(server=server, key=key, blob=made["CiphertextBlob"], users=users)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_do_what_it_needs_and_nothing_else(account: Account, role: str) -> None:
    assert {operation for operation in OPERATIONS if account.is_allowed(role, operation)} == MAY[role]
