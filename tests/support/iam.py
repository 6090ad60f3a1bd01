"""An evaluator of AWS policies, as far as the shipped ones need it. It is not AWS: no server evaluates this here.

Source: AWS IAM User Guide, "Policy evaluation logic", "IAM JSON policy elements: Condition operators".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Statement = Mapping[str, Any]
ALLOW_ALL: Statement = {"Sid": "AnotherPolicy", "Effect": "Allow", "Action": "*", "Resource": "*"}
_KNOWN = {"Sid", "Effect", "Principal", "Action", "Resource", "NotResource", "Condition"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What somebody asks for. `context` has a text or several for each condition key that the request carries."""

    action: str
    resource: str
    context: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    principal: str | None = None


def load(path: Path) -> list[Statement]:
    """The statements of a file. Refuses elements that this evaluator does not know: they would be ignored."""
    document = json.loads(path.read_text())
    assert document["Version"] == "2012-10-17"
    statements: list[Statement] = document["Statement"]
    for statement in statements:
        assert set(statement) <= _KNOWN, set(statement) - _KNOWN
        assert ("Resource" in statement) != ("NotResource" in statement)
    return statements


def is_allowed(statements: Sequence[Statement], request: Request) -> bool:
    """An explicit deny wins, then an allow; nothing said is a deny."""
    effects = {statement["Effect"] for statement in statements if _applies(statement, request)}
    assert effects <= {"Allow", "Deny"}
    return effects == {"Allow"}


def _applies(statement: Statement, request: Request) -> bool:
    return (
        _any_like(statement["Action"], request.action, ignore_case=True)
        and _resource_applies(statement, request.resource)
        and _principal_applies(statement, request.principal)
        and all(
            _holds(operator, name, _listed(wanted), request.context)
            for operator, tests in statement.get("Condition", {}).items()
            for name, wanted in tests.items()
        )
    )


def _resource_applies(statement: Statement, resource: str) -> bool:
    if "NotResource" in statement:
        return not _any_like(statement["NotResource"], resource)
    return _any_like(statement["Resource"], resource)


def _principal_applies(statement: Statement, principal: str | None) -> bool:
    if "Principal" not in statement:
        return True
    assert principal is not None, "a resource's policy is asked about somebody"
    return any(each in ("*", principal) for each in _listed(statement["Principal"]["AWS"]))


def _holds(
    operator: str, name: str, wanted: Sequence[str], context: Mapping[str, str | tuple[str, ...]]
) -> bool:
    found = context.get(name)
    match operator:
        case "StringEquals":
            return isinstance(found, str) and found in wanted
        case "StringNotEquals":
            return found not in wanted
        case "ForAllValues:StringEquals":
            return all(each in wanted for each in _listed(found or ()))
        case _:
            raise AssertionError(f"the evaluator does not know {operator}")


def _any_like(patterns: str | Sequence[str], value: str, *, ignore_case: bool = False) -> bool:
    flags = re.IGNORECASE if ignore_case else 0
    return any(
        re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), value, flags)
        for pattern in _listed(patterns)
    )


def _listed(value: str | Sequence[str]) -> Sequence[str]:
    return (value,) if isinstance(value, str) else value
