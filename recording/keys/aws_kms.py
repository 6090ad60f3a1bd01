"""AWS KMS as key provider: GenerateDataKey, Decrypt and ReEncrypt under an encryption context.

The service is trusted to keep the key, not to answer well: lengths and key ids of every answer are checked.
Source: AWS KMS API reference, GenerateDataKey, Decrypt, ReEncrypt, "Errors".
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

import boto3
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)
from botocore.parsers import ResponseParserError

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
from recording.keys.https import HTTPSTransport
from recording.keys.provider import (
    DataKey,
    KeyContext,
    KeyLifecycle,
    KeyVersion,
    checked_dek,
    require_own,
)
from recording.keys.retry import retried
from recording.settings import AWSKMSKeySettings

DEFAULT_ROTATION_DAYS: Final = 365  # API reference, EnableKeyRotation: used where no period was given
MOST_ROTATIONS: Final = 1000  # API reference, ListKeyRotations: the greatest Limit
CIPHERTEXT_MAX: Final = 6144  # API reference: CiphertextBlob, maximum length

_KEY_ARN: Final = re.compile(
    r"arn:aws[a-z-]*:kms:(?P<region>[a-z0-9-]+):\d{12}:key/"
    r"(?:mrk-[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
)
_SAFE_CODE: Final = re.compile(r"[A-Za-z0-9]{1,64}")

_UNAVAILABLE: Final = frozenset(
    {
        "DependencyTimeoutException",
        "InternalFailure",
        "KMSInternalException",
        "KeyUnavailableException",
        "LimitExceededException",
        "RequestLimitExceeded",
        "ServiceUnavailable",
        "Throttling",
        "ThrottlingException",
    }
)
_DENIED: Final = frozenset({"AccessDenied", "AccessDeniedException", "NotAuthorized"})
_NOT_PERMITTED: Final = _DENIED | frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "OptInRequired",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_UNKNOWN_KEY: Final = frozenset(
    {
        "DisabledException",
        "IncorrectKeyException",
        "InvalidArnException",
        "InvalidKeyUsageException",
        "KMSInvalidStateException",
        "NotFoundException",
    }
)
_USABLE_STATES: Final = frozenset({"Enabled", "Updating"})  # Developer Guide, "Key states of AWS KMS keys"
_CREDENTIALS: Final = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)
# botocore reads the body before we see it; one that is not what the API promises leaves it as any of these.
_BAD_ANSWER: Final = (ResponseParserError, ValueError, TypeError, AttributeError, LookupError, RecursionError)


class AWSKMSProvider:
    """One symmetric KMS key.

    Calls may block up to `timeout_s` in all, retries included. Any thread, one call at a time each.

    Credentials come from boto3's chain; nothing else of it is used: neither configured endpoints nor proxies
    nor its TLS defaults.
    """

    def __init__(self, name: str, settings: AWSKMSKeySettings) -> None:
        """Build the client; no request is sent.

        Raises:
            KeyConfigurationError: an http endpoint, an alias, a region that is none, trust anchors that
            cannot be read.
        """
        _silence_wire_logs()
        _check_settings(settings)
        self.name = name
        self.slot_provider: int = SlotProvider.AWS_KMS
        self.slot_key_id = settings.key_id.encode()
        self._key_id = settings.key_id
        self._timeout_s = settings.timeout_s
        self._transport = HTTPSTransport(ca_path=settings.ca_path, floor=settings.tls_floor)
        self._deadline = threading.local()
        try:
            self._client: Any = boto3.session.Session().client(
                "kms",
                region_name=settings.region,
                endpoint_url=settings.endpoint_url,
                config=_config(),
            )
        except (BotoCoreError, ValueError) as error:
            raise KeyConfigurationError(f"keys.{name}: {error}; mend `region` or `endpoint_url`") from error
        self._endpoint: str = self._client.meta.endpoint_url
        _check_endpoint(self._endpoint)
        self._client.meta.events.register("before-send.kms", self._send)

    def new_key(self, context: KeyContext) -> DataKey:
        answer = self._call(
            self._client.generate_data_key,
            KeyId=self._key_id,
            KeySpec="AES_256",
            EncryptionContext=context.pairs(),
        )
        slot = self._slot(answer)
        return DataKey(dek=_plaintext(answer), slot=slot)

    def unwrap(self, slot: KeySlot, context: KeyContext) -> bytearray:
        self._check_slot(slot)
        answer = self._call(
            self._client.decrypt,
            KeyId=self._key_id,
            CiphertextBlob=slot.wrapped,
            EncryptionContext=context.pairs(),
        )
        self._check_answered_key(answer, "KeyId")
        return _plaintext(answer)

    def rewrap(self, slot: KeySlot, context: KeyContext) -> KeySlot:
        """Inside KMS: neither the data key nor audio is touched here."""
        return self.move(slot, context, to=self)

    def move(self, slot: KeySlot, context: KeyContext, *, to: AWSKMSProvider) -> KeySlot:
        """Under another key of the same region, inside KMS too."""
        self._check_slot(slot)
        answer = self._call(
            self._client.re_encrypt,
            CiphertextBlob=slot.wrapped,
            SourceKeyId=self._key_id,
            SourceEncryptionContext=context.pairs(),
            DestinationKeyId=to._key_id,
            DestinationEncryptionContext=context.pairs(),
        )
        self._check_answered_key(answer, "SourceKeyId")
        return to._slot(answer)

    def lifecycle(self) -> KeyLifecycle:
        """The key's creation and its rotations, automatic ones and those on demand.

        Source: AWS KMS API reference, DescribeKey, GetKeyRotationStatus, ListKeyRotations.
        """
        metadata = self._described()
        status = self._call(self._client.get_key_rotation_status, KeyId=self._key_id)
        days = status.get("RotationPeriodInDays", DEFAULT_ROTATION_DAYS)
        if not isinstance(days, int) or days <= 0:
            raise KeyAnswerError(f"{self._endpoint} rotates the key in a period that is none")
        moments = [metadata.get("CreationDate"), *self._rotations()]
        return KeyLifecycle(
            versions=tuple(
                KeyVersion(number=number, created_at=_moment(moment))
                for number, moment in enumerate(moments, start=1)
            ),
            rotation_period_s=days * 86400 if status.get("KeyRotationEnabled") is True else None,
        )

    def _described(self) -> Mapping[str, Any]:
        metadata = self._call(self._client.describe_key, KeyId=self._key_id).get("KeyMetadata")
        if not isinstance(metadata, Mapping) or metadata.get("Arn") != self._key_id:
            raise KeyAnswerError(f"{self._endpoint} described a key that is not the one asked for")
        return metadata

    def _rotations(self) -> list[datetime]:
        answer = self._call(self._client.list_key_rotations, KeyId=self._key_id, Limit=MOST_ROTATIONS)
        rotations = answer.get("Rotations")
        if not isinstance(rotations, list) or not all(isinstance(one, Mapping) for one in rotations):
            raise KeyAnswerError(
                f"{self._endpoint} listed the key's rotations otherwise than its API promises"
            )
        return sorted(_moment(one.get("RotationDate")) for one in rotations)

    def describe(self) -> dict[str, str]:
        return {
            "kind": "aws-kms",
            "key_id": self._key_id,
            "endpoint": self._endpoint,
            "tls_floor": self._transport.floor.value,
            "fit_for_production": "yes",
        }

    def health(self) -> None:
        """The service answers and, as far as this identity may ask, the key can be used.

        Says nothing of other permissions, which only a real request can show.
        """
        try:
            state = self._described().get("KeyState")
        except NotPermittedError as error:
            if _code(error.__cause__) not in _DENIED:
                raise
            return
        if state not in _USABLE_STATES:
            told = state if isinstance(state, str) and _SAFE_CODE.fullmatch(state) else "in no known state"
            raise UnknownKeyError(
                f"{self._key_id} is {told}; enable it or cancel its deletion, at once if anything needs it"
            )

    def _call(self, operation: Callable[..., Mapping[str, Any]], **parameters: object) -> Mapping[str, Any]:
        """One operation within the deadline, tried again while the failure is transient."""
        deadline = time.monotonic() + self._timeout_s
        self._deadline.at = deadline
        return retried(lambda: _translated(operation, parameters), deadline=deadline)

    def _send(self, request: Any, **_: object) -> Any:
        """Serve as botocore's before-send hook: our own TLS, deadline and size bound instead of its session."""
        headers = {
            key: value.decode("latin-1") if isinstance(value, bytes) else str(value)
            for key, value in request.headers.items()
        }
        body = request.body if isinstance(request.body, bytes) else str(request.body or "").encode()
        answer = self._transport.send(
            request.method, request.url, headers=headers, body=body, deadline=self._deadline.at
        )
        answer_headers: Any = dict(answer.headers)
        return AWSResponse(request.url, answer.status, answer_headers, _Body(answer.content))

    def _check_slot(self, slot: KeySlot) -> None:
        """Refuse a slot that is not this provider's: a stranger's slot must not make us ask for a stranger's key."""
        require_own(self, slot)
        if not 0 < len(slot.wrapped) <= CIPHERTEXT_MAX:
            raise ContextMismatchError(
                f"a KMS ciphertext has 1 to {CIPHERTEXT_MAX} bytes, this one {len(slot.wrapped)}"
            )

    def _check_answered_key(self, answer: Mapping[str, Any], field: str) -> None:
        if answer.get(field) != self._key_id:
            raise KeyAnswerError(f"{self._endpoint} answered with a {field} that is not the key asked for")

    def _slot(self, answer: Mapping[str, Any]) -> KeySlot:
        self._check_answered_key(answer, "KeyId")
        blob = answer.get("CiphertextBlob")
        if not isinstance(blob, bytes) or not 0 < len(blob) <= CIPHERTEXT_MAX:
            raise KeyAnswerError(
                f"{self._endpoint} answered with a wrapped key of no or of impossible length"
            )
        return KeySlot(provider=self.slot_provider, key_id=self.slot_key_id, wrapped=blob)


class _Body:
    """What botocore reads an answer from."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def stream(self) -> Iterator[bytes]:
        yield self._content


def _config() -> Config:
    # Retries are ours, within one deadline. An endpoint from the environment or ~/.aws could be plain http.
    # botocore's stubs do not know the newer option yet.
    options: dict[str, Any] = {
        "retries": {"total_max_attempts": 1, "mode": "standard"},
        "ignore_configured_endpoint_urls": True,
    }
    return Config(**options)


def _moment(value: object) -> datetime:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise KeyAnswerError("the key service does not date the key's versions")
    return value.astimezone(UTC)


def _plaintext(answer: Mapping[str, Any]) -> bytearray:
    plaintext = answer.get("Plaintext")
    return checked_dek(plaintext if isinstance(plaintext, bytes) else b"")


def _translated(
    operation: Callable[..., Mapping[str, Any]], parameters: Mapping[str, object]
) -> Mapping[str, Any]:
    """The one place where botocore's errors become ours."""
    try:
        answer = operation(**parameters)
    except RecordingError:
        raise
    except ClientError as error:
        raise _refusal(error) from error
    except _CREDENTIALS as error:
        raise NotPermittedError(f"no usable AWS credentials: {error}") from error
    except BotoCoreError as error:
        raise KeyAnswerError(
            f"the request could not be made or its answer not read: {type(error).__name__}"
        ) from error
    except _BAD_ANSWER as error:
        raise KeyAnswerError("the key service's answer is not what its API promises") from error
    if not isinstance(answer, Mapping):
        raise KeyAnswerError("the key service's answer is not what its API promises")
    return answer


def _refusal(error: ClientError) -> RecordingError:
    response: Mapping[str, Any] = error.response
    code = _code(error)
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code == "InvalidCiphertextException":
        return ContextMismatchError("KMS does not open this wrapped key for this file and tenant")
    if code in _NOT_PERMITTED:
        return NotPermittedError(
            f"KMS refuses: {code}; check the role's key policy, its credentials, and this machine's clock"
        )
    if code in _UNKNOWN_KEY:
        return UnknownKeyError(
            f"KMS has no such usable key: {code}; check `key_id`, `region` and the key's state"
        )
    if code in _UNAVAILABLE or status >= 500 or status == 429:
        return KeyUnavailableError(f"KMS cannot serve now: {code}, HTTP status {status}")
    return KeyAnswerError(f"KMS refuses the request: {code}, HTTP status {status}")


def _code(error: BaseException | None) -> str:
    """The service's own name for a refusal, if it can be shown."""
    code = error.response.get("Error", {}).get("Code") if isinstance(error, ClientError) else None
    return code if isinstance(code, str) and _SAFE_CODE.fullmatch(code) else "unnamed"


def _check_settings(settings: AWSKMSKeySettings) -> None:
    if settings.endpoint_url is not None:
        _check_endpoint(settings.endpoint_url)
    match = _KEY_ARN.fullmatch(settings.key_id)
    if match is None:
        # An alias can be pointed at another key by whoever may edit aliases; a bare id does not say whose it is.
        raise KeyConfigurationError(
            f"key_id {settings.key_id!r} is no key ARN; give "
            "arn:aws:kms:REGION:ACCOUNT:key/ID, aliases are not accepted"
        )
    if match["region"] != settings.region:
        raise KeyConfigurationError(f"key_id is of region {match['region']}, `region` says {settings.region}")
    if not 0 < settings.timeout_s <= 60:
        raise KeyConfigurationError(f"timeout_s is {settings.timeout_s}; it must be above 0 and at most 60")


def _check_endpoint(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        raise KeyConfigurationError(
            f"endpoint_url {url!r} must begin with https://, loopback addresses included"
        )


def _silence_wire_logs() -> None:
    """At DEBUG botocore writes whole answers to its log, data keys in clear among them: never let it."""
    for name in ("botocore", "boto3", "urllib3"):
        logger = logging.getLogger(name)
        if logger.level < logging.INFO:
            logger.setLevel(logging.INFO)
    for name in ("botocore.endpoint", "botocore.parsers", "botocore.httpsession", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.WARNING)
