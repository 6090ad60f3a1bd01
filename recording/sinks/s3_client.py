"""An S3 client of our own making: boto3 for requests and signatures, our TLS, our deadlines, our errors.

The store is trusted to keep objects, not to answer well: what it says is checked by whoever asked.
Source: Amazon S3 API reference, "Error responses".
"""

from __future__ import annotations

import logging
import re
import stat
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.credentials import (
    CredentialProvider,
    CredentialResolver,
    Credentials,
    ReadOnlyCredentials,
    SharedCredentialProvider,
)
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
from recording.settings import S3SinkSettings
from recording.sinks.https import AnswerBody, StoreTransport
from recording.sinks.sink import (
    ObjectConflictError,
    ObjectMissingError,
    SinkError,
    SinkRefusedError,
    SinkUnavailableError,
)

EXISTS: Final = "exists"  # reason of ObjectConflictError: a precondition found an object
NO_UPLOAD: Final = "no_upload"  # reason of ObjectMissingError: the multipart upload is gone
NO_LOCK: Final = "no_lock"  # reason of ObjectMissingError: nothing locks the object, or locks are off
DENIED: Final = "denied"
INVALID: Final = "invalid_request"  # among much else, an order to lock in a bucket that cannot

_SAFE_CODE: Final = re.compile(r"[A-Za-z0-9.]{1,64}")
_CREDENTIALS: Final = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)
# botocore reads the answer before we see it; one that is not what the API promises leaves it as any of these.
_BAD_ANSWER: Final = (ResponseParserError, ValueError, TypeError, AttributeError, LookupError, RecursionError)

_BY_CODE: Final[Mapping[str, tuple[type[SinkError], str, str]]] = {
    code: (kind, reason, cure)
    for kind, reason, cure, codes in (
        (SinkUnavailableError, "checksum", "what arrived is not what was sent; it is sent again",
         "BadDigest XAmzContentSHA256Mismatch InvalidDigest IncompleteBody"),
        (SinkUnavailableError, "throttled", "the store asks for fewer requests",
         "SlowDown Throttling ThrottlingException RequestLimitExceeded TooManyRequestsException 429"),
        (SinkUnavailableError, "unavailable", "it is tried again",
         "ServiceUnavailable InternalError RequestTimeout OperationAborted ConditionalRequestConflict 500 502 503 504"),
        (SinkUnavailableError, "quota", "raise the quota or make room; recordings stay in the spool", "QuotaExceeded"),
        (SinkRefusedError, "clock_skew", "set this machine's clock: run a time service",
         "RequestTimeTooSkewed RequestExpired"),
        (SinkRefusedError, "credentials", "check the access key and its secret, or the role of this machine",
         "InvalidAccessKeyId SignatureDoesNotMatch ExpiredToken InvalidToken TokenRefreshRequired InvalidSecurity"),
        (SinkRefusedError, DENIED, "the role lacks this right; see the policy files",
         "AccessDenied AllAccessDisabled AccountProblem 403"),
        (SinkRefusedError, "bucket", "check recording.sink's bucket, region and endpoint_url",
         "NoSuchBucket AuthorizationHeaderMalformed PermanentRedirect IllegalLocationConstraintException 301"),
        (SinkRefusedError, INVALID, "the store does not take such a request; check recording.sink", "InvalidRequest"),
        (SinkRefusedError, "encryption_key", "check recording.sink.sse_kms_key_id and the role's rights to that key",
         "KMS.DisabledException KMS.InvalidKeyUsageException KMS.KMSInvalidStateException KMS.NotFoundException"),
        (ObjectMissingError, "missing", "it is not in the store", "NoSuchKey NoSuchVersion 404"),
        (ObjectMissingError, NO_UPLOAD, "it ended or was aborted", "NoSuchUpload"),
        (ObjectMissingError, NO_LOCK, "nothing locks it",
         "ObjectLockConfigurationNotFoundError NoSuchObjectLockConfiguration"),
        (ObjectConflictError, EXISTS, "an object is there already", "PreconditionFailed 412"),
    )
    for code in codes.split()
}  # fmt: skip


class S3Client:
    """Requests of any thread about one bucket; each blocks for `timeout_s` and the time its bytes may take."""

    def __init__(self, settings: S3SinkSettings) -> None:
        """Build the client; no request is sent.

        Raises:
            SinkRefusedError: says which setting, trust anchor or credentials file cannot be used.
        """
        _silence_wire_logs()
        self.bucket = settings.bucket
        self._operations = _make_client(settings)
        self.endpoint: str = self._operations.meta.endpoint_url
        self.transport = StoreTransport(
            host=_https_host(self.endpoint),
            ca_path=settings.ca_path,
            floor=settings.tls_floor,
            timeout_s=settings.timeout_s,
            connections=settings.max_concurrency + 1,
        )
        self._operations.meta.events.register("before-send.s3", self._send)

    def call(self, operation: str, **parameters: object) -> Mapping[str, Any]:
        """One request, named as boto3 names it, sent once. Raises SinkError: here boto3's errors become ours."""
        what = f"{operation} in bucket {self.bucket}"
        try:
            answer = getattr(self._operations, operation)(Bucket=self.bucket, **parameters)
        except RecordingError:
            raise
        except ClientError as error:
            raise _refusal(what, error) from error
        except _CREDENTIALS as error:
            raise SinkRefusedError(
                f"{what}: {error}; give credentials through boto3's chain or recording.sink.credentials_file",
                reason="credentials",
            ) from error
        except BotoCoreError as error:
            raise SinkUnavailableError(f"{what}: {error}") from error
        except _BAD_ANSWER as error:
            raise SinkUnavailableError(
                f"{what}: the store's answer is none ({type(error).__name__})", reason="bad_answer"
            ) from error
        if not isinstance(answer, Mapping):
            raise SinkUnavailableError(f"{what}: the store's answer is none", reason="bad_answer")
        return answer

    def pages(self, operation: str, **parameters: object) -> Iterator[Mapping[str, Any]]:
        """The answers of a listing, a page at a time.

        Raises SinkUnavailableError for an answer that does not say whether it is the last: nothing may be taken for
        absent because a store said nothing.
        """
        more: dict[str, object] = {}
        while True:
            answer = self.call(operation, **parameters, **more)
            if not isinstance(answer.get("IsTruncated"), bool):
                raise SinkUnavailableError(
                    f"{operation} in bucket {self.bucket}: the answer is no listing", reason="bad_answer"
                )
            yield answer
            following = {
                mark: answer[f"Next{mark}"]
                for mark in (
                    "ContinuationToken",
                    "KeyMarker",
                    "VersionIdMarker",
                    "UploadIdMarker",
                    "PartNumberMarker",
                )
                if answer.get(f"Next{mark}")
            }
            if not answer["IsTruncated"] or not following or following == more:
                return
            more = following

    def _send(self, request: Any, **_: object) -> Any:
        """Serve as botocore's before-send hook: our own TLS, deadline and size bound instead of its session."""
        headers = {
            key: value.decode("latin-1") if isinstance(value, bytes) else str(value)
            for key, value in request.headers.items()
            if key.lower() != "expect"  # the body follows at once: a part is small enough to send in vain
        }
        answer = self.transport.send(
            request.method, request.url, headers=headers, body=_body_bytes(request.body)
        )
        if 300 <= answer.status < 400 and answer.status != HTTPStatus.NOT_MODIFIED:
            # botocore would follow, asking again and again where a store answers so to everything
            raise SinkRefusedError(
                f"bucket {self.bucket} is elsewhere, HTTP status {answer.status}; "
                "check recording.sink's bucket, region and endpoint_url",
                reason="bucket",
            )
        answer_headers: Any = dict(answer.headers)
        return AWSResponse(request.url, answer.status, answer_headers, AnswerBody(answer.content))


class _FileCredentials(Credentials):
    """A profile of an AWS credentials file, read again whenever the file has changed. Any thread."""

    def __init__(self, path: Path, profile: str) -> None:
        self._path = path
        self._profile = profile
        self._seen: tuple[int, int] = (0, 0)
        access_key, secret_key, token = self._load()
        super().__init__(access_key, secret_key, token, method="shared-credentials-file")

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        if _identity(self._path) != self._seen:
            self.access_key, self.secret_key, self.token = self._load()
        return ReadOnlyCredentials(self.access_key, self.secret_key, self.token)

    def _load(self) -> tuple[str, str, str | None]:
        seen = _identity(self._path)
        try:
            found = SharedCredentialProvider(str(self._path), self._profile).load()
        except BotoCoreError as error:
            raise SinkRefusedError(f"{self._path}: {error}", reason="credentials") from error
        if found is None:
            raise SinkRefusedError(
                f"{self._path} has no section [{self._profile}] with aws_access_key_id", reason="credentials"
            )
        self._seen = seen
        return found.access_key or "", found.secret_key or "", found.token


class _FileProvider(CredentialProvider):
    """All of the chain there is where a file is named."""

    METHOD = "recording.sink.credentials_file"

    def __init__(self, credentials: Credentials) -> None:
        super().__init__()
        self._credentials = credentials

    def load(self) -> Credentials:
        return self._credentials


def _identity(path: Path) -> tuple[int, int]:
    """What changes when the file does. Raises SinkRefusedError where others may read it, or nobody can."""
    try:
        status = path.stat()
    except OSError as error:
        raise SinkRefusedError(f"{path}: {error.strerror}", reason="credentials") from error
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise SinkRefusedError(f"{path} may be read by others; run: chmod 600 {path}", reason="credentials")
    return status.st_mtime_ns, status.st_ino


def _make_client(settings: S3SinkSettings) -> Any:
    session = botocore.session.Session()
    if settings.credentials_path is not None:
        provider = _FileProvider(_FileCredentials(settings.credentials_path, settings.profile))
        session.register_component("credential_provider", CredentialResolver([provider]))
    if settings.endpoint_url is not None:
        _https_host(settings.endpoint_url)
    try:
        return boto3.session.Session(botocore_session=session).client(
            "s3",
            region_name=settings.region,
            endpoint_url=settings.endpoint_url,
            config=_config(settings),
        )
    except (BotoCoreError, ValueError) as error:
        raise SinkRefusedError(
            f"recording.sink: {error}; mend `region` or `endpoint_url`", reason="bucket"
        ) from error


def _config(settings: S3SinkSettings) -> Config:
    # Retries are ours. An endpoint from the environment or ~/.aws could be plain http. A signed payload lets the
    # store check SHA-256 of what arrives. botocore's stubs do not know the newer options yet.
    options: dict[str, Any] = {
        "retries": {"total_max_attempts": 1, "mode": "standard"},
        "ignore_configured_endpoint_urls": True,
        "request_checksum_calculation": settings.request_checksum_calculation.value,
        "response_checksum_validation": "when_required",
        "s3": {"addressing_style": settings.addressing_style.value, "payload_signing_enabled": True},
        "signature_version": "s3v4",
    }
    return Config(**options)


def _https_host(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        raise SinkRefusedError(
            f"recording.sink.endpoint_url {url!r} must begin with https://, loopback addresses included",
            reason="endpoint",
        )
    return parts.hostname


def _body_bytes(body: object) -> bytes:
    if body is None:
        return b""
    if isinstance(body, (bytes, bytearray)):
        return bytes(body)
    if isinstance(body, str):
        return body.encode()
    assert hasattr(body, "read"), "botocore hands over bytes, text or a file"
    content: bytes = body.read()
    return content


def _refusal(what: str, error: ClientError) -> SinkError:
    response: Mapping[str, Any] = error.response
    raw_code = response.get("Error", {}).get("Code")
    code = raw_code if isinstance(raw_code, str) and _SAFE_CODE.fullmatch(raw_code) else "unnamed"
    metadata = response.get("ResponseMetadata", {})
    status = metadata.get("HTTPStatusCode", 0)
    kind, reason, cure = _BY_CODE.get(code) or _by_status(status)
    text = f"{what}: {code}, HTTP status {status}; {cure}"
    if reason == "clock_skew":
        text += _skew(metadata.get("HTTPHeaders", {}))
    return kind(text, reason=reason)


def _by_status(status: int) -> tuple[type[SinkError], str, str]:
    if status in (429, 503):
        return _BY_CODE["SlowDown"]
    if status >= 500 or status < 400:  # below 400: an answer that botocore could not take for a success
        return _BY_CODE["InternalError"]
    if status == 403:
        return _BY_CODE["AccessDenied"]
    return SinkRefusedError, "refused", "the store does not take such a request; check recording.sink"


def _skew(headers: Mapping[str, str]) -> str:
    """How far the store's clock is from ours, as its Date header says."""
    try:
        their_time = parsedate_to_datetime(headers.get("date", "")).timestamp()
    except (ValueError, TypeError, AttributeError):
        return ""
    return f" (the store's clock differs by {round(time.time() - their_time)} s)"


def _silence_wire_logs() -> None:
    """At DEBUG botocore writes whole requests to its log, signatures among them: never let it."""
    for name in ("botocore", "boto3", "urllib3"):
        logger = logging.getLogger(name)
        if logger.level < logging.INFO:
            logger.setLevel(logging.INFO)
    for name in ("botocore.endpoint", "botocore.parsers", "botocore.httpsession", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.WARNING)
