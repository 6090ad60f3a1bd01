"""The one C extension: taps, transport guard, SDP gate hook, TLS listener, SRTP state, host table.

Every function releases the GIL around pjsip calls. All but the tap drain run on the SIP thread, after `libInit`. Callbacks arrive on the
SIP thread with the GIL held; an exception that leaves one is printed through sys.unraisablehook, counted, and taken as a refusal.
A C-side failure raises `NativeError(pj_status, text)`.
"""

from collections.abc import Callable, Sequence
from typing import Final

class NativeError(Exception):
    status: int

# ---- guard.c -------------------------------------------------------------------------------------------------------------------
# A transport is a pj pointer as an int (`hnd`). `token` > 0 is what on_connected returned for it (a trunk's number); 0 = unverified.

#  on_connected(hnd, incoming, remote "ip:port" | "[v6]:port", remote_name, protocol, cipher, verify_status, chain_pem) -> token
#     protocol: 0x0304 = TLS 1.3; cipher: IANA id; chain_pem: leaf first. Runs inside pjsip's CONNECTED callback, before a byte of SIP is
#     read or sent; 0 shuts the transport down at once.
OnConnected = Callable[[int, bool, str, str, int, int, int, list[str]], int]
#  on_disconnected(hnd, token, incoming, remote, pj_status)      also for handshakes that failed (token 0)
OnDisconnected = Callable[[int, int, bool, str, int], None]
#  gate(token, hnd, is_request, method, status, initial, sip_call_id, content_type, body, message)
#     -> None to let it pass, or (status, reason, [(header, value), ...]) to refuse.
#     Requests: every one that is not a retransmission (ACK included). `initial`: no To tag. A refusal is answered statefully by C
#     (ACK cannot be answered: it is dropped). Responses: only those with a body; a refusal strips the body before pjsip sees it.
#     `message` is the whole message as received.
Gate = Callable[
    [int, int, bool, str, int, bool, str, str, bytes, bytes], tuple[int, str, Sequence[tuple[str, str]]] | None
]
#  on_refused(token, hnd, reason, method, status)   what C refused by itself; reason is one of REFUSAL_REASONS
OnRefused = Callable[[int, int, str, str, int], None]

REFUSAL_REASONS: Final[tuple[str, ...]]
#   "unverified_transport" "method_not_allowed" "method_unknown" "oversize" "garbled" "content_length" "plaintext_transport"
#   "callback_failed" "unverified_send"

def guard_install(
    *,
    on_connected: OnConnected,
    on_disconnected: OnDisconnected,
    gate: Gate,
    on_refused: OnRefused,
    methods: Sequence[str],
    max_message_bytes: int,
) -> None: ...
def guard_remove() -> None: ...
def guard_counters() -> dict[str, int]: ...
def transport_token(hnd: int) -> int: ...
def transport_shutdown(hnd: int) -> None: ...
def request_transport(rdata: int) -> int:
    """`hnd` of a pjsip_rx_data pointer, as `prm.rdata.pjRxData` gives it in a pjsua2 callback."""

# ---- transport.c ---------------------------------------------------------------------------------------------------------------
def listener_create(
    *,
    address: str,
    port: int,
    public_host: str,
    public_port: int,
    certificate_path: str,
    private_key_path: str,
    trust_path: str,
    ciphers: Sequence[int],
    handshake_timeout_ms: int,
) -> int:
    """A TLS 1.3 listener (TLS6 when `address` is IPv6), client certificates demanded and verified; the pjsua transport id."""

def listener_port(transport_id: int) -> int: ...
def listener_swap(transport_id: int, *, certificate_path: str, private_key_path: str, trust_path: str) -> None:
    """New server context and new files for outgoing connections; the socket stays open, live connections keep theirs."""

def listener_restart(transport_id: int) -> None: ...
def hosts_set(hosts: dict[str, Sequence[str]]) -> None:
    """Where pjsip finds a host name: IP literals by lower-case name. A name not in the table does not resolve; no DNS is asked."""

# ---- srtp_info.c ---------------------------------------------------------------------------------------------------------------
def srtp_state(call_id: int, media_index: int) -> tuple[bool, str, str]:
    """(active, tx suite, rx suite) of a pjsua call's SRTP transport; suites by SDES name, "" where none."""

# ---- tap.c ---------------------------------------------------------------------------------------------------------------------
MIXED: Final[int]
SPLIT: Final[int]

def tap_new(*, rate_hz: int, ptime_ms: int, ring_ms: int, layout: int) -> int:
    """Two mono ports on the bridge (channel 0 = leg A, 1 = leg B); the tap's id, never reused."""

def tap_attach(tap_id: int, slot_a: int, slot_b: int) -> None:
    """Feed from these conference slots; -1 = no source (silence). Call again whenever a slot changed."""

def tap_drain_all(buffer: bytearray | memoryview) -> list[tuple[int, int, int, int, int]]:
    """One GIL crossing: [(tap_id, offset, frames, gap_frames, overruns)]; s16le at `offset` in `buffer`.

    `frames` sample frames, mixed (saturating sum) or interleaved as the tap's layout says. `gap_frames` of them, at the start of this
    drain's span, are silence put in because the clock stood still. `overruns`: 20 ms units lost since the last drain because a ring was full;
    they too are given back as silence and counted in gap_frames. Any thread; one drain at a time.
    """

def tap_stats(tap_id: int) -> dict[str, int]: ...
def tap_free(tap_id: int) -> int:
    """Take the ports off the bridge, zero the rings; what was not drained is lost. Returns the sample frames thrown away."""
