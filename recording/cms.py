"""Content sealed to certificates: CMS AuthEnvelopedData under AES-256-GCM, as stock OpenSSL opens it. Pure: no I/O.

The length of what is sealed need not be known: the outer layers have indefinite lengths (BER, which CMS allows and
which `openssl cms -inform DER` reads), all else is DER. The content comes and goes in pieces, so memory is bounded.
Source: RFC 5652 (CMS), RFC 5083 (AuthEnvelopedData), RFC 5084 (GCM), RFC 3560 (RSA-OAEP), RFC 5753 (ECDH),
RFC 3394 (AES key wrap), RFC 5280 section 4.2.1 (key usage).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF
from cryptography.hazmat.primitives.keywrap import aes_key_wrap
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from recording.errors import RecordingError

RSA_BITS_MIN: Final = 2048  # NIST SP 800-131A rev. 2: the least that is acceptable
PIECE_BYTES: Final = 64 * 1024
"""Content of one piece of the encrypted octet string: large enough that its 4 bytes of frame do not matter."""
_KEY_LEN: Final = 32
_NONCE_LEN: Final = 12
_TAG_LEN: Final = 16
_Extension = TypeVar("_Extension", bound=x509.ExtensionType)
# SP 800-38D section 5.2.1.1: at most 2^39 - 256 bits under one nonce.
CONTENT_MAX: Final = (1 << 36) - 32


class RecipientError(RecordingError):
    """A certificate that nothing may be sealed to: says which rule it breaks and what to ask its owner for."""

    exit_code = 107


# ---- DER ---------------------------------------------------------------------------------------------------


def _length(length: int) -> bytes:
    if length < 0x80:
        return bytes((length,))
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((0x80 | len(octets),)) + octets


def _tlv(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return bytes((tag,)) + _length(len(content)) + content


def _integer(value: int) -> bytes:
    return _tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _oid(dotted: str) -> bytes:
    first, second, *others = (int(arc) for arc in dotted.split("."))
    encoded = bytearray()
    for arc in (40 * first + second, *others):
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(0x80 | (arc & 0x7F))
        encoded += bytes(reversed(groups))
    return _tlv(0x06, bytes(encoded))


def _sequence(*parts: bytes) -> bytes:
    return _tlv(0x30, *parts)


def _octets(value: bytes) -> bytes:
    return _tlv(0x04, value)


_SEQUENCE_OPEN: Final = b"\x30\x80"
_TAG_0_OPEN: Final = b"\xa0\x80"
_CLOSE: Final = b"\0\0"

_AUTH_ENVELOPED_DATA: Final = _oid("1.2.840.113549.1.9.16.1.23")
_DATA: Final = _oid("1.2.840.113549.1.7.1")
_AES_256_GCM: Final = _oid("2.16.840.1.101.3.4.1.46")
_AES_256_WRAP: Final = _sequence(_oid("2.16.840.1.101.3.4.1.45"))
_SHA_256: Final = _sequence(_oid("2.16.840.1.101.3.4.2.1"))
_RSA_OAEP_SHA_256: Final = _sequence(
    _oid("1.2.840.113549.1.1.7"),
    _sequence(
        _tlv(0xA0, _SHA_256),
        _tlv(0xA1, _sequence(_oid("1.2.840.113549.1.1.8"), _SHA_256)),
    ),
)
_EC_PUBLIC_KEY: Final = _sequence(_oid("1.2.840.10045.2.1"))


@dataclass(frozen=True, slots=True)
class _Curve:
    """The hash and the key agreement scheme that RFC 5753 section 7.1.4 pairs with a curve."""

    hash: hashes.HashAlgorithm
    scheme: bytes


_CURVES: Final = {
    "secp256r1": _Curve(hashes.SHA256(), _oid("1.3.132.1.11.1")),
    "secp384r1": _Curve(hashes.SHA384(), _oid("1.3.132.1.11.2")),
    "secp521r1": _Curve(hashes.SHA512(), _oid("1.3.132.1.11.3")),
}


# ---- recipients --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """Who can open what is sealed. Made by `parse_recipient`, which has checked the certificate."""

    certificate: x509.Certificate

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, lower-case hex: what an audit line names it by."""
        return self.certificate.fingerprint(hashes.SHA256()).hex()


def parse_recipient(pem: bytes, *, now: datetime) -> Recipient:
    """The certificate in `pem`, if it is one to seal to at `now` (aware).

    Raises:
        RecipientError: not exactly one certificate; or, each rule that it breaks: expired or not valid yet; a
            certification authority's; its key usage does not allow it; its key too short or of another kind than RSA,
            P-256, P-384 or P-521.
    """
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise RecipientError("no certificate in PEM form can be read there") from error
    if len(certificates) != 1:
        raise RecipientError(
            f"{len(certificates)} certificates; give the recipient's alone, without its chain"
        )
    (certificate,) = certificates
    try:
        extensions = certificate.extensions
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension) as error:
        raise RecipientError("the certificate's key or extensions cannot be read") from error
    broken = [*_of_dates(certificate, now), *_of_key(key), *_of_usage(extensions, key)]
    if broken:
        raise RecipientError("; ".join(broken))
    return Recipient(certificate=certificate)


def _of_dates(certificate: x509.Certificate, now: datetime) -> Iterator[str]:
    if now > certificate.not_valid_after_utc:
        yield f"expired at {certificate.not_valid_after_utc.isoformat()}; ask for its successor"
    if now < certificate.not_valid_before_utc:
        yield f"not valid before {certificate.not_valid_before_utc.isoformat()}"


def _of_key(key: object) -> Iterator[str]:
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < RSA_BITS_MIN:
            yield f"an RSA key of {key.key_size} bits; at least {RSA_BITS_MIN} are needed"
    elif not isinstance(key, ec.EllipticCurvePublicKey):
        yield "neither an RSA nor an elliptic curve key; nothing can be sealed to it"
    elif key.curve.name not in _CURVES:
        yield f"a key on curve {key.curve.name}; P-256, P-384 or P-521 is needed"


def _of_usage(extensions: x509.Extensions, key: object) -> Iterator[str]:
    constraints = _extension(extensions, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        yield "a certification authority's; give the certificate of who will read"
    needed = "key_agreement" if isinstance(key, ec.EllipticCurvePublicKey) else "key_encipherment"
    usage = _extension(extensions, x509.KeyUsage)
    if usage is None:
        yield f"it states no key usage; it must allow {needed.replace('_', ' ')}"
    elif not getattr(usage, needed):
        yield f"its key usage does not allow {needed.replace('_', ' ')}"


def _extension(extensions: x509.Extensions, kind: type[_Extension]) -> _Extension | None:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


# ---- sealing -----------------------------------------------------------------------------------------------


class CMSSealer:
    """One message: `begin`, then `update` for the content, then `finish`; joined, what they return is the message.

    Any of the recipients can open it. The content key is drawn here and never leaves.
    """

    def __init__(self, recipients: Sequence[Recipient]) -> None:
        if not recipients:
            raise ValueError("a message needs a recipient")
        key, nonce = bytearray(os.urandom(_KEY_LEN)), os.urandom(_NONCE_LEN)
        try:
            # SET OF: DER wants its members in the order of their encodings.
            infos = sorted(_recipient_info(recipient.certificate, bytes(key)) for recipient in recipients)
            self._encryptor = Cipher(AES(bytes(key)), GCM(nonce)).encryptor()
        finally:
            key[:] = bytes(len(key))
        self._begin = b"".join(
            (
                _SEQUENCE_OPEN, _AUTH_ENVELOPED_DATA, _TAG_0_OPEN,
                _SEQUENCE_OPEN, _integer(0), _tlv(0x31, *infos),
                _SEQUENCE_OPEN, _DATA, _sequence(_AES_256_GCM, _sequence(_octets(nonce), _integer(_TAG_LEN))),
                _TAG_0_OPEN,
            )
        )  # fmt: skip
        self._waiting = bytearray()
        self._taken = 0

    def begin(self) -> bytes:
        """What comes before the content."""
        return self._begin

    def update(self, content: bytes | bytearray | memoryview) -> bytes:
        """Take more content; gives whole pieces as they fill, often nothing.

        Raises:
            RecordingError: more than GCM may encrypt under one key and nonce (64 GiB).
        """
        self._taken += len(content)
        if self._taken > CONTENT_MAX:
            raise RecordingError("one sealed message holds at most 64 GiB; seal the parts one by one")
        self._waiting += content
        if len(self._waiting) < PIECE_BYTES:
            return b""
        whole = len(self._waiting) // PIECE_BYTES * PIECE_BYTES
        with memoryview(self._waiting) as view:
            sealed = b"".join(self._piece(view[at : at + PIECE_BYTES]) for at in range(0, whole, PIECE_BYTES))
        self._forget(whole)
        return sealed

    def finish(self) -> bytes:
        """The last piece, the tag, and the end of the message."""
        last = self._piece(self._waiting) if self._waiting else b""
        self._forget(len(self._waiting))
        self._encryptor.finalize()
        return b"".join(
            (last, _CLOSE, _CLOSE, _octets(self._encryptor.tag), _CLOSE, _CLOSE, _CLOSE)
        )  # content, its info | tag | AuthEnvelopedData, [0], ContentInfo

    def _piece(self, content: bytes | bytearray | memoryview) -> bytes:
        return _octets(self._encryptor.update(content))

    def _forget(self, count: int) -> None:
        """Readable content is overwritten before it is let go: best effort, as everywhere."""
        self._waiting[:count] = bytes(count)
        del self._waiting[:count]


def seal(
    content: Iterable[bytes | bytearray | memoryview], recipients: Sequence[Recipient]
) -> Iterable[bytes]:
    """The message over all of `content`, piece by piece."""
    sealer = CMSSealer(recipients)
    yield sealer.begin()
    for part in content:
        if sealed := sealer.update(part):
            yield sealed
    yield sealer.finish()


def _recipient_info(certificate: x509.Certificate, key: bytes) -> bytes:
    public = certificate.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        return _key_transport(certificate, public, key)
    assert isinstance(public, ec.EllipticCurvePublicKey), "`parse_recipient` lets no other key through"
    return _key_agreement(certificate, public, key)


def _key_transport(certificate: x509.Certificate, public: rsa.RSAPublicKey, key: bytes) -> bytes:
    """KeyTransRecipientInfo with RSA-OAEP, SHA-256 in both places."""
    wrapped = public.encrypt(
        key, padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)
    )
    key_id = _subject_key_id(certificate)
    version = 0 if key_id is None else 2
    rid = _issuer_and_serial(certificate) if key_id is None else _tlv(0x80, key_id)
    return _sequence(_integer(version), rid, _RSA_OAEP_SHA_256, _octets(wrapped))


def _key_agreement(certificate: x509.Certificate, public: ec.EllipticCurvePublicKey, key: bytes) -> bytes:
    """KeyAgreeRecipientInfo: a one-time key against the recipient's, X9.63 KDF, AES-256 key wrap."""
    curve = _CURVES[public.curve.name]
    ephemeral = ec.generate_private_key(public.curve)
    shared = ephemeral.exchange(ec.ECDH(), public)
    # ECC-CMS-SharedInfo: which wrap the derived key is for, and its length in bits.
    info = _sequence(_AES_256_WRAP, _tlv(0xA2, _octets((8 * _KEY_LEN).to_bytes(4, "big"))))
    wrapping_key = X963KDF(algorithm=curve.hash, length=_KEY_LEN, sharedinfo=info).derive(shared)
    point = ephemeral.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    originator = _tlv(0xA0, _tlv(0xA1, _EC_PUBLIC_KEY, _tlv(0x03, b"\0", point)))
    key_id = _subject_key_id(certificate)
    rid = _issuer_and_serial(certificate) if key_id is None else _tlv(0xA0, _octets(key_id))
    return _tlv(
        0xA1,
        _integer(3),
        originator,
        _sequence(curve.scheme, _AES_256_WRAP),
        _sequence(_sequence(rid, _octets(aes_key_wrap(wrapping_key, key)))),
    )


def _subject_key_id(certificate: x509.Certificate) -> bytes | None:
    found = _extension(certificate.extensions, x509.SubjectKeyIdentifier)
    return None if found is None else found.digest


def _issuer_and_serial(certificate: x509.Certificate) -> bytes:
    return _sequence(certificate.issuer.public_bytes(), _integer(certificate.serial_number))
