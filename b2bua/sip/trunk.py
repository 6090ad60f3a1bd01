"""pjsua accounts.

One per trunk and URI scheme, so that our Contact always follows the request URI of the leg it is on.

A forced Contact is used unchanged by pjsua, and a sip: Contact on a sips: dialog makes the peer end it (RFC
3261 section 12.1.1, RFC 5630).
"""

from __future__ import annotations

from collections.abc import Mapping

import pjsua2 as pj

from b2bua.settings import Listener, MediaSettings, SRTPSuite, TrunkSettings, URIScheme, bracketed
from b2bua.sip.callbacks import guarded
from b2bua.sip.handler import Handler
from b2bua.sip.leg import Leg


class TrunkAccount(pj.Account):
    """One trunk's account for one scheme. SIP thread only."""

    def __init__(self, *, trunk: TrunkSettings, scheme: URIScheme, handler: Handler) -> None:
        super().__init__()
        self.trunk = trunk
        self.scheme = scheme
        self._handler = handler

    def callback_failed(self, callback: str) -> None:
        self._handler.callback_failed(callback, None, None)

    @guarded
    def onIncomingCall(self, prm: pj.OnIncomingCallParam) -> None:  # noqa: N802 - pjsua2's name
        leg = Leg.incoming(account=self, pjsua_call_id=prm.callId, handler=self._handler)
        self._handler.take_invite(leg)

    @guarded
    def onIncomingSubscribe(self, prm: pj.OnIncomingSubscribeParam) -> None:  # noqa: N802
        prm.code = 405


def contact_uri(listener: Listener, scheme: URIScheme) -> str:
    """Our Contact on legs of this scheme."""
    host = bracketed(listener.public_host)
    suffix = ";transport=tls" if scheme is URIScheme.SIP else ""
    return f"<{scheme.value}:edge@{host}:{listener.public_port}{suffix}>"


def account_config(
    *, trunk: TrunkSettings, scheme: URIScheme, listener: Listener, media: MediaSettings, transport_id: int
) -> pj.AccountConfig:
    """SRTP mandatory over a TLS hop, SDES only, exactly the trunk's suites in its order.

    Addresses that need no look-up.
    """
    config = pj.AccountConfig()
    host = bracketed(listener.public_host)
    config.idUri = f"{scheme.value}:edge@{host}"
    config.regConfig.registerOnAdd = False
    config.sipConfig.contactForced = contact_uri(listener, scheme)
    config.sipConfig.transportId = transport_id
    config.natConfig.contactUseSrcPort = 0
    config.natConfig.contactRewriteUse = 0
    config.natConfig.viaRewriteUse = 0
    config.natConfig.sdpNatRewriteUse = 0
    config.natConfig.sipOutboundUse = 0
    config.callConfig.timerUse = pj.PJSUA_SIP_TIMER_ALWAYS  # finds peers that vanished on hold (RFC 4028)
    config.callConfig.prackUse = pj.PJSUA_100REL_NOT_USED
    media_config = config.mediaConfig
    media_config.srtpUse = pj.PJMEDIA_SRTP_MANDATORY
    media_config.srtpSecureSignaling = 1
    media_config.srtpOpt.keyings.append(pj.PJMEDIA_SRTP_KEYING_SDES)
    for suite in trunk.srtp_suites:
        media_config.srtpOpt.cryptos.append(_crypto(suite))
    media_config.lockCodecEnabled = False
    media_config.streamKaEnabled = False
    transport = media_config.transportConfig
    transport.port = media.rtp_port_first
    transport.portRange = media.rtp_port_last - media.rtp_port_first
    transport.boundAddress = media.address
    transport.publicAddress = media.public_address
    media_config.ipv6Use = pj.PJSUA_IPV6_ENABLED if ":" in media.address else pj.PJSUA_IPV6_DISABLED
    config.videoConfig.autoTransmitOutgoing = False
    config.videoConfig.autoShowIncoming = False
    return config


def _crypto(suite: SRTPSuite) -> pj.SrtpCrypto:
    crypto = pj.SrtpCrypto()
    crypto.name = suite.value
    crypto.flags = 0
    return crypto


def create_accounts(
    *,
    trunks: Mapping[str, TrunkSettings],
    listener: Listener,
    media: MediaSettings,
    transport_id: int,
    handler: Handler,
) -> dict[tuple[str, URIScheme], TrunkAccount]:
    """Both schemes for each trunk, by (trunk name, scheme)."""
    accounts = {}
    for trunk in trunks.values():
        for scheme in URIScheme:
            account = TrunkAccount(trunk=trunk, scheme=scheme, handler=handler)
            account.create(
                account_config(
                    trunk=trunk, scheme=scheme, listener=listener, media=media, transport_id=transport_id
                )
            )
            accounts[trunk.name, scheme] = account
    return accounts
