"""Sessions with PKCS#11 tokens: one per token and process, on a thread of its own.

One session, for a login holds for the whole process. A thread of its own, for modules that work with OpenSSL leave
their failures in its per-thread error queue, where Python's ssl takes them for failures of its own connections; and
for a module decides itself how long a call takes.

Source: PKCS #11 v2.40 (OASIS), section 2.6 (sessions), C_Login.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, TypeVar

import pkcs11
from pkcs11 import MultipleTokensReturned, NoSuchToken, PKCS11Error, Session
from pkcs11.exceptions import PinExpired, PinIncorrect, PinInvalid, PinLenRange, PinLocked

from recording.keys.errors import KeyConfigurationError, KeyUnavailableError, NotPermittedError
from recording.keys.secret_file import SecretLine

_Result = TypeVar("_Result")

_PIN_REFUSED: Final = (PinIncorrect, PinInvalid, PinLenRange, PinLocked, PinExpired)


class Token:
    """A token and our session with it, which only functions given to `run` may touch."""

    def __init__(self, module_path: Path, label: str, pin_path: Path) -> None:
        """Nothing is loaded, opened or read yet."""
        self._work: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._module_path = module_path
        self._label = label
        self._pin = SecretLine(pin_path, setting="pin_file")
        self._session: Session | None = None
        self._refused: tuple[int, ...] | None = None

    @property
    def pin_path(self) -> Path:
        return self._pin.path

    def run(self, operation: Callable[[], _Result], *, timeout_s: float) -> _Result:
        """What `operation` returns or raises, on the token's thread.

        Raises:
            KeyUnavailableError: it did not end in time. It is not interrupted; what it returns is dropped.
        """
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="pkcs11", daemon=True)
                self._thread.start()
        future: Future[_Result] = Future()
        self._work.put((operation, future))
        try:
            return future.result(timeout_s)
        except TimeoutError as error:
            future.cancel()
            raise KeyUnavailableError(f"token {self._label} did not answer within {timeout_s:g} s") from error

    def _serve(self) -> None:
        while True:
            operation, future = self._work.get()
            if not future.set_running_or_notify_cancel():
                continue  # it had to wait for too long
            try:
                future.set_result(operation())
            except BaseException as error:  # noqa: BLE001  # handed to the caller, who raises it
                future.set_exception(error)
            del operation, future

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
            return open_session(token, pin)
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
                f"{self._module_path} shows no token labelled {self._label}; attach it or mend `token_label`"
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


def open_session(token: pkcs11.Token, pin: str) -> Session:
    """Open a session and log in. Raises PKCS11Error."""
    return token.open(user_pin=pin)


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
