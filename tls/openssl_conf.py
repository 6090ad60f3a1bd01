"""The process-wide OpenSSL floor: the text of the configuration file, and proof that it is in effect.

It is the second line of defence behind settings on each context. What it guards against: a library that builds a
context and forgets a floor, and session tickets, which let a TLS 1.3 client resume without its certificate being looked
at again. OpenSSL reads the file once, when it is first used; so it must be named in OPENSSL_CONF before the
process starts, and whether that worked is asked of the library itself.

NumTickets applies to contexts of a server only; that is where tickets are made.
"""

from __future__ import annotations

import _ssl
import ctypes
import ssl
from collections.abc import Iterator
from typing import Final

from tls.client_hello import ClientHello, parse_client_hello
from tls.errors import OpenSSLConfigurationError
from tls.settings import TLS13_ONLY, PolicyProfile, TLSVersion

_CTRL_GET_MIN_PROTO_VERSION: Final = 130
_CTRL_GET_MAX_PROTO_VERSION: Final = 131
"""Source: OpenSSL's include/openssl/ssl.h; the macros SSL_CTX_get_min_proto_version and its twin are these calls."""


def openssl_configuration(profile: PolicyProfile = TLS13_ONLY) -> str:
    """The text of an OpenSSL configuration file that makes `profile` the default of every TLS context."""
    values = {
        "MinProtocol": profile.minimum_version.label,
        "MaxProtocol": profile.maximum_version.label,
        "Ciphersuites" if _is_tls13(profile) else "CipherString": _suite_list(profile),
        "Groups": ":".join(group.openssl_name for group in profile.groups),
        "SignatureAlgorithms": ":".join(scheme.name for scheme in profile.signature_schemes),
        "Options": "-SessionTicket",
        "NumTickets": "0",
    }
    lines = [
        f"# OpenSSL defaults of sealtrunk, profile {profile.name}. Written by the program; changes are overwritten.",
        "openssl_conf = sealtrunk_init",
        "",
        "[sealtrunk_init]",
        "ssl_conf = sealtrunk_ssl",
        "",
        "[sealtrunk_ssl]",
        "system_default = sealtrunk_default",
        "",
        "[sealtrunk_default]",
        *(f"{key} = {value}" for key, value in values.items()),
        "",
    ]
    return "\n".join(lines)


def verify_openssl_configuration_in_effect(profile: PolicyProfile = TLS13_ONLY) -> None:
    """Prove that contexts of this process start from `openssl_configuration(profile)`.

    It asks the very libssl that Python's ssl uses, which on Debian is the one pjsip links too: a bare context for
    its protocol range and tickets, and a first flight for the suites, groups and signature schemes it would offer.

    Raises:
        OpenSSLConfigurationError: listing every difference.
    """
    differences = [*_context_differences(profile), *_hello_differences(profile)]
    if differences:
        raise OpenSSLConfigurationError(differences)


def _context_differences(profile: PolicyProfile) -> Iterator[str]:
    library = _libssl()
    server = library.SSL_CTX_new(library.TLS_server_method())
    if not server:
        yield "libssl makes no context"
        return
    try:
        checks = (
            (_CTRL_GET_MIN_PROTO_VERSION, "minimum", profile.minimum_version),
            (_CTRL_GET_MAX_PROTO_VERSION, "maximum", profile.maximum_version),
        )
        for control, bound, wanted in checks:
            found = library.SSL_CTX_ctrl(server, control, 0, None)
            if found != wanted.value:
                yield f"{bound} protocol is {_version_name(found)}, not {wanted.label}"
        tickets = library.SSL_CTX_get_num_tickets(server)
        if tickets != 0:
            yield f"a server issues {tickets} session tickets"
    finally:
        library.SSL_CTX_free(server)


def _hello_differences(profile: PolicyProfile) -> Iterator[str]:
    hello = _default_hello(profile)
    lists = (
        ("cipher suites", hello.cipher_suites, {suite.iana_id for suite in profile.cipher_suites}),
        ("groups", hello.groups, {group.code_point for group in profile.groups}),
        (
            "signature schemes",
            hello.signature_schemes,
            {scheme.value for scheme in profile.signature_schemes},
        ),
    )
    for name, offered, allowed in lists:
        surplus = [f"0x{code:04x}" for code in offered if code not in allowed]
        if surplus:
            yield f"{name} beyond the profile are offered: {', '.join(surplus)}"


def _default_hello(profile: PolicyProfile) -> ClientHello:
    """The first flight of a client that takes OpenSSL's defaults but for the version, which Python always sets."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = profile.minimum_version.for_ssl
    context.maximum_version = profile.maximum_version.for_ssl
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        context.wrap_bio(incoming, outgoing).do_handshake()
    except ssl.SSLWantReadError:
        return parse_client_hello(outgoing.read())
    except ssl.SSLError as error:
        raise OpenSSLConfigurationError([f"no handshake can start ({error.reason})"]) from error
    raise AssertionError("a handshake cannot end without an answer")


def _libssl() -> ctypes.CDLL:
    """The libssl behind the ssl module: its extension's handle also finds the symbols of what it links."""
    library = ctypes.CDLL(getattr(_ssl, "__file__", None))
    library.TLS_server_method.restype = ctypes.c_void_p
    library.SSL_CTX_new.restype = ctypes.c_void_p
    library.SSL_CTX_new.argtypes = [ctypes.c_void_p]
    library.SSL_CTX_free.restype = None
    library.SSL_CTX_free.argtypes = [ctypes.c_void_p]
    library.SSL_CTX_ctrl.restype = ctypes.c_long
    library.SSL_CTX_ctrl.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_void_p]
    library.SSL_CTX_get_num_tickets.restype = ctypes.c_size_t
    library.SSL_CTX_get_num_tickets.argtypes = [ctypes.c_void_p]
    return library


def _is_tls13(profile: PolicyProfile) -> bool:
    return profile.minimum_version is TLSVersion.TLS_1_3


def _suite_list(profile: PolicyProfile) -> str:
    return ":".join(suite.openssl_name for suite in profile.cipher_suites)


def _version_name(number: int) -> str:
    known = {version.value: version.label for version in TLSVersion}
    return known.get(number, "unset" if number == 0 else f"0x{number:04x}")
