"""The one C extension: taps, transport guard, SDP gate hook, TLS listener, SRTP state, pjsip's log, host table.

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
#     Requests: every one that is not a retransmission (ACK included). `initial`: no To tag. A refusal is answered statefully by C.
#     ACK cannot be answered: with a body it goes on without it, so that the dialog is confirmed and a BYE may end it; without one it
#     is dropped. Responses: only those with a body or a Content-Type; a refusal strips the body before pjsip sees it.
#     `message` is the whole message as received.
Gate = Callable[
    [int, int, bool, str, int, bool, str, str, bytes, bytes],
    tuple[int, str, Sequence[tuple[str, str]]] | None,
]
#  on_refused(token, hnd, reason, method, status)   what C refused by itself; reason is one of REFUSAL_REASONS
OnRefused = Callable[[int, int, str, str, int], None]
#  may_send(token, sip_call_id) -> whether a message of this dialog may go out on a connection of this trunk. Asked for every message on
#     a verified connection; an exception is a no.
MaySend = Callable[[int, str], bool]

REFUSAL_REASONS: Final[tuple[str, ...]]
#   "unverified_transport" "method_not_allowed" "method_unknown" "oversize" "garbled" "content_length" "plaintext_transport"
#   "callback_failed" "unverified_send" "foreign_send" "foreign_cancel" "foreign_route"

def guard_install(
    *,
    on_connected: OnConnected,
    on_disconnected: OnDisconnected,
    gate: Gate,
    on_refused: OnRefused,
    may_send: MaySend,
    methods: Sequence[str],
    max_message_bytes: int,
) -> None:
    """After libInit and before the first transport (pjsua wraps the state callback it finds then).

    `methods`: at most 16; another one gets 405 if IANA has registered it and 501 if not, both with Allow.
    `max_message_bytes`: 1024 to 16384, headers and body together; more closes the connection.
    """

def guard_remove() -> None:
    """Not from inside a callback. Before or after libDestroy."""

def guard_counters() -> dict[str, int]:
    """Counts since the process began: each of REFUSAL_REASONS, and what went well or was refused by Python.

    The latter: connections_verified, connections_refused, requests_refused_by_gate, bodies_stripped_by_gate, contacts_pinned,
    keepalives_answered.
    """

def transport_token(hnd: int) -> int:
    """0 for a transport that is not verified or does not exist."""

def transport_shutdown(hnd: int) -> None:
    """Close when its last user is done. NativeError when there is no such transport."""

def request_transport(rdata: int) -> int:
    """`hnd` of a pjsip_rx_data pointer: `int(prm.rdata.pjRxData)` in a pjsua2 callback."""

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
    """A TLS 1.3 listener (TLS6 when `address` is IPv6), client certificates demanded and verified; the pjsua transport id.

    After guard_install. `address` is a literal; `port` 0 takes a free one; `public_port` 0 publishes the bound one. The files are
    read and checked here: a broken one raises NativeError and leaves nothing behind.
    """

def listener_port(transport_id: int) -> int: ...
def listener_swap(
    transport_id: int, *, certificate_path: str, private_key_path: str, trust_path: str
) -> None:
    """New server context and new files for outgoing connections; the socket stays open, live connections keep theirs.

    NativeError when the new files do not make a context; then the old one stays in use.
    """

def listener_restart(transport_id: int) -> None:
    """Close the socket and bind the same port again; connections that come in between are reset, live ones stay."""

def hosts_set(hosts: dict[str, Sequence[str]]) -> None:
    """Where pjsip finds a host name: 1 to 8 IP literals by name. A name not in the table does not resolve; no DNS is asked.

    Names compare without case. The answer comes at once, so makeCall to an unknown name raises pj.Error 70018 (PJ_ERESOLVE).
    """

# ---- srtp_info.c ---------------------------------------------------------------------------------------------------------------
def srtp_state(call_id: int, media_index: int) -> tuple[bool, str, str]:
    """(active, tx suite, rx suite) of a pjsua call's SRTP transport; suites by SDES name, "" where none."""

def legs_received(call_ids: Sequence[int]) -> list[tuple[int, int, int, int, int, int] | None]:
    """What came in on the audio stream of each of these pjsua calls; None where there is no such stream now.

    (packets that authenticated, bursts of lost ones, ms of the last burst) since the stream began, and since its transport was made
    (packets that did not authenticate from where the peer sends, the same from elsewhere, replayed packets). One GIL release for all.
    """

# ---- log.c ---------------------------------------------------------------------------------------------------------------------
def log_keep(level: int) -> None:
    """Keep what pjsip logs up to this level (0: nothing, 1: errors, 2: warnings), for `log_take`. After libInit, which sets its own.

    ValueError for a level that is not compiled in.
    """

def log_take() -> tuple[list[tuple[int, str]], int]:
    """((level, "sender text"), ...) since the last time, oldest first, and how many found no room: 32 are kept, 200 bytes of each."""

# ---- tap.c ---------------------------------------------------------------------------------------------------------------------
MIXED: Final[int]
SPLIT: Final[int]

def tap_new(*, rate_hz: int, ptime_ms: int, ring_ms: int, layout: int) -> int:
    """Two mono ports on the bridge (channel 0 = leg A, 1 = leg B); the tap's id, never reused.

    The time line starts with this call. `ptime_ms` must be the bridge's own; `ring_ms` is 5000 to 60000, rounded up.
    """

def tap_attach(tap_id: int, slot_a: int, slot_b: int) -> None:
    """Feed from these conference slots; -1 = no source (silence). Call again whenever a slot changed, also to the same number."""

def tap_drain_all(buffer: bytearray | memoryview) -> list[tuple[int, int, int, int, int]]:
    """One GIL crossing: [(tap_id, offset, frames, gap_frames, overruns)]; s16le at `offset` in `buffer`.

    `frames` sample frames, mixed (saturating sum) or interleaved as the tap's layout says. `gap_frames` of them, at the start of this
    entry's span, are silence put in because the clock stood still or a ring was full. A gap in the middle of what waits begins a new
    entry: a tap may have several, in order and adjoining in the buffer, and none when nothing waits. `overruns`: 20 ms units lost since
    the last report because a ring was full; they too are given back as silence, as a gap where both channels lost the unit and else on
    the channel that lost it. What does not fit the buffer comes with the next drain; ValueError when not one unit of every tap fits.

    All entries of a tap together last as long as the wall clock since tap_new, within 100 ms; lateness that the media clock can still
    make good (up to 500 ms) is waited for. Any thread; one drain at a time.
    """

def tap_stats(tap_id: int) -> dict[str, int]:
    """What the tap did so far.

    Sample frames: `frames` (given out), `gap_frames`, `late_dropped_frames`, and `silence_frames` (no source; both channels added).
    Units: `overruns` (both channels added). `waiting_ms`; `last_timestamp`; `memory_locked`, 0 where RLIMIT_MEMLOCK forbids mlock.
    """

def tap_free(tap_id: int) -> int:
    """Take the ports off the bridge, zero the rings; what was not drained is lost. Returns the sample frames thrown away.

    The memory goes when the bridge has let go, a tick later. KeyError from any tap function for an id that was freed.
    """
