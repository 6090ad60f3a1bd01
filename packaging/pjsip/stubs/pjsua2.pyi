"""The part of pjsua2 that this product uses, typed by hand.

Only b2bua.sip imports the module. A conformance test compares every name here with the built module.
Integers stand for C enums and pj_status_t; times are in the unit that a field's name or comment gives.
"""

from collections.abc import Iterator
from typing import Final, Generic, TypeVar

T = TypeVar("T")

class _Vector(Generic[T]):
    """A C++ vector. What an index returns may be a reference into it: copy out before it changes."""

    def append(self, x: T) -> None: ...
    def clear(self) -> None: ...
    def size(self) -> int: ...
    def __getitem__(self, i: int) -> T: ...
    def __setitem__(self, i: int, x: T) -> None: ...
    def __iter__(self) -> Iterator[T]: ...
    def __len__(self) -> int: ...
    def __bool__(self) -> bool: ...

class Error(Exception):
    status: int
    title: str
    reason: str
    srcFile: str
    srcLine: int
    def info(self, multi_line: bool = False) -> str: ...

# ---- configuration -----------------------------------------------------------------------------------

class UaConfig:
    maxCalls: int
    threadCnt: int
    mainThreadOnly: bool
    nameserver: _Vector[str]
    userAgent: str
    natTypeInSdp: int

class LogConfig:
    msgLogging: int
    level: int
    consoleLevel: int
    decor: int
    filename: str

class MediaConfig:
    clockRate: int
    sndClockRate: int
    channelCount: int
    audioFramePtime: int
    maxMediaPorts: int
    hasIoqueue: bool
    threadCnt: int
    quality: int
    ptime: int
    noVad: bool
    ecTailLen: int
    jbInit: int
    jbMinPre: int
    jbMaxPre: int
    jbMax: int
    jbDiscardAlgo: int
    sndAutoCloseTime: int
    confThreads: int

class EpConfig:
    uaConfig: UaConfig
    logConfig: LogConfig
    medConfig: MediaConfig

class TransportConfig:
    port: int
    portRange: int
    randomizePort: bool
    publicAddress: str
    boundAddress: str

class SrtpCrypto:
    key: str
    name: str
    flags: int

class SrtpOpt:
    cryptos: _Vector[SrtpCrypto]
    keyings: _Vector[int]

class AccountRegConfig:
    registrarUri: str
    registerOnAdd: bool

class AccountSipConfig:
    contactForced: str
    transportId: int

class AccountCallConfig:
    holdType: int
    prackUse: int
    timerUse: int
    timerMinSESec: int
    timerSessExpiresSec: int

class AccountNatConfig:
    sipOutboundUse: int
    contactRewriteUse: int
    viaRewriteUse: int
    sdpNatRewriteUse: int
    contactUseSrcPort: int
    iceEnabled: bool

class AccountMediaConfig:
    transportConfig: TransportConfig
    lockCodecEnabled: bool
    streamKaEnabled: bool
    srtpUse: int
    srtpSecureSignaling: int
    srtpOpt: SrtpOpt
    ipv6Use: int
    rtcpMuxEnabled: bool
    rtcpXrEnabled: bool

class AccountVideoConfig:
    autoShowIncoming: bool
    autoTransmitOutgoing: bool

class AccountConfig:
    priority: int
    idUri: str
    regConfig: AccountRegConfig
    sipConfig: AccountSipConfig
    callConfig: AccountCallConfig
    natConfig: AccountNatConfig
    mediaConfig: AccountMediaConfig
    videoConfig: AccountVideoConfig

# ---- messages and events -----------------------------------------------------------------------------

class SipHeader:
    hName: str
    hValue: str

class SipTxOption:
    targetUri: str
    localUri: str
    contactUri: str
    headers: _Vector[SipHeader]
    contentType: str
    msgBody: str

class SipRxData:
    info: str
    wholeMsg: str
    srcAddress: str
    pjRxData: int

class SdpSession:
    wholeSdp: str

class SipTransaction:
    role: int
    method: str
    statusCode: int
    statusText: str
    state: int

class TsxStateEventSrc:
    rdata: SipRxData

class TsxStateEvent:
    src: TsxStateEventSrc
    tsx: SipTransaction
    prevState: int
    type: int

class SipEventBody:
    tsxState: TsxStateEvent

class SipEvent:
    type: int
    body: SipEventBody

# ---- parameters of callbacks: valid only while the callback runs --------------------------------------

class OnSelectAccountParam:
    rdata: SipRxData
    accountIndex: int

class OnIncomingCallParam:
    callId: int
    rdata: SipRxData

class OnIncomingSubscribeParam:
    rdata: SipRxData
    fromUri: str
    code: int
    reason: str

class OnCallStateParam:
    e: SipEvent

class OnCallTsxStateParam:
    e: SipEvent

class OnCallMediaStateParam: ...

class OnCallSdpCreatedParam:
    sdp: SdpSession
    remSdp: SdpSession

class OnCallRxReinviteParam:
    offer: SdpSession
    rdata: SipRxData
    isAsync: bool
    statusCode: int
    opt: CallSetting

class OnCallRxOfferParam:
    offer: SdpSession
    statusCode: int
    opt: CallSetting

class OnCallTxOfferParam:
    opt: CallSetting

class OnCallTransferRequestParam:
    dstUri: str
    statusCode: int
    opt: CallSetting

class OnCallReplaceRequestParam:
    rdata: SipRxData
    statusCode: int
    reason: str
    opt: CallSetting

class OnDtmfDigitParam:
    method: int
    digit: str
    duration: int

class OnDtmfEventParam:
    method: int
    timestamp: int
    digit: str
    duration: int
    flags: int

# ---- calls -------------------------------------------------------------------------------------------

class CallSetting:
    flag: int
    reqKeyframeMethod: int
    audioCount: int
    videoCount: int
    textCount: int
    mediaDir: _Vector[int]

class CallOpParam:
    opt: CallSetting
    statusCode: int
    reason: str
    options: int
    txOption: SipTxOption
    sdp: SdpSession
    def __init__(self, useDefaultCallSetting: bool = False) -> None: ...

class CallSendDtmfParam:
    method: int
    duration: int
    digits: str

class CallMediaInfo:
    index: int
    type: int
    dir: int
    status: int
    audioConfSlot: int

class CallInfo:
    id: int
    role: int
    accId: int
    localUri: str
    localContact: str
    remoteUri: str
    remoteContact: str
    callIdString: str
    state: int
    stateText: str
    lastStatusCode: int
    lastReason: str
    media: _Vector[CallMediaInfo]
    remOfferer: bool

class MathStat:
    n: int
    max: int
    min: int
    last: int
    mean: int

class RtcpStreamStat:
    lossPeriodUsec: MathStat
    pkt: int
    bytes: int
    discard: int
    loss: int

class RtcpStat:
    txStat: RtcpStreamStat
    rxStat: RtcpStreamStat

class StreamStat:
    rtcp: RtcpStat

class Media: ...

class AudioMedia(Media):
    def getPortId(self) -> int: ...
    def startTransmit(self, sink: AudioMedia) -> None: ...
    def stopTransmit(self, sink: AudioMedia) -> None: ...

class Call:
    def __init__(self, acc: Account, call_id: int = ...) -> None: ...
    def getInfo(self) -> CallInfo: ...
    def isActive(self) -> bool: ...
    def getId(self) -> int: ...
    def hasMedia(self) -> bool: ...
    def getAudioMedia(self, med_idx: int) -> AudioMedia: ...
    def getStreamStat(self, med_idx: int) -> StreamStat: ...
    def makeCall(self, dst_uri: str, prm: CallOpParam) -> None: ...
    def answer(self, prm: CallOpParam) -> None: ...
    def hangup(self, prm: CallOpParam) -> None: ...
    def setHold(self, prm: CallOpParam) -> None: ...
    def reinvite(self, prm: CallOpParam) -> None: ...
    def update(self, prm: CallOpParam) -> None: ...
    def sendDtmf(self, param: CallSendDtmfParam) -> None: ...
    def dump(self, with_media: bool, indent: str) -> str: ...
    def onCallState(self, prm: OnCallStateParam) -> None: ...
    def onCallTsxState(self, prm: OnCallTsxStateParam) -> None: ...
    def onCallMediaState(self, prm: OnCallMediaStateParam) -> None: ...
    def onCallSdpCreated(self, prm: OnCallSdpCreatedParam) -> None: ...
    def onCallRxReinvite(self, prm: OnCallRxReinviteParam) -> None: ...
    def onCallRxOffer(self, prm: OnCallRxOfferParam) -> None: ...
    def onCallTxOffer(self, prm: OnCallTxOfferParam) -> None: ...
    def onCallTransferRequest(self, prm: OnCallTransferRequestParam) -> None: ...
    def onCallReplaceRequest(self, prm: OnCallReplaceRequestParam) -> None: ...
    def onDtmfDigit(self, prm: OnDtmfDigitParam) -> None: ...
    def onDtmfEvent(self, prm: OnDtmfEventParam) -> None: ...

class Account:
    def __init__(self) -> None: ...
    def create(self, cfg: AccountConfig, make_default: bool = False) -> None: ...
    def modify(self, cfg: AccountConfig) -> None: ...
    def shutdown(self) -> None: ...
    def isValid(self) -> bool: ...
    def getId(self) -> int: ...
    def onIncomingCall(self, prm: OnIncomingCallParam) -> None: ...
    def onIncomingSubscribe(self, prm: OnIncomingSubscribeParam) -> None: ...

# ---- endpoint ----------------------------------------------------------------------------------------

class CodecInfo:
    codecId: str
    priority: int

class Version:
    major: int
    minor: int
    full: str

class AudDevManager:
    def setNullDev(self) -> None: ...

class Endpoint:
    def __init__(self) -> None: ...
    def libVersion(self) -> Version: ...
    def libCreate(self) -> None: ...
    def libInit(self, prmEpConfig: EpConfig) -> None: ...
    def libStart(self) -> None: ...
    def libHandleEvents(self, msec_timeout: int) -> int: ...
    def libRegisterThread(self, name: str) -> None: ...
    def libStopWorkerThreads(self) -> None: ...
    def libDestroy(self, prmFlags: int = 0) -> None: ...
    def libGetState(self) -> int: ...
    def hangupAllCalls(self) -> None: ...
    def transportClose(self, id: int) -> None: ...
    def audDevManager(self) -> AudDevManager: ...
    def codecEnum2(self) -> _Vector[CodecInfo]: ...
    def codecSetPriority(self, codec_id: str, priority: int) -> None: ...
    def srtpCryptoEnum(self) -> _Vector[str]: ...
    def onSelectAccount(self, prm: OnSelectAccountParam) -> None: ...

# ---- constants ---------------------------------------------------------------------------------------

PJSUA_INVALID_ID: Final[int]

PJSIP_INV_STATE_NULL: Final[int]
PJSIP_INV_STATE_CALLING: Final[int]
PJSIP_INV_STATE_INCOMING: Final[int]
PJSIP_INV_STATE_EARLY: Final[int]
PJSIP_INV_STATE_CONNECTING: Final[int]
PJSIP_INV_STATE_CONFIRMED: Final[int]
PJSIP_INV_STATE_DISCONNECTED: Final[int]

PJSIP_ROLE_UAC: Final[int]
PJSIP_ROLE_UAS: Final[int]
PJSIP_EVENT_TSX_STATE: Final[int]
PJSIP_EVENT_RX_MSG: Final[int]

PJSUA_CALL_MEDIA_NONE: Final[int]
PJSUA_CALL_MEDIA_ACTIVE: Final[int]
PJSUA_CALL_MEDIA_LOCAL_HOLD: Final[int]
PJSUA_CALL_MEDIA_REMOTE_HOLD: Final[int]
PJSUA_CALL_MEDIA_ERROR: Final[int]

PJMEDIA_JB_DISCARD_NONE: Final[int]
PJMEDIA_JB_DISCARD_STATIC: Final[int]
PJMEDIA_JB_DISCARD_PROGRESSIVE: Final[int]

PJMEDIA_DIR_NONE: Final[int]
PJMEDIA_DIR_ENCODING: Final[int]
PJMEDIA_DIR_DECODING: Final[int]
PJMEDIA_DIR_ENCODING_DECODING: Final[int]

PJMEDIA_SRTP_DISABLED: Final[int]
PJMEDIA_SRTP_OPTIONAL: Final[int]
PJMEDIA_SRTP_MANDATORY: Final[int]
PJMEDIA_SRTP_KEYING_SDES: Final[int]
PJMEDIA_SRTP_KEYING_DTLS_SRTP: Final[int]

PJSUA_IPV6_DISABLED: Final[int]
PJSUA_IPV6_ENABLED: Final[int]
PJSUA_CALL_UNHOLD: Final[int]
PJSUA_CALL_UPDATE_CONTACT: Final[int]
PJSUA_CALL_SET_MEDIA_DIR: Final[int]
PJSUA_DTMF_METHOD_RFC2833: Final[int]
PJSUA_DTMF_METHOD_SIP_INFO: Final[int]
PJSUA_SIP_TIMER_INACTIVE: Final[int]
PJSUA_SIP_TIMER_OPTIONAL: Final[int]
PJSUA_SIP_TIMER_ALWAYS: Final[int]
PJSUA_100REL_NOT_USED: Final[int]
PJSUA_100REL_MANDATORY: Final[int]
PJSUA_100REL_OPTIONAL: Final[int]
