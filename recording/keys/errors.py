"""Errors of key providers and of the pool, split by what the catcher does next.

    KeyUnavailableError      34  try again later: the service is down, slow or busy
    NotPermittedError        35  this identity may not; trying again changes nothing, an operator must act
    UnknownKeyError          36  not a key of this provider (or one that is switched off): try the next slot
    ContextMismatchError     37  wrapped for another file or tenant, or altered: try the next slot
    KeyAnswerError           38  the service answered what it may not; its answer was thrown away
    KeyConfigurationError    39  settings or key file; says the cure
    NoKeyError               40  the pool has no key ready for this tenant
    SlotNotMovedError       112  one file's data key could not be rewrapped; the others can
    KeyInUseError           113  something depends on the key: move it or wait, nothing was changed
    KeyOperationError       114  the provider has no such operation; says what to do instead

The two that a reader gets over by trying another slot are `UnwrapError`s.
"""

from __future__ import annotations

from collections.abc import Sequence

from recording.errors import RecordingError, UnwrapError


class KeyUnavailableError(RecordingError):
    """The key service did not answer in time, or said it cannot serve now. Transient.

    `retry_after_s`: how long it asked to be left alone, 0 if it did not say.
    """

    exit_code = 34

    def __init__(self, what: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(what)
        self.retry_after_s = retry_after_s


class NotPermittedError(RecordingError):
    """The key service knows us and refuses, or does not accept our credentials.

    The recorder's normal answer to `unwrap`: it may ask for data keys, never open them.
    """

    exit_code = 35


class UnknownKeyError(UnwrapError):
    """The slot names another provider or key than this one serves, or the service has no such usable key."""

    exit_code = 36


class ContextMismatchError(UnwrapError):
    """The wrapped key does not open under this file's context.

    Transplanted, altered, or wrapped by another key.
    """

    exit_code = 37


class KeyAnswerError(RecordingError):
    """The service's answer breaks its contract.

    A key of the wrong length, another key's id, or no answer at all.
    """

    exit_code = 38


class KeyConfigurationError(RecordingError):
    """Key settings or a key file that cannot be used. Says what is wrong and how to mend it."""

    exit_code = 39


class NoKeyError(RecordingError):
    """No data key is ready. Raised at once, the pool never makes its caller wait."""

    exit_code = 40
    reason_label = "no_key"

    def __init__(self, tenant: str) -> None:
        super().__init__(f"no data key is ready for tenant {tenant!r}; the key provider's health says why")
        self.tenant = tenant


# ---- looking after keys ------------------------------------------------------------------------------------


class SlotNotMovedError(RecordingError):
    """A recording's data key could not be brought under another key; the file and its slots are as they were."""

    exit_code = 112


class KeyInUseError(RecordingError):
    """A key that recordings or tenants depend on is not taken away; they are named.

    `file_ids` holds all of them, the text some.
    """

    exit_code = 113

    def __init__(self, what: str, *, file_ids: Sequence[bytes] = ()) -> None:
        super().__init__(what)
        self.file_ids = tuple(file_ids)


class KeyOperationError(RecordingError):
    """The key's provider has no such operation, or did not do what it confirmed. Says what to do instead."""

    exit_code = 114
