"""The transit engine of a Vault or OpenBao server: its requests, and what its refusals mean.

The server is trusted to keep the key, not to answer well: every answer is bounded in size and judged by the caller.
Source: OpenBao and Vault API documentation, "Transit secrets engine" and "HTTP status codes".
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from recording.errors import RecordingError
from recording.keys.errors import (
    ContextMismatchError,
    KeyAnswerError,
    KeyConfigurationError,
    KeyUnavailableError,
    NotPermittedError,
    UnknownKeyError,
)
from recording.keys.https import HTTPSAnswer, HTTPSTransport
from recording.keys.provider import KeyLifecycle, KeyVersion, checked_dek
from recording.keys.retry import retried
from recording.keys.secret_file import SecretLine
from recording.settings import TLSFloor, TransitSettings

TOO_MANY_REQUESTS: Final = 429
_SUCCESS: Final = frozenset({200, 204})
_STANDBY: Final = frozenset({412, 472, 473})  # behind on replication, or a standby that does not forward
_RETRY_AFTER_MAX_S: Final = 60.0

_WRONG_CIPHERTEXT_STATUS: Final = frozenset({400, 500})  # 500 is how an RSA key's decryption fails

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_PATH: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}(?:/[A-Za-z0-9][A-Za-z0-9_.-]{0,63}){0,7}")
_UNKNOWN_KEY: Final = re.compile(r"key not found|no existing key named|no handler for route")
_WRONG_CIPHERTEXT: Final = re.compile(
    r"message authentication failed|invalid ciphertext|decryption error|disallowed by policy|missing ciphertext"
    r"|failed to decrypt|unable to decrypt"
)


class Transit:
    """One transit mount. A call blocks up to `timeout_s` in all, retries included. Any thread."""

    def __init__(self, name: str, settings: TransitSettings) -> None:
        """No request is sent, no token is read. `name` is the configuration section's.

        Raises:
            KeyConfigurationError: an http address, a mount or namespace that is no path, trust anchors that
            cannot be read.
        """
        _check(name, settings)
        self.address = settings.address.rstrip("/")
        self._mount = settings.mount.strip("/")
        self._namespace = (settings.namespace or "").strip("/")
        self._timeout_s = settings.timeout_s
        self._token = SecretLine(settings.token_path, setting="token_file")
        self._transport = HTTPSTransport(ca_path=settings.ca_path, floor=settings.tls_floor)
        parts = urlsplit(self.address)
        server = settings.server_id or f"{parts.hostname}:{parts.port or 443}"
        self._place = "/".join(part for part in (server, self._namespace, self._mount) if part)

    @property
    def tls_floor(self) -> TLSFloor:
        return self._transport.floor

    def key_id(self, key: str) -> bytes:
        """SERVER[/NAMESPACE]/MOUNT/KEY: names a key among all servers, namespaces and mounts."""
        return f"{self._place}/{key}".encode()

    def post(self, operation: str, key: str, body: Mapping[str, object]) -> Mapping[str, Any]:
        """The `data` of the answer to a request like datakey/plaintext, decrypt or rewrap.

        Raises:
            UnknownKeyError, ContextMismatchError, NotPermittedError, KeyUnavailableError, KeyAnswerError,
            KeyConfigurationError: the last where the token's file cannot be used.
        """
        return self._data("POST", f"{self._mount}/{operation}/{key}", json.dumps(body).encode())

    def read_key(self, key: str) -> Mapping[str, Any]:
        """What the server tells of a key: never key material. Raises as `post` does."""
        return self._data("GET", f"{self._mount}/keys/{key}", b"")

    def lifecycle(self, key: str) -> KeyLifecycle:
        """The versions of a key that may still decrypt. Raises as `post` does."""
        facts = self.read_key(key)
        period = facts.get("auto_rotate_period")
        return KeyLifecycle(
            versions=_versions(facts.get("keys")),
            rotation_period_s=period if isinstance(period, int) and period > 0 else None,
        )

    def manage(
        self, method: str, key: str, action: str = "", body: Mapping[str, object] | None = None
    ) -> None:
        """An administrator's request about a key: `action` is rotate, config or nothing. Raises as `post` does."""
        path = f"{self._mount}/keys/{key}" + (f"/{action}" if action else "")
        self._answer(method, path, b"" if body is None else json.dumps(body).encode())

    def _data(self, method: str, path: str, body: bytes) -> Mapping[str, Any]:
        data = _decoded(self.address, self._answer(method, path, body)).get("data")
        if not isinstance(data, dict):
            raise KeyAnswerError(f"{self.address} answered without data")
        return data

    def _answer(self, method: str, path: str, body: bytes) -> HTTPSAnswer:
        headers = {"X-Vault-Token": self._token.read(), "X-Vault-Request": "true"}
        if self._namespace:
            headers["X-Vault-Namespace"] = self._namespace
        if body:
            headers["Content-Type"] = "application/json"
        deadline = time.monotonic() + self._timeout_s

        def ask() -> HTTPSAnswer:
            answer = self._transport.send(
                method, f"{self.address}/v1/{path}", headers=headers, body=body, deadline=deadline
            )
            if answer.status not in _SUCCESS:
                raise _refusal(self.address, answer)
            return answer

        return retried(ask, deadline=deadline)


def decoded_dek(answer: Mapping[str, Any]) -> bytearray:
    """The data key under `plaintext`, in base64. Raises KeyAnswerError."""
    text = answer.get("plaintext")
    try:
        return checked_dek(base64.b64decode(text, validate=True) if isinstance(text, str) else b"")
    except ValueError as error:  # binascii.Error is one
        raise KeyAnswerError("the key service answered with a data key that is not base64") from error


def _versions(keys: object) -> tuple[KeyVersion, ...]:
    """Symmetric keys: {version: unix seconds}; asymmetric ones: {version: {creation_time, public_key}}."""
    found = []
    for number, told in keys.items() if isinstance(keys, dict) else ():
        if not isinstance(number, str) or not number.isdecimal() or len(number) > 9:
            raise KeyAnswerError("the key service names a key version that is no number")
        found.append(KeyVersion(number=int(number), created_at=_moment(told)))
    if not found:
        raise KeyAnswerError("the key service names no version of the key")
    return tuple(sorted(found, key=lambda version: version.number))


def _moment(told: object) -> datetime:
    value = told.get("creation_time") if isinstance(told, dict) else told
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value[:19] + "+00:00" if value.endswith("Z") else value)
            return moment.astimezone(UTC)
        if isinstance(value, int) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise KeyAnswerError("the key service dates a key version impossibly") from error
    raise KeyAnswerError("the key service does not date its key versions")


def _decoded(address: str, answer: HTTPSAnswer) -> Mapping[str, Any]:
    try:
        document = json.loads(answer.content)
    except (ValueError, RecursionError) as error:
        raise KeyAnswerError(f"{address} answered with something that is not JSON") from error
    if not isinstance(document, dict):
        raise KeyAnswerError(f"{address} answered with something that is no JSON object")
    return document


def _refusal(address: str, answer: HTTPSAnswer) -> RecordingError:
    """The one place where an HTTP status and Vault's words become our errors."""
    status = answer.status
    if status == TOO_MANY_REQUESTS:
        wait_s = _retry_after_s(answer.headers)
        return KeyUnavailableError(f"{address} is asked too often", retry_after_s=wait_s)
    words = _words(answer)
    if status in _WRONG_CIPHERTEXT_STATUS and _WRONG_CIPHERTEXT.search(words):
        return ContextMismatchError("transit does not open this wrapped key for this file and tenant")
    if status >= 500 or status in _STANDBY:
        reason = "it is sealed" if "sealed" in words else f"HTTP status {status}"
        return KeyUnavailableError(f"{address} cannot serve now: {reason}")
    if status == 403:
        return NotPermittedError(
            f"{address} refuses: permission denied; check the token's policy and that it has not expired"
        )
    if 300 <= status < 400:
        return KeyAnswerError(
            f"{address} redirects (HTTP status {status}), which is not followed; name the active server"
        )
    if status == 404 or _UNKNOWN_KEY.search(words):
        return UnknownKeyError(
            f"{address} has no such key; check `key`, `mount` and `namespace`, and whether it was deleted"
        )
    return KeyAnswerError(f"{address} refuses the request with HTTP status {status}")


def _words(answer: HTTPSAnswer) -> str:
    """What the server wrote under `errors`, to be searched and not to be shown: it may quote the request."""
    try:
        document = json.loads(answer.content)
    except (ValueError, RecursionError):
        return ""
    errors = document.get("errors") if isinstance(document, dict) else None
    return " ".join(map(str, errors)).lower() if isinstance(errors, list) else ""


def _retry_after_s(headers: Mapping[str, str]) -> float:
    text = next((value for name, value in headers.items() if name.lower() == "retry-after"), "")
    return min(float(text), _RETRY_AFTER_MAX_S) if text.isascii() and text.isdecimal() else 0.0


def _check(name: str, settings: TransitSettings) -> None:
    try:
        parts = urlsplit(settings.address)
        is_usable = (
            parts.scheme == "https" and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        )
    except ValueError:
        is_usable = False
    else:
        is_usable = is_usable and not parts.query and not parts.fragment and "@" not in parts.netloc
        is_usable = is_usable and parts.path in ("", "/")
    if not is_usable:
        raise KeyConfigurationError(
            f"keys.{name}: `address` {settings.address!r} must be https://HOST:PORT, loopback addresses included"
        )
    for field, path in (("mount", settings.mount), ("namespace", settings.namespace)):
        if path is not None and _PATH.fullmatch(path.strip("/")) is None:
            raise KeyConfigurationError(
                f"keys.{name}: `{field}` {path!r} is no path; write it like team/transit"
            )
    if settings.server_id is not None and _NAME.fullmatch(settings.server_id) is None:
        raise KeyConfigurationError(f"keys.{name}: `server_id` must be letters, digits, dots, _ and -")
    if not 0 < settings.timeout_s <= 60:
        raise KeyConfigurationError(
            f"keys.{name}: timeout_s is {settings.timeout_s}; it must be above 0 and at most 60"
        )


def check_key_name(name: str, key: str) -> None:
    """Raises KeyConfigurationError unless `key` can stand in a path and a key id."""
    if _NAME.fullmatch(key) is None:
        raise KeyConfigurationError(f"keys.{name}: `key` {key!r} must be letters, digits, dots, _ and -")
