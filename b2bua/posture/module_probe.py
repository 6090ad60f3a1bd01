"""Asks each cryptographic module of the serving process what it is and does; prints one JSON object.

Run by `modules` in a process of its own: loading a library is for good, and one that fails takes nothing else along.
"""

from __future__ import annotations

import _ssl
import ctypes
import importlib.util
import json
import os
import re
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cryptography
from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.backends.openssl import backend
from cryptography.hazmat.bindings import _rust
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

_LDD_S = 5.0
_NONCE = bytes(12)
_KEY = bytes(range(32))


class _Param(ctypes.Structure):
    """OSSL_PARAM. Source: OSSL_PARAM(3)."""

    _fields_ = (
        ("key", ctypes.c_char_p),
        ("data_type", ctypes.c_uint),
        ("data", ctypes.c_void_p),
        ("data_size", ctypes.c_size_t),
        ("return_size", ctypes.c_size_t),
    )


_UTF8_POINTER = 6
_PROVIDER_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "OpenSSL_version": (ctypes.c_char_p, [ctypes.c_int]),
    "EVP_CIPHER_fetch": (ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p]),
    "EVP_CIPHER_free": (None, [ctypes.c_void_p]),
    "EVP_CIPHER_CTX_new": (ctypes.c_void_p, []),
    "EVP_CIPHER_CTX_free": (None, [ctypes.c_void_p]),
    "EVP_EncryptInit_ex": (
        ctypes.c_int,
        [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p],
    ),
    "EVP_EncryptUpdate": (
        ctypes.c_int,
        [ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_int), ctypes.c_char_p, ctypes.c_int],
    ),
    "EVP_EncryptFinal_ex": (
        ctypes.c_int,
        [ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_int)],
    ),
    "OSSL_PROVIDER_do_all": (ctypes.c_int, [ctypes.c_void_p, _PROVIDER_CALLBACK, ctypes.c_void_p]),
    "OSSL_PROVIDER_get0_name": (ctypes.c_char_p, [ctypes.c_void_p]),
    "OSSL_PROVIDER_get_params": (ctypes.c_int, [ctypes.c_void_p, ctypes.POINTER(_Param)]),
}


class Libcrypto:
    """A loaded libcrypto, by its own functions."""

    def __init__(self, library: ctypes.CDLL) -> None:
        """Raises AttributeError where the library is no libcrypto of OpenSSL 3."""
        self._library = library
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments

    def version(self) -> str:
        """As `openssl version` says it."""
        text: bytes = self._library.OpenSSL_version(0)
        return text.decode()

    def providers(self) -> list[str]:
        """Name and version of each provider loaded."""
        found: list[str] = []

        def note(provider: int, _: int) -> int:
            name: bytes = self._library.OSSL_PROVIDER_get0_name(provider)
            found.append(f"{name.decode()} {self._provider_version(provider)}".rstrip())
            return 1

        self._library.OSSL_PROVIDER_do_all(None, _PROVIDER_CALLBACK(note), None)
        return sorted(found)

    def encrypts(self, name: str) -> bool:
        """Whether this cipher can be had, and encrypts, under the default properties of the process."""
        cipher = self._library.EVP_CIPHER_fetch(None, name.encode(), None)
        if not cipher:
            return False
        context = self._library.EVP_CIPHER_CTX_new()
        length, out = ctypes.c_int(), ctypes.create_string_buffer(64)
        try:
            return bool(
                self._library.EVP_EncryptInit_ex(context, cipher, None, _KEY, _NONCE)
                and self._library.EVP_EncryptUpdate(context, out, ctypes.byref(length), b"probe", 5)
                and self._library.EVP_EncryptFinal_ex(context, out, ctypes.byref(length))
            )
        finally:
            self._library.EVP_CIPHER_CTX_free(context)
            self._library.EVP_CIPHER_free(cipher)

    def _provider_version(self, provider: int) -> str:
        text = ctypes.c_char_p()
        params = (_Param * 2)(
            _Param(b"version", _UTF8_POINTER, ctypes.cast(ctypes.pointer(text), ctypes.c_void_p), 8, 0),
            _Param(),
        )
        if not self._library.OSSL_PROVIDER_get_params(provider, params) or text.value is None:
            return ""
        return text.value.decode()


def facts_of(use: str, module: str, linkage: str, libcrypto: Libcrypto) -> dict[str, Any]:
    """One module's entry."""
    return {
        "use": use,
        "module": module,
        "linkage": linkage,
        "providers": libcrypto.providers(),
        "are_providers_known": True,
        "works_aes_gcm": libcrypto.encrypts("AES-256-GCM"),
        "works_chacha20": libcrypto.encrypts("ChaCha20-Poly1305"),
    }


def python_ssl() -> dict[str, Any]:
    """The OpenSSL behind Python's ssl: metrics endpoint, KMS and other clients."""
    path = getattr(_ssl, "__file__", None)
    libcrypto = Libcrypto(ctypes.CDLL(path))
    return facts_of(
        "Python's ssl (metrics endpoint, key services, stores)",
        ssl.OPENSSL_VERSION,
        f"dynamic, {_linked(path) or 'unknown library'}",
        libcrypto,
    )


def python_cryptography() -> dict[str, Any]:
    """What seals recordings. The library inside the wheel has no functions of its own to ask."""
    linked = _linked(str(_rust.__file__))
    return {
        "use": "sealing recordings, judging certificates (cryptography)",
        "module": f"cryptography {cryptography.__version__} with {backend.openssl_version_text()}",
        "linkage": "static, inside the wheel" if linked is None else f"dynamic, {linked}",
        "works_aes_gcm": _works(lambda: AESGCM(_KEY).encrypt(_NONCE, b"probe", None)),
        "works_chacha20": _works(lambda: ChaCha20Poly1305(_KEY).encrypt(_NONCE, b"probe", None)),
    }


def sip_library() -> dict[str, Any]:
    """What pjsip's TLS and libsrtp run on: the libraries that loading pjsua2 brings along."""
    use = "SIP over TLS and SRTP (pjsip, libsrtp)"
    spec = importlib.util.find_spec("_pjsua2")
    if spec is None or spec.origin is None:
        return {"use": use, "problem": "the SIP library is not installed here"}
    pjsip = ctypes.CDLL(spec.origin)
    loaded = _loaded()
    crypto = sorted(path for path in loaded if re.search(r"/libcrypto\.so", path))
    if len(crypto) != 1:
        return {"use": use, "problem": f"{len(crypto)} libcrypto are loaded: {', '.join(crypto)}"}
    libcrypto = Libcrypto(ctypes.CDLL(crypto[0]))
    pjsip.pj_get_version.restype = ctypes.c_char_p
    pjsip.srtp_get_version_string.restype = ctypes.c_char_p
    return facts_of(
        use,
        f"pjsip {pjsip.pj_get_version().decode()}, {pjsip.srtp_get_version_string().decode()}, "
        f"{libcrypto.version()}",
        f"dynamic, {crypto[0]}",
        libcrypto,
    )


def _loaded() -> set[str]:
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line.split(maxsplit=5)[5] for line in lines if "/" in line}


def _linked(path: str | None) -> str | None:
    """The libcrypto that a shared object is linked to, None where it is linked to none."""
    if path is None:
        return None
    listing = subprocess.run(  # noqa: S603 - of a library that is loaded here anyway
        ["/usr/bin/ldd", path], check=True, capture_output=True, text=True, timeout=_LDD_S
    ).stdout
    found = re.search(r"libcrypto\S* => (\S+)", listing)
    return None if found is None else found[1]


def _works(encrypt: Callable[[], bytes]) -> bool:
    try:
        encrypt()
    except (InternalError, UnsupportedAlgorithm, ValueError):
        return False
    return True


MODULES: dict[str, Callable[[], dict[str, Any]]] = {
    "python-ssl": python_ssl,
    "cryptography": python_cryptography,
    "sip": sip_library,
}


def main() -> int:
    """Print what was found; a module that can't be asked has a `problem`."""
    found = {}
    for name, ask in MODULES.items():
        try:
            found[name] = ask()
        except (OSError, AttributeError, subprocess.SubprocessError) as error:
            found[name] = {"use": name, "problem": str(error) or type(error).__name__}
    json.dump(found, sys.stdout)
    sys.stdout.flush()
    os._exit(0)  # the libraries loaded above must not run their endings


if __name__ == "__main__":
    main()
