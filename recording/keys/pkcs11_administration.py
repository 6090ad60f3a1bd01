"""What a key administrator may do to the keys of a PKCS#11 token.

A version out of use keeps its object under a label that no provider looks for, so that it can be taken back.
Source: PKCS #11 v2.40 (OASIS), C_GenerateKey, C_SetAttributeValue, C_DestroyObject.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, TypeVar

from pkcs11 import Attribute, KeyType, MechanismFlag, SecretKey, Session

from recording.keys.administration import DISABLED_SUFFIX
from recording.keys.errors import KeyOperationError, UnknownKeyError
from recording.keys.pkcs11 import CREATED, KEK_BITS, in_session, key_versions
from recording.keys.pkcs11_token import shared_token
from recording.settings import PKCS11KeySettings

_PENDING_SUFFIX: Final = ".new"

_Result = TypeVar("_Result")


class PKCS11Administration:
    """The keys of one label. The PIN is that of a user who may store objects."""

    def __init__(self, name: str, settings: PKCS11KeySettings) -> None:
        """Loads no module, reads no PIN."""
        self.name = name
        self._settings = settings

    def rotate(self) -> str:
        """The first version too is made like this."""
        number = self._run(self._create)
        if number not in self._run(self._enabled):
            raise KeyOperationError(f"keys.{self.name}: the token took the order and made no new version")
        return f"version {number} wraps from now on"

    def disable(self) -> str:
        """Does nothing twice: a run that was killed after it is run again."""
        if not self._run(self._enabled) and (former := self._run(self._disabled)):
            return f"{len(former)} versions were labelled {DISABLED_SUFFIX} before and open nothing"
        count = self._run(lambda _: self._relabel(lambda number, newest: number <= newest))
        return f"{count} versions are labelled {DISABLED_SUFFIX} and open nothing"

    def disable_older(self) -> str:
        count = self._run(lambda _: self._relabel(lambda number, newest: number < newest))
        return f"{count} versions before the newest are labelled {DISABLED_SUFFIX} and open nothing"

    def destroy(self) -> str:
        """Those that were disabled too."""

        def remove(_: Session) -> int:
            with self._writing() as writer:
                doomed = [*self._enabled(writer).values(), *self._disabled(writer).values()]
                for key in doomed:
                    key.destroy()
                left = len(self._enabled(writer)) + len(self._disabled(writer))
            if left:
                raise KeyOperationError(f"keys.{self.name}: the token still has {left} versions of the key")
            return len(doomed)

        count = self._run(remove)
        if not count:
            raise UnknownKeyError(f"keys.{self.name}: the token has no key of that label")
        return f"{count} versions are gone from the token; so they must be from its backups"

    def _create(self, session: Session) -> int:
        """Under a label that no provider looks for, until it is clear that nobody else makes the same version.

        Who finds another one withdraws. Each looks after making its own, so of two at least one sees the other.
        """
        number = max([*self._enabled(session), *self._disabled(session)], default=0) + 1
        label = f"{self._settings.key}.v{number}"
        with self._writing() as writer:
            made = writer.generate_key(
                KeyType.AES,
                KEK_BITS,
                label=label + _PENDING_SUFFIX,
                id=datetime.now(UTC).strftime(CREATED).encode(),
                store=True,
                capabilities=MechanismFlag.WRAP | MechanismFlag.UNWRAP,
                template={Attribute.EXTRACTABLE: False, Attribute.SENSITIVE: True, Attribute.PRIVATE: True},
            )
            pending = len(list(writer.get_objects({Attribute.LABEL: label + _PENDING_SUFFIX})))
            # In this order: what is not pending any more is enabled by now.
            if pending > 1 or number in self._enabled(writer):
                made.destroy()
                raise KeyOperationError(
                    f"keys.{self.name}: somebody else makes version {number} now, so none was made here; see "
                    f"b2bua keys status. If nobody does, a run was killed: remove the object {label}{_PENDING_SUFFIX}"
                )
            made[Attribute.LABEL] = label
        return number

    def _relabel(self, chosen: Callable[[int, int], bool]) -> int:
        """Take the versions out of use for which `chosen` says so, given their number and the newest one."""
        with self._writing() as writer:
            enabled = self._enabled(writer)
            if not enabled:
                raise UnknownKeyError(f"keys.{self.name}: the token has no key of that label")
            doomed = [number for number in enabled if chosen(number, max(enabled))]
            for number in doomed:
                enabled[number][Attribute.LABEL] = f"{self._settings.key}.v{number}{DISABLED_SUFFIX}"
            if not set(doomed).isdisjoint(self._enabled(writer)):
                raise KeyOperationError(f"keys.{self.name}: the token took the order and left the labels")
        return len(doomed)

    def _enabled(self, session: Session) -> dict[int, SecretKey]:
        return key_versions(session, self._settings.key)

    def _disabled(self, session: Session) -> dict[int, SecretKey]:
        return key_versions(session, self._settings.key, suffix=DISABLED_SUFFIX)

    def _writing(self) -> contextlib.AbstractContextManager[Session]:
        settings = self._settings
        return shared_token(settings.module_path, settings.token, settings.pin_path).writing()

    def _run(self, operation: Callable[[Session], _Result]) -> _Result:
        return in_session(self.name, self._settings, operation)
