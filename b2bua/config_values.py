"""Text of a configuration value -> domain value, or a refusal that names the fault and the cure.

Each `read_*` function takes what `tomllib` gave and raises only what `refuse` builds, which pydantic carries
to its caller with the place.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from pydantic_core import PydanticCustomError

from b2bua.call.headers import NEVER_PASSED
from b2bua.settings import SIPTarget, SRTPSuite, URIScheme
from recording.format.limits import CHUNK_SIZES

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Member = TypeVar("Member", bound=enum.Enum)

REFUSED = "refused"
LOWEST_PORT, HIGHEST_PORT = 1, 65535
LOWEST_RTP_PORT = 1024
"""Below it a process needs privileges that a media server must not hold."""

_CERTIFICATE_NUMBER = re.compile(r"[0-9]{1,5}")
_FINDING_KEY = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
KMS_KEY = re.compile(
    r"arn:aws[a-z-]*:kms:(?P<region>[a-z0-9-]+):[0-9]{12}:key/"
    r"(?:mrk-[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
)
KMS_KEY_EXAMPLE = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NAME = re.compile(r"[a-z](?:[a-z0-9_-]{0,30}[a-z0-9])?")
_HANDLE = re.compile(r"[0-9a-f]{32}")
_EMERGENCY_NUMBER = re.compile(r"\+?[0-9]{2,15}")
_DIGITS = re.compile(r"\+?[0-9*#]{1,32}")
_PAUSE_CODE = re.compile(r"[*#][0-9*#]{1,6}[0-9]")
_RTP_PORTS = re.compile(r"([0-9]{1,5})-([0-9]{1,5})")
_TARGET = re.compile(r"(?P<scheme>[A-Za-z]+):(?P<rest>[^;?]+)(?P<parameters>(?:;[^;?]*)*)")
_TOKEN = re.compile(r"[A-Za-z0-9.!%*_+`'~-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPort:
    """A host (name or IP literal without brackets) and a port; `port` None where the text gave none."""

    host: str
    port: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PortRange:
    """Inclusive; `first` is even and `last` odd, so that it holds whole RTP/RTCP pairs (RFC 3550 section 11)."""

    first: int
    last: int

    @property
    def size(self) -> int:
        return self.last - self.first + 1

    def __contains__(self, port: object) -> bool:
        return isinstance(port, int) and self.first <= port <= self.last


def refuse(what: str, cure: str) -> PydanticCustomError:
    """A refusal that pydantic passes on with both halves kept apart (`ctx` of the error)."""
    return PydanticCustomError(REFUSED, "{what}", {"what": what, "cure": cure})


def _text(value: object, example: str) -> str:
    if not isinstance(value, str):
        raise refuse("must be a text in quotes", f"write it like {example}")
    return value


def one_of(members: type[Member], label: Callable[[Member], str]) -> Callable[[object], Member]:
    """A reader for the members of an enumeration, by `label`."""
    by_label = {label(member): member for member in members}
    allowed = " or ".join(f'"{name}"' for name in by_label)

    def read(value: object) -> Member:
        member = by_label.get(value) if isinstance(value, str) else None
        if member is None:
            raise refuse(f"{value!r} is not one of the values of this key", f"use {allowed}")
        return member

    return read


def by_value(member: enum.Enum) -> str:
    """A label for `one_of`: the file holds the member's value."""
    return str(member.value)


def by_name(member: enum.Enum) -> str:
    """A label for `one_of`: the file holds the member's name."""
    return member.name


def is_ip_literal(host: str) -> bool:
    """Whether `host` is an IPv4 or IPv6 address without brackets."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def read_ip(value: object) -> str:
    """An IPv4 or IPv6 literal in its canonical spelling. Names are refused: binding must not wait for a look- up."""
    text = _text(value, '"192.0.2.10"')
    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError as error:
        raise refuse(
            f"{text!r} is not an IP address", 'write an address such as "192.0.2.10" or "2001:db8::10"'
        ) from error


def read_unicast_ip(value: object) -> str:
    """As `read_ip`, and neither the wildcard nor a multicast address: it is written into SDP."""
    text = read_ip(value)
    address = ipaddress.ip_address(text)
    if address.is_unspecified or address.is_multicast:
        raise refuse(
            f"{text} can't be the address of one host",
            "write the address of the interface that carries the media",
        )
    return text


def read_host_name(value: object) -> str:
    """A DNS name in lower case without a trailing dot; no wildcard, no IP address. Source: RFC 5922 section 7.2."""
    text = _text(value, '"pbx.example.test"')
    name = text.lower().removesuffix(".")
    if "*" in name:
        raise refuse(
            f"{text!r} holds a wildcard", "name each host: a wildcard names nobody (RFC 5922 section 7.2)"
        )
    if is_ip_literal(name.strip("[]")):
        raise refuse(
            f"{text!r} is an address",
            "write the DNS name that the peer's certificate carries as subjectAltName",
        )
    if len(name) > 253 or _HOST_NAME.fullmatch(name) is None:
        raise refuse(
            f"{text!r} is not a DNS name",
            'write a name such as "pbx.example.test" (A-labels for other scripts)',
        )
    return name


def _split_host_port(text: str) -> tuple[str, str | None]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise refuse(f"{text!r} has no well-formed IPv6 address", 'write it like "[2001:db8::10]:5061"')
        return host, rest[1:] if rest else None
    if text.count(":") > 1:
        raise refuse(
            f"{text!r} mixes address and port", 'put an IPv6 address in brackets: "[2001:db8::10]:5061"'
        )
    host, colon, port = text.partition(":")
    return host, port if colon else None


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not LOWEST_PORT <= int(text) <= HIGHEST_PORT:
        raise refuse(
            f"{text!r} is not a port that a peer can connect to",
            f"use a number from {LOWEST_PORT} to {HIGHEST_PORT}",
        )
    return int(text)


def _host(host: str) -> str:
    return read_ip(host) if is_ip_literal(host) else read_host_name(host)


def read_host_port(value: object) -> HostPort:
    """`host`, `host:port` or `[v6]:port`, the host a name or an address."""
    host, port = _split_host_port(_text(value, '"edge.example.test:5061"'))
    return HostPort(host=_host(host), port=None if port is None else _port(port))


def read_listen(value: object) -> HostPort:
    """An IP literal and a port, both given."""
    text = _text(value, '"127.0.0.1:5061"')
    host, port = _split_host_port(text)
    if port is None:
        raise refuse(f"{text!r} has no port", f'write the port too, for instance "{text}:5061"')
    return HostPort(host=read_ip(host), port=_port(port))


def read_port_range(value: object) -> PortRange:
    """`first-last`, whole RTP/RTCP pairs. Source: RFC 3550 section 11."""
    text = _text(value, '"20000-23999"')
    match = _RTP_PORTS.fullmatch(text.replace(" ", ""))
    if match is None:
        raise refuse(f"{text!r} is not a range of ports", 'write first and last with a hyphen: "20000-23999"')
    first, last = int(match[1]), int(match[2])
    if first > last:
        raise refuse(f"the range {text} runs backwards", f'write it "{last}-{first}"')
    if first < LOWEST_RTP_PORT or last > HIGHEST_PORT:
        raise refuse(
            f"the range {text} leaves {LOWEST_RTP_PORT}-{HIGHEST_PORT}",
            "move it inside, below the system's ephemeral ports",
        )
    if first % 2 or not last % 2:
        even, odd = first - first % 2, last + (1 - last % 2)
        cure = f'write "{even}-{odd}": RTP takes the even port of a pair, RTCP the odd one'
        raise refuse(f"the range {text} must begin with an even and end with an odd port", cure)
    return PortRange(first=first, last=last)


def read_pause_code(value: object) -> str:
    """A star or hash first: a number that a menu asks for begins with a digit, and must not pause by chance."""
    text = _text(value, '"*71"')
    if _PAUSE_CODE.fullmatch(text) is None:
        raise refuse(
            "it is not a pause code",
            'write three to eight of 0-9, * and #, the first * or #, the last a digit: "*71"',
        )
    return text


def read_network(value: object) -> Network:
    """A network in CIDR notation or one address; host bits must be zero."""
    text = _text(value, '"192.0.2.0/24"')
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise refuse(
            f"{text!r} is not a network", 'write it like "192.0.2.0/24", host bits zero, or one address'
        ) from error


def read_suite(value: object) -> SRTPSuite:
    """An SRTP suite by its SDES name; the refusal says why a known bad one is never allowed."""
    allowed = ", ".join(suite.value for suite in SRTPSuite)
    text = _text(value, f'"{SRTPSuite.AEAD_AES_256_GCM.value}"')
    for suite in SRTPSuite:
        if text == suite.value:
            return suite
    for mark, reason in _BAD_SUITE_MARKS.items():
        if mark in text.upper():
            raise refuse(f"SRTP suite {text!r} is never allowed: {reason}", f"allowed: {allowed}")
    raise refuse(f"{text!r} is not an SRTP suite of this product", f"allowed: {allowed}")


_BAD_SUITE_MARKS = {
    "NULL": "it does not protect the media",
    "_32": "its authentication tag has 32 bits only",
    "AES_192": "AES-192 is not offered",
    "GCM_8": "its authentication tag has 64 bits only",
}


def read_target(value: object) -> SIPTarget:
    """`sips:host[:port]` or `sip:host[:port];transport=tls`, the host a name that the peer's certificate carries.

    Source: RFC 3261 section 19.1, RFC 5630 section 3.1, RFC 5922 section 4.
    """
    example = '"sips:pbx.example.test:5061" or "sip:pbx.example.test:5061;transport=tls"'
    text = _text(value, example)
    match = _TARGET.fullmatch(text)
    if match is None or match["scheme"].lower() not in {"sip", "sips"}:
        raise refuse(f"{text!r} is not a SIP URI", f"write {example}")
    if "@" in match["rest"]:
        raise refuse(
            "the target names a user", "leave the part up to @ out: the called number comes from the call"
        )
    scheme = URIScheme(match["scheme"].lower())
    parameters = [parameter.lower() for parameter in match["parameters"].split(";") if parameter]
    wanted = ["transport=tls"] if scheme is URIScheme.SIP else []
    if parameters != wanted and not (scheme is URIScheme.SIPS and parameters == ["transport=tls"]):
        raise refuse(
            "the target would not be reached over TLS, or has parameters with no meaning here",
            f"write {example}",
        )
    target = read_host_port(match["rest"])
    if is_ip_literal(target.host):
        cure = "write the DNS name that its certificate carries, and the address in `addresses`"
        raise refuse(f"{target.host} is an address, and no certificate is judged by one", cure)
    return SIPTarget(scheme=scheme, host=target.host, port=target.port)


def name_fault(name: str) -> str | None:
    """Why `name` can't be a trunk's, tenant's or key's, or None.

    Names reach logs and metric labels, so they are short and hold no number.
    """
    if _NAME.fullmatch(name) is None:
        return "a name is 1 to 32 lower-case letters, digits, _ or -, and begins with a letter"
    if re.search(r"[0-9]{5}", name):
        return "a name must not hold five digits in a row: it would look like a phone number in a log"
    return None


def read_handle(value: object) -> bytes:
    """A tenant handle: 16 bytes as 32 hex digits, not all the same."""
    text = _text(value, '"0f9c…", 32 hex digits')
    cure = "draw 16 random bytes: python3 -c 'import secrets; print(secrets.token_hex(16))'"
    if _HANDLE.fullmatch(text.lower()) is None:
        raise refuse("the handle is not 32 hex digits", cure)
    handle = bytes.fromhex(text)
    if len(set(handle)) == 1:
        raise refuse("the handle is one byte sixteen times, not random", cure)
    return handle


def read_emergency_number(value: object) -> str:
    """A number as it is dialled: digits, with or without a leading plus. Never a pattern: the list is explicit."""
    text = _text(value, '"112"')
    if _EMERGENCY_NUMBER.fullmatch(text) is None:
        raise refuse(
            "an emergency number is 2 to 15 digits, with or without a leading +",
            'write each as it is dialled: "112"',
        )
    return text


def read_digits(value: object) -> str:
    """A dialled prefix: digits, * and #, with or without a leading plus; empty matches every number."""
    text = _text(value, '"+49"')
    if text and _DIGITS.fullmatch(text) is None:
        raise refuse(
            "a prefix is digits, * and #, with or without a leading +",
            'write it like "+49", or "" for every number',
        )
    return text


def read_header_name(value: object) -> str:
    """A header field name, lower case, that a trunk may pass on; what belongs to one leg is refused."""
    text = _text(value, '"X-Call-Reference"')
    if _TOKEN.fullmatch(text) is None:
        raise refuse(
            f"{text!r} is not a header name", 'write the name without colon or value: "X-Call-Reference"'
        )
    if len(text) == 1:
        raise refuse(f"{text!r} is a compact form", "write the header's long name")
    if text.lower() in NEVER_PASSED:
        raise refuse(
            f"the header {text} belongs to one leg", "take it out: it is always made anew for the other leg"
        )
    return text.lower()


def read_https_url(value: object) -> str:
    """An https URL of a host, with no user, query or fragment; plain http is refused, loopback included."""
    text = _text(value, '"https://kms.eu-central-1.amazonaws.com"')
    if text.lower().startswith("http://"):
        raise refuse(
            "the endpoint is plain http", "use https, on loopback too, and name its authority with `ca`"
        )
    if re.fullmatch(r"https://[A-Za-z0-9.:\[\]-]+(?:/[A-Za-z0-9._~/-]*)?", text) is None:
        raise refuse(
            "the endpoint is not an https address of a host",
            'write it like "https://kms.eu-central-1.amazonaws.com"',
        )
    return text


def read_https_server(value: object) -> str:
    """An https URL of a server alone; a path has no meaning there."""
    text = read_https_url(value)
    if text.count("/") > 2 and text.split("/", 3)[3]:
        raise refuse("the address has a path", 'write the server alone: "https://vault.example.test:8200"')
    return text.rstrip("/")


def read_kms_key(value: object) -> str:
    """The ARN of a key. An alias can be pointed at another key; a bare id doesn't say whose it is."""
    text = _text(value, f'"{KMS_KEY_EXAMPLE}"')
    if KMS_KEY.fullmatch(text) is None:
        raise refuse(
            f"{text!r} is not the ARN of a KMS key",
            f'write it like "{KMS_KEY_EXAMPLE}"; aliases are not taken',
        )
    return text


def read_chunk_size(value: object) -> int:
    """One of the record sizes of the container. Source: docs/recording-format.md, Layout."""
    if isinstance(value, int) and value in CHUNK_SIZES:
        return value
    raise refuse(
        f"{value!r} is not a record size of the container", f"use {', '.join(map(str, CHUNK_SIZES))}"
    )


def read_claims(value: object) -> dict[str, str]:
    """CMVP certificate numbers by module or key. Numbers only, so that nothing else is claimed in a report."""
    if not isinstance(value, dict):
        raise refuse("must be a table of certificate numbers", 'write it like { sip = "4282" }')
    for name, number in value.items():
        if not isinstance(number, str) or _CERTIFICATE_NUMBER.fullmatch(number) is None:
            raise refuse(
                f"the value of {name} is not a certificate number", 'write one to five digits: "4282"'
            )
    return value


def read_finding_key(value: object) -> str:
    """The key of a finding, as `b2bua posture` prints it."""
    text = _text(value, '"sink.lock"')
    if _FINDING_KEY.fullmatch(text) is None:
        raise refuse(f"{text!r} is not the key of a finding", "copy it from the report: b2bua posture --json")
    return text
