"""A PKCS#11 token as key provider: AES key wrap under a key that cannot leave the token.

Each version of the key is an object of its own, labelled LABEL.vN; the greatest N wraps. A wrapped key names the
version that wrapped it. Nothing binds a slot to its file here; the commitment refuses a transplanted one.

Source: PKCS #11 v2.40 (OASIS), C_WrapKey, C_UnwrapKey, CKM_AES_KEY_WRAP; RFC 3394; docs/recording-format.md, Key slots.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass, PKCS11Error, SecretKey, Session
from pkcs11.exceptions import (
    AttributeSensitive,
    FunctionNotSupported,
    KeyHandleInvalid,
    MechanismInvalid,
    ObjectHandleInvalid,
    PinExpired,
    PinIncorrect,
    PinInvalid,
    PinLenRange,
    PinLocked,
    SessionClosed,
    SessionHandleInvalid,
    UserNotLoggedIn,
    UserPinNotInitialized,
)
from pkcs11.types import UnwrapMixin, WrapMixin

from recording.errors import RecordingError
from recording.format.slots import KeySlot, SlotProvider
from recording.keys.errors import (
    ContextMismatchError,
    KeyAnswerError,
    KeyConfigurationError,
    KeyUnavailableError,
    NotPermittedError,
    UnknownKeyError,
)
from recording.keys.pkcs11_token import shared_token
from recording.keys.provider import (
    DEK_BYTES,
    DataKey,
    KeyContext,
    KeyLifecycle,
    KeyVersion,
    checked_dek,
    require_own,
)
from recording.settings import PKCS11KeySettings

KEK_BITS: Final = 256
_WRAPPED_BYTES: Final = DEK_BYTES + 8  # RFC 3394: one 64-bit block more than what is wrapped
_WRAPPED: Final = re.compile(rb"v(?P<version>[1-9][0-9]{0,8}):(?P<data>.{%d})" % _WRAPPED_BYTES, re.DOTALL)
_LABEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
CREATED: Final = (
    "%Y%m%dT%H%M%SZ"  # in CKA_ID of the keys made here: PKCS#11 itself keeps no moment of creation
)

_SESSION_ENDED: Final = (
    SessionHandleInvalid,
    SessionClosed,
    UserNotLoggedIn,
    KeyHandleInvalid,
    ObjectHandleInvalid,
)
_PIN: Final = (PinIncorrect, PinLocked, PinExpired, PinInvalid, PinLenRange, UserPinNotInitialized)
_NOT_CAPABLE: Final = (MechanismInvalid, FunctionNotSupported, AttributeSensitive)

_Result = TypeVar("_Result")


class PKCS11Provider:
    """One key of one token. Any thread; a call blocks up to `timeout_s`, and one token does one thing at a time."""

    def __init__(self, name: str, settings: PKCS11KeySettings) -> None:
        """No module is loaded and no PIN is read yet.

        Raises:
            KeyConfigurationError: a label that cannot stand in a key id.
        """
        for field, text in (("token_label", settings.token), ("key", settings.key)):
            if _LABEL.fullmatch(text) is None:
                raise KeyConfigurationError(
                    f"keys.{name}: `{field}` {text!r} must be letters, digits, dots, _ and -, at most 64"
                )
        self.name = name
        self._label = settings.key
        self._settings = settings
        self.slot_provider: int = SlotProvider.PKCS11_AES_KW
        self.slot_key_id = f"{settings.token}/{settings.key}".encode()

    def new_key(self, context: KeyContext) -> DataKey:
        """The token draws the data key and wraps it."""
        del context  # AES-KW has no associated data

        def make(session: Session) -> DataKey:
            version, kek = self._newest(session)
            drawn = session.generate_key(
                KeyType.AES, KEK_BITS, store=False, template=_session_key(is_hidden=False)
            )
            try:
                return DataKey(dek=checked_dek(drawn[Attribute.VALUE]), slot=self._wrap(version, kek, drawn))
            finally:
                drawn.destroy()

        return self._run(make)

    def unwrap(self, slot: KeySlot, context: KeyContext) -> bytearray:
        del context
        version, wrapped = self._parse(slot)

        def open_slot(session: Session) -> bytearray:
            opened = _opened(session, self._version(session, version), wrapped, is_hidden=False)
            try:
                return checked_dek(opened[Attribute.VALUE])
            finally:
                opened.destroy()

        return self._run(open_slot)

    def rewrap(self, slot: KeySlot, context: KeyContext) -> KeySlot:
        """Unwrapped and wrapped in the token, as an object whose value the token does not give out."""
        return self.move(slot, context, to=self)

    def move(self, slot: KeySlot, context: KeyContext, *, to: PKCS11Provider) -> KeySlot:
        """As `rewrap`, under the newest version of another key of the same token."""
        del context
        assert to._settings.token == self._settings.token, "both keys are of one token"
        version, wrapped = self._parse(slot)

        def move(session: Session) -> KeySlot:
            newest, kek = to._newest(session)
            opened = _opened(session, self._version(session, version), wrapped, is_hidden=True)
            try:
                return to._wrap(newest, kek, opened)
            finally:
                opened.destroy()

        return self._run(move)

    def lifecycle(self) -> KeyLifecycle:
        """The versions in the token; those made by `b2bua keys rotate` carry the moment."""
        return KeyLifecycle(
            versions=self._run(
                lambda session: tuple(
                    KeyVersion(number=number, created_at=_created_at(bytes(key.id)))
                    for number, key in sorted(self._versions(session).items())
                )
            )
        )

    def version_of(self, slot: KeySlot) -> int:
        match = _WRAPPED.fullmatch(slot.wrapped)
        return 0 if match is None else int(match["version"])

    def describe(self) -> dict[str, str]:
        return {
            "kind": "pkcs11-aes-kw",
            "key_id": self.slot_key_id.decode(),
            "endpoint": f"token {self._settings.token} through {self._settings.module_path}",
            "fit_for_production": "yes",
        }

    def health(self) -> None:
        """The token is there, takes the PIN, and has the key."""
        self._run(self._newest)

    def _run(self, operation: Callable[[Session], _Result]) -> _Result:
        return in_session(self.name, self._settings, operation)

    def _versions(self, session: Session) -> dict[int, SecretKey]:
        found = key_versions(session, self._label)
        if not found:
            raise UnknownKeyError(
                f"keys.{self.name}: token {self._settings.token} has no key labelled {self._label}.v1 or later"
            )
        return found

    def _newest(self, session: Session) -> tuple[int, SecretKey]:
        versions = self._versions(session)
        number = max(versions)
        self._require_kept(number, versions[number])
        return number, versions[number]

    def _version(self, session: Session, number: int) -> SecretKey:
        key = self._versions(session).get(number)
        if key is None:
            raise UnknownKeyError(
                f"keys.{self.name}: token {self._settings.token} has no key labelled {self._label}.v{number}"
            )
        return key

    def _require_kept(self, number: int, key: SecretKey) -> None:
        """The key can wrap and cannot be taken out of the token."""
        if key[Attribute.EXTRACTABLE] or not key[Attribute.SENSITIVE]:
            raise KeyConfigurationError(
                f"keys.{self.name}: {self._label}.v{number} can be taken out of the token; "
                "make one that is sensitive and not extractable"
            )
        if key.key_length != KEK_BITS:
            raise KeyConfigurationError(
                f"keys.{self.name}: {self._label}.v{number} is no AES-{KEK_BITS} key; make one"
            )

    def _parse(self, slot: KeySlot) -> tuple[int, bytes]:
        require_own(self, slot)
        match = _WRAPPED.fullmatch(slot.wrapped)
        if match is None:
            raise ContextMismatchError(
                f"what the slot holds is no version and {_WRAPPED_BYTES} bytes wrapped by AES-KW"
            )
        return int(match["version"]), match["data"]

    def _wrap(self, version: int, kek: SecretKey, key: SecretKey) -> KeySlot:
        if not isinstance(kek, WrapMixin):
            raise NotPermittedError(
                f"keys.{self.name}: {self._label}.v{version} may not wrap; the token says so"
            )
        wrapped = kek.wrap_key(key, mechanism=Mechanism.AES_KEY_WRAP)
        if len(wrapped) != _WRAPPED_BYTES:
            raise KeyAnswerError(
                f"the token wrapped a data key into {len(wrapped)} bytes, not {_WRAPPED_BYTES}"
            )
        return KeySlot(
            provider=self.slot_provider, key_id=self.slot_key_id, wrapped=b"v%d:" % version + bytes(wrapped)
        )


def in_session(name: str, settings: PKCS11KeySettings, operation: Callable[[Session], _Result]) -> _Result:
    """What `operation` returns, in the token's session; once more in a new one if the token ended the first.

    Raises:
        RecordingError: what the token said, in the words of recording.keys.errors.
    """
    token = shared_token(settings.module_path, settings.token, settings.pin_path)

    def attempt() -> _Result:
        for is_last in (False, True):
            session = token.session()
            try:
                return operation(session)
            except _SESSION_ENDED as error:
                token.drop()
                if is_last:
                    raise _refusal(name, error) from error
            except PKCS11Error as error:
                raise _refusal(name, error) from error
        raise AssertionError("the last attempt returns or raises")

    return token.run(attempt, timeout_s=settings.timeout_s)


def key_versions(session: Session, label: str, *, suffix: str = "") -> dict[int, SecretKey]:
    """The keys labelled LABEL.vN and `suffix`, by N. Raises KeyConfigurationError: two of one label."""
    pattern = re.compile(re.escape(label) + r"\.v([1-9][0-9]{0,8})" + re.escape(suffix))
    found: dict[int, SecretKey] = {}
    for key in list(session.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY})):
        match = pattern.fullmatch(key.label or "") if isinstance(key, SecretKey) else None
        if match is not None:
            assert isinstance(key, SecretKey)
            if int(match[1]) in found:
                raise KeyConfigurationError(
                    f"the token has two keys labelled {match[0]}; relabel the one that wrapped nothing, and remove none"
                )
            found[int(match[1])] = key
    return found


def _session_key(*, is_hidden: bool) -> dict[Attribute, Any]:
    """A data key while it is in the token. A hidden one can be wrapped again and not be read."""
    return {Attribute.EXTRACTABLE: True, Attribute.SENSITIVE: is_hidden}


def _opened(session: Session, kek: SecretKey, wrapped: bytes, *, is_hidden: bool) -> SecretKey:
    """The data key as a session object. Raises ContextMismatchError: the wrapped key is not this key's work."""
    if not isinstance(kek, UnwrapMixin):
        raise NotPermittedError(f"key {kek.label} may not unwrap; the token says so")
    try:
        return _unwrapped(kek, wrapped, is_hidden=is_hidden)
    except (*_SESSION_ENDED, *_NOT_CAPABLE):
        raise
    except PKCS11Error as error:
        # Tokens have no common word for a failed integrity check, and some say "general error" for it.
        if _still_works(session, kek):
            raise ContextMismatchError(
                "the wrapped data key was altered, or another key wrapped it"
            ) from error
        raise


def _unwrapped(kek: UnwrapMixin, wrapped: bytes, *, is_hidden: bool) -> SecretKey:
    key = kek.unwrap_key(
        ObjectClass.SECRET_KEY,
        KeyType.AES,
        wrapped,
        mechanism=Mechanism.AES_KEY_WRAP,
        store=False,
        template=_session_key(is_hidden=is_hidden),
    )
    assert isinstance(key, SecretKey)
    return key


def _still_works(session: Session, kek: SecretKey) -> bool:
    """Whether the key wraps and unwraps a key of our own."""
    drawn = session.generate_key(KeyType.AES, KEK_BITS, store=False, template=_session_key(is_hidden=True))
    try:
        if not isinstance(kek, WrapMixin) or not isinstance(kek, UnwrapMixin):
            return False
        wrapped = kek.wrap_key(drawn, mechanism=Mechanism.AES_KEY_WRAP)
        _unwrapped(kek, wrapped, is_hidden=True).destroy()
    except PKCS11Error:
        return False
    finally:
        drawn.destroy()
    return True


def _created_at(identifier: bytes) -> datetime | None:
    try:
        return datetime.strptime(identifier.decode("ascii"), CREATED).replace(tzinfo=UTC)
    except ValueError:  # UnicodeDecodeError is one; the key was made by another program
        return None


def _refusal(name: str, error: PKCS11Error) -> RecordingError:
    """The one place where the token's refusals become our errors."""
    kind = type(error).__name__
    if isinstance(error, _PIN):
        return NotPermittedError(f"keys.{name}: the token does not take the PIN: {kind}")
    if isinstance(error, _NOT_CAPABLE):
        return KeyConfigurationError(
            f"keys.{name}: {kind}; the token must do AES key wrap and show session keys that are not sensitive"
        )
    return KeyUnavailableError(f"keys.{name}: the token cannot serve now: {kind}")
