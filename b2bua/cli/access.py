"""Why something is decrypted, and for whom: the arguments every command that opens a recording has.

The reason is one of a closed list and the ticket has a form of its own, so that no name and no number can get into the
audit line by way of them. Source: 45 CFR 164.312(b), audit controls; 164.502, permitted uses.
"""

from __future__ import annotations

import argparse
import enum
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from b2bua.audit import TICKET
from b2bua.errors import CommandError
from recording.cms import Recipient, RecipientError, parse_recipient
from recording.errors import ExportError

_CERTIFICATE_MAX = 1 << 16


class AccessReason(enum.Enum):
    """What a recording may be opened for."""

    TREATMENT = "treatment"
    PAYMENT = "payment"
    OPERATIONS = "operations"
    PATIENT_REQUEST = "patient_request"
    COMPLAINT = "complaint"
    QUALITY_REVIEW = "quality_review"
    TRANSCRIPTION = "transcription"
    LEGAL_PROCESS = "legal_process"
    SECURITY_INCIDENT = "security_incident"
    INTEGRITY_CHECK = "integrity_check"
    MIGRATION = "migration"
    TEST = "test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """One reason for one command. `action` is what is done, as the audit line says it."""

    action: str
    reason: AccessReason
    ticket: str | None


def add_access(parser: argparse.ArgumentParser, *, is_required: bool = True) -> None:
    """`--reason` and `--ticket`."""
    parser.add_argument(
        "--reason",
        choices=[reason.value for reason in AccessReason],
        required=is_required,
        metavar="REASON",
        help=f"why it is decrypted, for the audit log: {', '.join(reason.value for reason in AccessReason)}",
    )
    add_ticket(parser)


def add_ticket(parser: argparse.ArgumentParser) -> None:
    """`--ticket` alone."""
    parser.add_argument(
        "--ticket", metavar="ID", type=_ticket, help="the request behind it, for the audit log: QA-1234"
    )


def access_of(arguments: argparse.Namespace, action: str) -> Access:
    """What was given for `action`.

    Raises:
        CommandError: no reason.
    """
    if arguments.reason is None:
        raise CommandError("what is decrypted needs a reason; give --reason, and --ticket if there is one")
    return Access(action=action, reason=AccessReason(arguments.reason), ticket=arguments.ticket)


def add_sealing(parser: argparse.ArgumentParser) -> None:
    """`--recipient` and `--plaintext`: who will be able to read what is written."""
    parser.add_argument(
        "--recipient",
        metavar="CERT",
        type=Path,
        action="append",
        default=[],
        help="seal what is written to this certificate (PEM); more than one may be given",
    )
    parser.add_argument(
        "--plaintext",
        action="store_true",
        help="write it readable by whoever gets the file (mode 0600); the audit log says so",
    )


def check_new(path: Path, *, is_forced: bool) -> None:
    """Refuse to write over a file before anything is opened or audited. Raises ExportError."""
    if os.path.lexists(path) and not is_forced:
        raise ExportError(f"{path} exists already; name another file, or say --force to replace it")


def recipients_of(arguments: argparse.Namespace) -> tuple[Recipient, ...]:
    """The recipients, checked; none where plaintext was asked for.

    Raises:
        CommandError: neither or both, or a file that can't be read.
        RecipientError: a certificate that nothing may be sealed to; says which.
    """
    if bool(arguments.recipient) == arguments.plaintext:
        raise CommandError(
            "say who may read it: --recipient CERT seals it to a certificate (openssl cms -decrypt opens it), "
            "--plaintext writes it readable; one of the two"
        )
    return tuple(read_recipient(path) for path in arguments.recipient)


def read_recipient(path: Path) -> Recipient:
    """The certificate in a file, fit to seal to.

    Raises:
        CommandError: the file can't be read. RecipientError: it holds none that anything may be sealed to.
    """
    try:
        with path.open("rb") as file:
            pem = file.read(_CERTIFICATE_MAX)
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}; name a certificate") from error
    try:
        return parse_recipient(pem, now=datetime.now(UTC))
    except RecipientError as error:
        raise RecipientError(f"{path}: {error}") from error


def _ticket(text: str) -> str:
    if re.fullmatch(TICKET, text) is None:
        raise argparse.ArgumentTypeError(
            "a ticket is two to four capital letters, a hyphen and up to six digits: QA-1234"
        )
    return text
