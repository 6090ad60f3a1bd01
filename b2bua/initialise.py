"""A first configuration: development authority, certificates, key-encryption key, tenant, two example peers."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from b2bua.config_checks import PORTS_PER_CALL
from b2bua.config_shape_calls import MOST_CALLS
from b2bua.config_values import HIGHEST_PORT, LOWEST_PORT, LOWEST_RTP_PORT
from b2bua.errors import InitialisationError
from recording.index.search_key import create_search_key
from recording.keys.errors import KeyConfigurationError
from recording.keys.local import create_kek
from recording.settings import Layout
from recording.signing import create_signing_key
from tls.authority import DevelopmentAuthority
from tls.errors import AuthorityError
from tls.settings import TLSMaterialSettings

CONFIGURATION_NAME = "b2bua.toml"
EDGE, CALLER, CALLEE, MONITOR = "edge", "caller", "callee", "monitor"
DOMAIN = "example.test"
"""Source: RFC 2606 section 2: `.test` belongs to nobody."""

RTP_SEARCH = range(10000, 32000)
"""Below Linux's ephemeral ports (32768 on), so that no passing socket takes one of ours later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InitOptions:
    """What `b2bua init` may be told.

    With `free_ports` free ones are found, those for RTP in `rtp_search`, which begins even; those given are ignored.
    """

    layout: Layout = Layout.MIXED
    sip_port: int = 5061
    caller_port: int = 5071
    callee_port: int = 5072
    metrics_port: int = 9443
    rtp_port_first: int = 20000
    max_calls: int = 100
    free_ports: bool = False
    rtp_search: range = RTP_SEARCH


@dataclass(frozen=True, slots=True, kw_only=True)
class InitResult:
    """What was made, paths absolute.

    `caller` and `callee` are the material of the example peers, `monitor` that of a metrics client.
    """

    directory: Path
    configuration: Path
    authority: Path
    kek: Path
    edge: TLSMaterialSettings
    caller: TLSMaterialSettings
    callee: TLSMaterialSettings
    monitor: TLSMaterialSettings
    sip_port: int
    caller_port: int
    callee_port: int
    metrics_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ports:
    sip: int
    caller: int
    callee: int
    metrics: int
    rtp_first: int
    rtp_last: int


def identity_of(name: str) -> str:
    """The DNS name in the certificate of one of the four parties."""
    return f"{name}.{DOMAIN}"


def initialise(directory: Path, options: InitOptions, *, now: datetime | None = None) -> InitResult:
    """Make a development configuration in `directory`, which is created if missing.

    Args:
        directory: where; relative to the working directory.
        options: layout and ports.
        now: when the certificates begin, aware; None: the clock.

    Raises:
        InitialisationError: something is there already, can't be written, or no ports are free. Nothing is
        overwritten.
    """
    moment = now if now is not None else datetime.now(UTC)
    directory = directory.absolute()
    configuration = directory / CONFIGURATION_NAME
    _refuse_existing(directory)
    if not 1 <= options.max_calls <= MOST_CALLS:
        raise InitialisationError(
            f"{options.max_calls} calls at once can't be set up; choose 1 to {MOST_CALLS}"
        )
    ports = _free_ports(options) if options.free_ports else _asked_ports(options)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (directory / "keys").mkdir(mode=0o700)
        material = _issue_certificates(directory / "tls", moment)
        create_kek(directory / "keys" / "dev.kek")
        create_kek(directory / "keys" / "audit.kek")
        create_search_key(directory / "keys" / "index-search.key")
        create_signing_key(directory / "keys" / "signing.pem")
        _write_new(configuration, _document(ports, options))
    except (AuthorityError, KeyConfigurationError) as error:
        raise InitialisationError(str(error)) from error
    except OSError as error:
        raise InitialisationError(
            f"{directory}: can't be written ({error.strerror}); choose another directory"
        ) from error
    return InitResult(
        directory=directory,
        configuration=configuration,
        authority=material[EDGE].trust_path,
        kek=directory / "keys" / "dev.kek",
        edge=material[EDGE],
        caller=material[CALLER],
        callee=material[CALLEE],
        monitor=material[MONITOR],
        sip_port=ports.sip,
        caller_port=ports.caller,
        callee_port=ports.callee,
        metrics_port=ports.metrics,
    )


def _refuse_existing(directory: Path) -> None:
    for name in (CONFIGURATION_NAME, "tls", "keys"):
        if os.path.lexists(directory / name):
            raise InitialisationError(
                f"{directory / name} exists and is never overwritten; choose another directory or move it "
                "away"
            )


def _issue_certificates(directory: Path, now: datetime) -> dict[str, TLSMaterialSettings]:
    authority = DevelopmentAuthority.create(directory, now=now)
    return {
        name: authority.issue(name, now=now, sip_identities=[identity_of(name)])
        for name in (EDGE, CALLER, CALLEE, MONITOR)
    }


def _write_new(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)


# --- ports


def _asked_ports(options: InitOptions) -> _Ports:
    last = options.rtp_port_first + options.max_calls * PORTS_PER_CALL - 1
    ports = _Ports(
        sip=options.sip_port,
        caller=options.caller_port,
        callee=options.callee_port,
        metrics=options.metrics_port,
        rtp_first=options.rtp_port_first,
        rtp_last=last,
    )
    single = (ports.sip, ports.caller, ports.callee, ports.metrics)
    if len(set(single)) < len(single):
        raise InitialisationError("two of the ports are the same; give each its own, or use --free-ports")
    if not all(LOWEST_PORT <= port <= HIGHEST_PORT for port in single):
        raise InitialisationError("a port lies outside 1 to 65535; choose another, or use --free-ports")
    if options.rtp_port_first % 2 or options.rtp_port_first < LOWEST_RTP_PORT or last > HIGHEST_PORT:
        raise InitialisationError(
            "the RTP ports must begin with an even port from 1024 on and end below 65536"
        )
    if any(ports.rtp_first <= port <= last for port in single):
        raise InitialisationError(
            f"the RTP ports {ports.rtp_first}-{last} hold one of the other ports; move one of them"
        )
    return ports


def _free_ports(options: InitOptions) -> _Ports:
    """Ports that were free a moment ago, on loopback."""
    count = options.max_calls * PORTS_PER_CALL
    with _bound_tcp_ports(4) as (sip, caller, callee, metrics):
        first = _free_udp_range(
            count, within=options.rtp_search, avoid=frozenset((sip, caller, callee, metrics))
        )
        return _Ports(
            sip=sip,
            caller=caller,
            callee=callee,
            metrics=metrics,
            rtp_first=first,
            rtp_last=first + count - 1,
        )


@contextlib.contextmanager
def _bound_tcp_ports(count: int) -> Iterator[list[int]]:
    """Different ports, chosen by the kernel and held until the block ends."""
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(count):
            listener = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            listener.bind(("127.0.0.1", 0))
            ports.append(int(listener.getsockname()[1]))
        yield ports


def _free_udp_range(count: int, *, within: range, avoid: frozenset[int]) -> int:
    """The even first of `count` UDP ports in a row that could all be bound."""
    for _ in range(200):
        first = within.start + 2 * secrets.randbelow((len(within) - count) // 2)
        ports = range(first, first + count)
        if avoid.isdisjoint(ports) and all(_is_free_udp(port) for port in ports):
            return first
    raise InitialisationError(f"no {count} UDP ports in a row are free; lower --max-calls or name the ports")


def _is_free_udp(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


# --- the document


def _document(ports: _Ports, options: InitOptions) -> str:
    return _TEMPLATE.format(
        ports=ports,
        layout=options.layout.value,
        max_calls=options.max_calls,
        handle=secrets.token_hex(16),
        caller=identity_of(CALLER),
        callee=identity_of(CALLEE),
        monitor=identity_of(MONITOR),
    )


_TEMPLATE = """\
# Made by `b2bua init` for trying things out on this machine. Paths are relative to this file.
# Judge it with `b2bua check`; every key is explained in docs/configuration.md.

# "production" refuses the key and the certificate authority that this directory holds.
environment = "development"
# Calls to these numbers are never refused or ended for want of a recording, a key or a free call.
emergency_numbers = ["112", "911"]

[sip]                                   # TLS 1.3 with client certificates; there is no other listener
listen = "127.0.0.1:{ports.sip}"

[tls]
certificate = "tls/edge.pem"
private_key = "tls/edge.key"            # mode 0600
trust = "tls/development-ca.pem"        # who vouches for the peers' certificates

[media]                                 # SRTP only
address = "127.0.0.1"
rtp_ports = "{ports.rtp_first}-{ports.rtp_last}"               # four for each call

[index]                                 # numbers and names stand in it sealed
search_key = "keys/index-search.key"    # finds a number without showing it; who has it can test guesses

[recording]
directory = "recordings"                # ciphertext; so are recordings-spool and the index beside it
layout = "{layout}"                        # "mixed": one channel; "split": two, caller first
signing_key = "keys/signing.pem"        # signs what was recorded, so that what is cut off later shows

[keys.dev]                              # a key in a file: development only. Otherwise: provider = "aws-kms"
provider = "local"
kek = "keys/dev.kek"                    # whoever has it can read every recording; without it nobody can

[tenants.clinic]
handle = "{handle}"   # random, the only name of the tenant on disk
key = "dev"

[trunks.caller]
identities = ["{caller}"]     # a name in the peer's certificate decides that a connection is this trunk's
sources = ["127.0.0.0/8"]
target = "sips:{caller}:{ports.caller}"
addresses = ["127.0.0.1"]               # where the target is; without it the name is looked up
tenant = "clinic"
recording = "required"                  # no recording, no call; or "best-effort", "off"

[trunks.callee]
identities = ["{callee}"]
sources = ["127.0.0.0/8"]
target = "sips:{callee}:{ports.callee}"
addresses = ["127.0.0.1"]
tenant = "clinic"
recording = "required"

[[routes]]
from = "caller"
to = "callee"

[[routes]]
from = "callee"
to = "caller"

[keys.audit]
provider = "local"
kek = "keys/audit.kek"

[audit]                                 # who was let in, refused, recorded or read: chained and sealed
directory = "audit"                     # `b2bua audit verify` and `b2bua audit show` read it
key = "audit"                           # of its own: who may read recordings need not read this

[metrics]                               # https, with a client certificate too
listen = "127.0.0.1:{ports.metrics}"
clients = ["{monitor}"]

[control]                               # for `b2bua calls`: who may enter its directory can pause recordings
socket = "run/control.sock"

[limits]
max_calls = {max_calls}
"""
