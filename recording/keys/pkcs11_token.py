"""Sessions with PKCS#11 tokens: one per token and process, for a login holds for the whole process.

Source: PKCS #11 v2.40 (OASIS), section 2.6 (sessions), C_Login.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pkcs11
from pkcs11 import MultipleTokensReturned, NoSuchToken, PKCS11Error, Session
from pkcs11.exceptions import PinExpired, PinIncorrect, PinInvalid, PinLenRange, PinLocked

from recording.keys.errors import KeyConfigurationError, KeyUnavailableError, NotPermittedError
from recording.keys.secret_file import SecretLine

_PIN_REFUSED: Final = (PinIncorrect, PinInvalid, PinLenRange, PinLocked, PinExpired)


class Token:
    """A token and our session with it. Hold `lock` while the session is used."""

    def __init__(self, module_path: Path, label: str, pin_path: Path) -> None:
        """Nothing is loaded, opened or read yet."""
        self.lock = threading.RLock()
        self._module_path = module_path
        self._label = label
        self._pin = SecretLine(pin_path, setting="pin_file")
        self._session: Session | None = None
        self._refused: tuple[int, ...] | None = None

    @property
    def pin_path(self) -> Path:
        return self._pin.path

    def session(self) -> Session:
        """The session, opened and logged in if there is none.

        A PIN that was refused is not tried again until its file changes: tokens lock themselves after a few.

        Raises:
            KeyConfigurationError: a module that cannot be loaded, a PIN file that cannot be used, two such tokens.
            NotPermittedError: the token does not take the PIN.
            KeyUnavailableError: the token is not there, or cannot open a session.
        """
        if self._session is None:
            self._session = self._log_in()
        return self._session

    def drop(self) -> None:
        """Forget a session that the token ended."""
        session, self._session = self._session, None
        if session is not None:
            with contextlib.suppress(PKCS11Error):
                session.close()

    @contextlib.contextmanager
    def writing(self) -> Iterator[Session]:
        """A second session that may store objects, under the first one's login. Raises PKCS11Error."""
        writer = self._find().open(rw=True)
        try:
            yield writer
        finally:
            writer.close()

    def _log_in(self) -> Session:
        pin, stamp = self._pin.read(), self._pin.stamp()
        if stamp is not None and stamp == self._refused:
            raise NotPermittedError(
                f"token {self._label} refused the PIN in {self._pin.path}; it is not tried again before that changes"
            )
        token = self._find()
        try:
            return token.open(user_pin=pin)
        except _PIN_REFUSED as error:
            self._refused = stamp
            raise NotPermittedError(
                f"token {self._label} does not take the PIN in {self._pin.path}: {type(error).__name__}"
            ) from error
        except PKCS11Error as error:
            raise KeyUnavailableError(
                f"token {self._label} cannot open a session now: {type(error).__name__}"
            ) from error

    def _find(self) -> pkcs11.Token:
        try:
            return pkcs11.lib(str(self._module_path)).get_token(token_label=self._label)
        except NoSuchToken as error:
            raise KeyUnavailableError(
                f"{self._module_path} shows no token labelled {self._label}; attach it or mend `token`"
            ) from error
        except MultipleTokensReturned as error:
            raise KeyConfigurationError(
                f"{self._module_path} shows several tokens labelled {self._label}; label them apart"
            ) from error
        except PKCS11Error as error:
            raise KeyConfigurationError(
                f"{self._module_path} cannot be used as PKCS#11 module; `module` must name the vendor's library: "
                f"{str(error)[:200] or type(error).__name__}"
            ) from error


_tokens: Final[dict[tuple[Path, str], Token]] = {}
_tokens_lock: Final = threading.Lock()


def shared_token(module_path: Path, label: str, pin_path: Path) -> Token:
    """The process's one object for a token, whichever sections name it.

    Raises:
        KeyConfigurationError: another section names the token with another PIN file.
    """
    with _tokens_lock:
        token = _tokens.setdefault((module_path, label), Token(module_path, label, pin_path))
    if token.pin_path != pin_path:
        raise KeyConfigurationError(
            f"token {label} is logged in to once a process, with the PIN in {token.pin_path}; name that file too"
        )
    return token
