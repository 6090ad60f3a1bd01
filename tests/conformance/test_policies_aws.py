"""The policies for AWS, by a table over the shipped files: each role's work, and what it must never do.

Not evaluated by AWS: the evaluator is tests/support/iam.py. Each statement is needed: without it a row is answered
otherwise. Which actions a policy allows is asked of moto too, which looks at actions alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

from support.iam import ALLOW_ALL, Request, Statement, is_allowed, load

DIRECTORY: Final = Path(__file__).parents[2] / "packaging" / "policies" / "aws"
ROLES: Final = ("recorder", "uploader", "player", "rewrapper", "key-administrator", "auditor", "steward")

_KEYS = "arn:aws:kms:eu-central-1:444455556666:key/"
KEK: Final = _KEYS + "11111111-1111-4111-8111-111111111111"
NEXT_KEK: Final = _KEYS + "22222222-2222-4222-8222-222222222222"
AUDIT_KEK: Final = _KEYS + "33333333-3333-4333-8333-333333333333"
FOREIGN_KEK: Final = _KEYS + "44444444-4444-4444-8444-444444444444"
SSE_KEY: Final = "arn:aws:kms:eu-central-1:111122223333:key/99999999-9999-4999-8999-999999999999"
BUCKET: Final = "arn:aws:s3:::example-recordings"
_STEM = f"{BUCKET}/{'ab' * 16}/2026/03/{'cd' * 16}"
RECORDING: Final = f"{_STEM}.crec"
SLOTS: Final = f"{_STEM}.1.slots"
FOREIGN_OBJECT: Final = "arn:aws:s3:::another-bucket/x.crec"

TENANT = "00112233445566778899aabbccddeeff"
MINE: Final = {
    "kms:EncryptionContext:crec-tenant": TENANT,
    "kms:EncryptionContextKeys": ("crec-file", "crec-tenant"),
}
OTHER_TENANT: Final = {**MINE, "kms:EncryptionContext:crec-tenant": "f" * 32}
NO_CONTEXT: Final[Mapping[str, str | tuple[str, ...]]] = {}
MORE_CONTEXT: Final = {**MINE, "kms:EncryptionContextKeys": ("crec-file", "crec-tenant", "note")}
THROUGH_S3: Final = {"kms:ViaService": "s3.eu-central-1.amazonaws.com"}


def asks(action: str, resource: str, context: Mapping[str, str | tuple[str, ...]] = NO_CONTEXT) -> Request:
    return Request(action=action, resource=resource, context=context)


def of(
    actions: str, *resources: str, context: Mapping[str, str | tuple[str, ...]] = NO_CONTEXT
) -> list[Request]:
    """Each action on each resource."""
    return [asks(action, resource, context) for action in actions.split() for resource in resources]


STORING: Final = of(
    "s3:PutObject s3:AbortMultipartUpload s3:ListMultipartUploadParts s3:PutObjectRetention s3:GetObjectRetention",
    RECORDING,
) + of("s3:PutObject", SLOTS)
LISTING: Final = of(
    "s3:ListBucket s3:ListBucketMultipartUploads s3:ListBucketVersions s3:GetBucketVersioning "
    "s3:GetBucketObjectLockConfiguration",
    BUCKET,
)
SSE: Final = of("kms:GenerateDataKey kms:Decrypt", SSE_KEY, context=THROUGH_S3)
CRYPTOGRAPHY: Final = (
    "kms:Decrypt kms:Encrypt kms:ReEncryptFrom kms:ReEncryptTo kms:GenerateDataKey kms:CreateGrant"
)
READING_AND_DELETING: Final = (
    "s3:GetObject s3:GetObjectVersion s3:DeleteObject s3:DeleteObjectVersion s3:PutObjectAcl s3:PutObjectVersionAcl "
    "s3:BypassGovernanceRetention"
)
ADMINISTERING: Final = (
    "kms:DescribeKey kms:DisableKey kms:EnableKey kms:EnableKeyRotation kms:GetKeyPolicy kms:GetKeyRotationStatus "
    "kms:ListKeyRotations kms:PutKeyPolicy kms:RotateKeyOnDemand kms:ScheduleKeyDeletion kms:CancelKeyDeletion"
)

MAY: Final[Mapping[str, Sequence[Request]]] = {
    "recorder": [
        asks("kms:GenerateDataKey", KEK, MINE),
        asks("kms:GenerateDataKey", AUDIT_KEK, OTHER_TENANT),
        *SSE,
        *STORING,
        *LISTING,
    ],
    "uploader": [*SSE, *STORING, *LISTING],
    "player": [
        asks("kms:Decrypt", KEK, MINE),
        asks("kms:Decrypt", SSE_KEY, THROUGH_S3),
        *of("s3:GetObject s3:GetObjectVersion", RECORDING, SLOTS),
        *of("s3:ListBucket s3:ListBucketVersions", BUCKET),
    ],
    "rewrapper": [
        *of("kms:ReEncryptFrom kms:ReEncryptTo", KEK, NEXT_KEK, context=MINE),
        *SSE,
        *of("s3:GetObject", RECORDING, SLOTS),
        *of("s3:GetObjectRetention s3:GetObjectLegalHold", RECORDING, SLOTS),
        *of("s3:PutObject s3:PutObjectRetention s3:PutObjectLegalHold", SLOTS),
        asks("s3:ListBucket", BUCKET),
    ],
    "key-administrator": [
        *of("kms:CreateKey kms:ListKeys kms:ListAliases kms:TagResource", "*"),
        *of(ADMINISTERING, KEK, NEXT_KEK, AUDIT_KEK),
    ],
    "auditor": [
        *of("kms:DescribeKey kms:GetKeyRotationStatus kms:ListKeyRotations", KEK, NEXT_KEK, AUDIT_KEK),
        asks("kms:Decrypt", AUDIT_KEK, OTHER_TENANT),
        asks("kms:Decrypt", SSE_KEY, THROUGH_S3),
        *of("s3:GetObject s3:GetObjectVersion s3:GetObjectRetention s3:GetObjectLegalHold", RECORDING, SLOTS),
        *of(
            "s3:ListBucket s3:ListBucketVersions s3:GetBucketVersioning s3:GetBucketObjectLockConfiguration",
            BUCKET,
        ),
    ],
    "steward": [
        *of(
            "s3:DeleteObjectVersion s3:GetObjectRetention s3:PutObjectRetention s3:GetObjectLegalHold "
            "s3:PutObjectLegalHold",
            RECORDING,
            SLOTS,
        ),
        *of("s3:ListBucket s3:ListBucketVersions", BUCKET),
    ],
}

# Refused for want of an allow: right action, wrong key, tenant, context or place.
MAY_NOT: Final[Mapping[str, Sequence[Request]]] = {
    "recorder": [
        asks("kms:GenerateDataKey", KEK, OTHER_TENANT),
        asks("kms:GenerateDataKey", KEK),
        asks("kms:GenerateDataKey", KEK, MORE_CONTEXT),
        asks("kms:GenerateDataKey", FOREIGN_KEK, MINE),
        asks("kms:GenerateDataKey", SSE_KEY),
        asks("kms:Decrypt", SSE_KEY),
        asks("kms:ScheduleKeyDeletion", KEK),
        asks("s3:PutObject", FOREIGN_OBJECT),
        asks("s3:PutBucketPolicy", BUCKET),
        asks("s3:PutObjectLegalHold", RECORDING),
    ],
    "uploader": [asks("s3:PutObject", FOREIGN_OBJECT), asks("kms:Decrypt", SSE_KEY)],
    "player": [
        asks("kms:Decrypt", KEK, OTHER_TENANT),
        asks("kms:Decrypt", KEK),
        asks("kms:Decrypt", KEK, MORE_CONTEXT),
        asks("kms:Decrypt", FOREIGN_KEK, MINE),
        asks("kms:Decrypt", SSE_KEY),
        asks("s3:GetObject", FOREIGN_OBJECT),
    ],
    "rewrapper": [
        *of("kms:ReEncryptFrom kms:ReEncryptTo", FOREIGN_KEK, context=MINE),
        *of("kms:ReEncryptFrom kms:ReEncryptTo", KEK, context=OTHER_TENANT),
        *of("kms:ReEncryptFrom kms:ReEncryptTo", KEK, context=MORE_CONTEXT),
        asks("kms:Decrypt", SSE_KEY),
        asks("s3:GetObject", FOREIGN_OBJECT),
    ],
    "key-administrator": [asks("kms:DescribeKey", SSE_KEY), asks("iam:PassRole", "*")],
    "auditor": [
        asks("kms:DescribeKey", FOREIGN_KEK),
        asks("kms:DisableKey", KEK),
        asks("kms:Decrypt", SSE_KEY),
        asks("s3:GetObject", FOREIGN_OBJECT),
    ],
    "steward": [
        asks("s3:DeleteObjectVersion", FOREIGN_OBJECT),
        asks("s3:PutBucketPolicy", BUCKET),
        asks("kms:DescribeKey", KEK),
    ],
}

# Refused whatever another policy of the same role allows.
NEVER: Final[Mapping[str, Sequence[Request]]] = {
    "recorder": [
        *of(
            "kms:Decrypt kms:Encrypt kms:ReEncryptFrom kms:ReEncryptTo kms:CreateGrant",
            KEK,
            AUDIT_KEK,
            context=MINE,
        ),
        *of(READING_AND_DELETING, RECORDING, SLOTS),
    ],
    "uploader": [
        *of(CRYPTOGRAPHY, KEK, AUDIT_KEK, context=MINE),
        *of(READING_AND_DELETING, RECORDING, SLOTS),
    ],
    "player": [
        *of(
            "kms:GenerateDataKey kms:Encrypt kms:ReEncryptFrom kms:ReEncryptTo kms:CreateGrant",
            KEK,
            context=MINE,
        ),
        *of(
            "s3:PutObject s3:PutObjectAcl s3:DeleteObject s3:DeleteObjectVersion s3:BypassGovernanceRetention",
            RECORDING,
        ),
    ],
    "rewrapper": [
        *of(
            "kms:Decrypt kms:Encrypt kms:GenerateDataKey kms:GenerateDataKeyPair kms:CreateGrant",
            KEK,
            NEXT_KEK,
            context=MINE,
        ),
        *of("s3:PutObject s3:PutObjectRetention s3:PutObjectLegalHold s3:PutObjectAcl", RECORDING),
        *of("s3:DeleteObject s3:DeleteObjectVersion s3:BypassGovernanceRetention", RECORDING, SLOTS),
    ],
    "key-administrator": [
        *of(CRYPTOGRAPHY, KEK, AUDIT_KEK, context=MINE),
        *of("s3:GetObject s3:PutObject s3:DeleteObject", RECORDING),
        asks("s3:ListBucket", BUCKET),
    ],
    "auditor": [
        *of(CRYPTOGRAPHY, KEK, NEXT_KEK, context=MINE),
        *of("s3:PutObject s3:DeleteObject s3:DeleteObjectVersion s3:BypassGovernanceRetention", RECORDING),
    ],
    "steward": [
        *of(CRYPTOGRAPHY, KEK, AUDIT_KEK, SSE_KEY, context=MINE),
        *of(
            "s3:GetObject s3:GetObjectVersion s3:PutObject s3:PutObjectAcl s3:PutObjectVersionAcl s3:DeleteObject "
            "s3:BypassGovernanceRetention",
            RECORDING,
            SLOTS,
        ),
    ],
}


def wrong_rows(role: str, statements: Sequence[Statement]) -> list[Request]:
    """Rows that these statements answer otherwise than the role's must."""
    wide = [*statements, ALLOW_ALL]
    return [
        *(row for row in MAY[role] if not is_allowed(statements, row)),
        *(row for row in (*MAY_NOT[role], *NEVER[role]) if is_allowed(statements, row)),
        *(row for row in NEVER[role] if is_allowed(wide, row)),
    ]


def policy(role: str) -> list[Statement]:
    return load(DIRECTORY / f"{role}.json")


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_do_what_it_needs_and_nothing_else(role: str) -> None:
    assert wrong_rows(role, policy(role)) == []


@pytest.mark.parametrize(
    ("role", "number"), [(role, at) for role in ROLES for at in range(len(policy(role)))]
)
def test_every_statement_is_needed(role: str, number: int) -> None:
    statements = policy(role)
    del statements[number]
    assert wrong_rows(role, statements) != []


@pytest.mark.parametrize(
    ("role", "number"),
    [(role, at) for role in ROLES for at, each in enumerate(policy(role)) if "Condition" in each],
)
def test_every_condition_is_needed(role: str, number: int) -> None:
    statements = policy(role)
    for operator in statements[number]["Condition"]:
        left = {name: value for name, value in statements[number]["Condition"].items() if name != operator}
        changed = [*statements[:number], {**statements[number], "Condition": left}, *statements[number + 1 :]]
        assert wrong_rows(role, changed) != [], operator


@pytest.mark.parametrize(
    ("role", "number", "action"),
    [
        (role, at, action)
        for role in ROLES
        for at, each in enumerate(policy(role))
        if isinstance(each["Action"], list)
        for action in each["Action"]
    ],
)
def test_every_action_is_needed(role: str, number: int, action: str) -> None:
    statements = policy(role)
    left = [each for each in statements[number]["Action"] if each != action]
    changed = [*statements[:number], {**statements[number], "Action": left}, *statements[number + 1 :]]
    assert wrong_rows(role, changed) != []


def test_the_buckets_own_key_is_no_key_of_recordings() -> None:
    """An upload under SSE-KMS needs Decrypt on the bucket's key: were that a recording's, the recorder could read."""
    for role in ROLES:
        for statement in policy(role):
            if statement["Effect"] == "Allow" and SSE_KEY in str(statement.get("Resource")):
                assert statement["Resource"] == SSE_KEY
                assert statement["Condition"] == {"StringEquals": THROUGH_S3}


# ---- the key's own policy


def role_arn(role: str) -> str:
    account = "444455556666" if role == "key-administrator" else "111122223333"
    return f"arn:aws:iam::{account}:role/sealtrunk-{role}"


def by(role: str, action: str, context: Mapping[str, str | tuple[str, ...]] = MINE) -> Request:
    arn = role_arn(role)
    return Request(action=action, resource=KEK, principal=arn, context={**context, "aws:PrincipalArn": arn})


KEY_MAY: Final = [
    by("recorder", "kms:GenerateDataKey"),
    by("player", "kms:Decrypt"),
    by("rewrapper", "kms:ReEncryptFrom"),
    by("rewrapper", "kms:ReEncryptTo"),
    *(
        by("auditor", action)
        for action in ("kms:DescribeKey", "kms:GetKeyRotationStatus", "kms:ListKeyRotations")
    ),
    *(by("key-administrator", action) for action in ADMINISTERING.split()),
]
KEY_MAY_NOT: Final = [
    *(
        by("recorder", action)
        for action in ("kms:Decrypt", "kms:ReEncryptFrom", "kms:DescribeKey", "kms:DisableKey")
    ),
    *(
        by(role, "kms:GenerateDataKey")
        for role in ("player", "rewrapper", "auditor", "key-administrator", "uploader")
    ),
    *(by(role, "kms:Decrypt") for role in ("rewrapper", "auditor", "key-administrator", "uploader")),
    *(by("recorder", "kms:GenerateDataKey", context) for context in (OTHER_TENANT, NO_CONTEXT, MORE_CONTEXT)),
    *(by("player", "kms:Decrypt", context) for context in (OTHER_TENANT, NO_CONTEXT, MORE_CONTEXT)),
    *(by("rewrapper", "kms:ReEncryptTo", context) for context in (OTHER_TENANT, MORE_CONTEXT)),
    by("player", "kms:ScheduleKeyDeletion"),
]


def wrong_for_key(statements: Sequence[Statement]) -> list[Request]:
    careless = [*statements, {**ALLOW_ALL, "Principal": {"AWS": "*"}}]
    strangers = [by(role, "kms:Decrypt") for role in ROLES if role != "player"]
    return [
        *(row for row in KEY_MAY if not is_allowed(statements, row)),
        *(row for row in KEY_MAY_NOT if is_allowed(statements, row)),
        *(row for row in strangers if is_allowed(careless, row)),
    ]


def test_the_keys_policy_lets_each_role_do_its_own_part() -> None:
    assert wrong_for_key(policy("key-policy")) == []


@pytest.mark.parametrize("number", range(len(policy("key-policy"))))
def test_every_statement_of_the_keys_policy_is_needed(number: int) -> None:
    statements = policy("key-policy")
    del statements[number]
    assert wrong_for_key(statements) != []
