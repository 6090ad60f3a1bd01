"""The pjsua endpoint: created, guarded, given its one TLS listener and its accounts; destroyed in the right order.

threadCnt=0 and mainThreadOnly: every SIP callback comes on the SIP thread, out of libHandleEvents. Media runs
on pjmedia's own threads.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pjsua2 as pj
import structlog

from b2bua.errors import EngineError
from b2bua.native import _native
from b2bua.settings import Codec, Settings, URIScheme
from b2bua.sip.callbacks import guarded
from b2bua.sip.gate import MessageGate
from b2bua.sip.handler import Handler
from b2bua.sip.transport import PeerGate
from b2bua.sip.trunk import TrunkAccount, create_accounts
from tls.policy import PeerVerifier
from tls.settings import TLS13_ONLY

_log = structlog.get_logger(__name__)

METHODS = ("INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "PRACK", "UPDATE")
MAX_MESSAGE_BYTES = 16_000
"""Below PJSIP_MAX_PKT_LEN (16384), so that our own limit speaks first."""
HANDSHAKE_TIMEOUT_MS = 5000
LOG_LEVEL = 2
"""Errors and warnings; they go through `library_log`, never to pjsip's own writers."""
CLOCK_RATE_HZ = 8000
PTIME_MS = 20
RESAMPLE_QUALITY = 4
"""speexdsp quality 7 at 5.7 us per 20 ms frame; the library's default picks quality 10 at 27 us."""
PREFETCH_MS = 60
"""A stream starts, or starts again after running dry, with so much audio in hand: three packets of jitter.

Without a prefetch every late packet shifts the stream by 20 ms and the discard algorithms shift it back later; both are
audible and both blur a recording. With it time is only shifted when the buffer runs dry or full.
"""
JITTER_BUFFER_MS = 240
"""Bound of the delay that a sender's faster clock or a burst can build up; above it the oldest audio goes."""
CALL_HEADROOM = 24
"""Call slots above admission: pjsua answers 486 when it has none, and we want our own 503 first.

With the greatest limits.max_calls, 1000, it makes PJSUA_MAX_CALLS, 2048, for two legs a call.
"""


class Endpoint(pj.Endpoint):
    """pjsua2's Endpoint with our account selection. SIP thread only."""

    def __init__(self, handler: Handler) -> None:
        super().__init__()
        self._handler = handler
        self.accounts: dict[tuple[str, URIScheme], TrunkAccount] = {}

    def callback_failed(self, callback: str) -> None:
        self._handler.callback_failed(callback, None, None)

    @guarded
    def onSelectAccount(self, prm: pj.OnSelectAccountParam) -> None:  # noqa: N802 - pjsua2's name
        chosen = self._handler.admitted_scheme()
        if chosen is None:
            return
        trunk, scheme = chosen
        prm.accountIndex = self.accounts[trunk.name, URIScheme(scheme)].getId()


@dataclass(frozen=True, slots=True, kw_only=True)
class SIPStack:
    """The running SIP side."""

    endpoint: Endpoint
    transport_id: int
    peers: PeerGate

    @property
    def accounts(self) -> Mapping[tuple[str, URIScheme], TrunkAccount]:
        return self.endpoint.accounts

    def poll(self, milliseconds: int) -> None:
        """Handle SIP events; returns at once when some were handled."""
        self.endpoint.libHandleEvents(milliseconds)

    def swap_certificate(self, settings: Settings) -> None:
        """New certificate for accepted and made connections from now on; the socket stays open.

        Raises:
            EngineError: the library refused the files; the old certificate stays in force.
        """
        try:
            _native.listener_swap(
                self.transport_id,
                certificate_path=str(settings.tls.certificate_path),
                private_key_path=str(settings.tls.private_key_path),
                trust_path=str(settings.tls.trust_path),
            )
        except _native.NativeError as error:
            raise EngineError(f"the new certificate was not taken: {error.args[1]}") from error


def start(*, settings: Settings, verifier: PeerVerifier, handler: Handler) -> SIPStack:
    """Create the endpoint on the calling thread, which becomes the SIP thread.

    Raises:
        EngineError: a port is taken, a file is unreadable, or pjsua fails to come up.
    """
    endpoint = Endpoint(handler)
    try:
        return _start(endpoint, settings, verifier, handler)
    except pj.Error as error:
        endpoint.libDestroy()
        raise EngineError(f"pjsua did not start: {error.title}, status {error.status}") from error
    except _native.NativeError as error:
        endpoint.libDestroy()
        where = settings.listener.where
        raise EngineError(f"the SIP listener did not start at {where}: {error.args[1]}") from error


def _start(endpoint: Endpoint, settings: Settings, verifier: PeerVerifier, handler: Handler) -> SIPStack:
    endpoint.libCreate()
    endpoint.libInit(_endpoint_config(settings))
    _native.log_keep(LOG_LEVEL)
    peers = PeerGate(trunks=settings.trunks, verifier=verifier, handler=handler)
    gate = MessageGate(trunk_of=peers.trunk, handler=handler, host=settings.listener.public_host)
    _native.guard_install(
        on_connected=peers.on_connected,
        on_disconnected=peers.on_disconnected,
        gate=gate.on_message,
        on_refused=gate.on_refused,
        may_send=gate.may_send,
        methods=METHODS,
        max_message_bytes=MAX_MESSAGE_BYTES,
    )
    listener = settings.listener
    transport_id = _native.listener_create(
        address=listener.address,
        port=listener.port,
        public_host=listener.public_host,
        public_port=listener.public_port,
        certificate_path=str(settings.tls.certificate_path),
        private_key_path=str(settings.tls.private_key_path),
        trust_path=str(settings.tls.trust_path),
        ciphers=[suite.iana_id for suite in TLS13_ONLY.cipher_suites],
        handshake_timeout_ms=HANDSHAKE_TIMEOUT_MS,
    )
    endpoint.libStart()
    endpoint.audDevManager().setNullDev()
    _choose_codecs(endpoint, settings.media.codecs)
    endpoint.accounts = create_accounts(
        trunks=settings.trunks,
        listener=listener,
        media=settings.media,
        transport_id=transport_id,
        handler=handler,
    )
    return SIPStack(endpoint=endpoint, transport_id=transport_id, peers=peers)


def stop(stack: SIPStack) -> None:
    """Calls are gone by now: take the accounts, the guard and the library down."""
    for account in stack.accounts.values():
        account.shutdown()
    stack.endpoint.accounts.clear()
    gc.collect()
    _native.guard_remove()
    stack.endpoint.libDestroy()


def _endpoint_config(settings: Settings) -> pj.EpConfig:
    config = pj.EpConfig()
    config.uaConfig.threadCnt = 0
    config.uaConfig.mainThreadOnly = True
    config.uaConfig.maxCalls = 2 * (settings.limits.max_calls + CALL_HEADROOM)
    config.uaConfig.userAgent = ""
    config.uaConfig.natTypeInSdp = 0
    config.logConfig.level = 0
    config.logConfig.consoleLevel = 0
    config.logConfig.msgLogging = 0
    media = config.medConfig
    media.clockRate = CLOCK_RATE_HZ
    media.sndClockRate = CLOCK_RATE_HZ
    media.audioFramePtime = PTIME_MS
    media.ptime = PTIME_MS
    media.quality = RESAMPLE_QUALITY
    media.noVad = True
    media.jbInit = media.jbMinPre = media.jbMaxPre = PREFETCH_MS
    media.jbMax = JITTER_BUFFER_MS
    media.jbDiscardAlgo = pj.PJMEDIA_JB_DISCARD_NONE
    media.ecTailLen = 0
    media.sndAutoCloseTime = -1
    media.hasIoqueue = True
    media.threadCnt = 1
    media.maxMediaPorts = 4 * (settings.limits.max_calls + CALL_HEADROOM) + 8
    return config


def _choose_codecs(endpoint: Endpoint, codecs: Sequence[Codec]) -> None:
    for info in endpoint.codecEnum2():
        endpoint.codecSetPriority(info.codecId, 0)
    for place, codec in enumerate(codecs):
        endpoint.codecSetPriority(codec.value, 255 - place)
