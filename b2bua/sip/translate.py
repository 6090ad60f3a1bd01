"""pjsua2's enums and infos in our words."""

from __future__ import annotations

import pjsua2 as pj

from b2bua.call.sdp_policy import Direction

_DIRECTION_OF_PEER: dict[str, Direction] = {direction.value: direction for direction in Direction}
_MEDIA_DIR = {
    Direction.SENDRECV: pj.PJMEDIA_DIR_ENCODING_DECODING,
    Direction.SENDONLY: pj.PJMEDIA_DIR_ENCODING,
    Direction.RECVONLY: pj.PJMEDIA_DIR_DECODING,
    Direction.INACTIVE: pj.PJMEDIA_DIR_NONE,
}


def media_direction(direction: Direction) -> int:
    """pjmedia_dir of an SDP direction that we write."""
    return int(_MEDIA_DIR[direction])


def offered_direction(sdp_text: str) -> Direction:
    """The direction attribute of a body that the SDP policy has passed: media level wins over session level."""
    direction = Direction.SENDRECV
    for line in sdp_text.splitlines():
        if line.startswith("a=") and line[2:].strip().lower() in _DIRECTION_OF_PEER:
            direction = _DIRECTION_OF_PEER[line[2:].strip().lower()]
    return direction


def carries_body(event: pj.SipEvent) -> bool:
    """Whether the message behind a transaction's event has a body."""
    if event.type != pj.PJSIP_EVENT_TSX_STATE or event.body.tsxState.type != pj.PJSIP_EVENT_RX_MSG:
        return False
    _, _, body = event.body.tsxState.src.rdata.wholeMsg.partition("\r\n\r\n")
    return bool(body.strip())


def answer_params(status: int, *, sdp: str = "", headers: tuple[tuple[str, str], ...] = ()) -> pj.CallOpParam:
    """CallOpParam with one audio stream and nothing else; text media is on by default in pjsua2 2.17."""
    prm = pj.CallOpParam(True)
    prm.statusCode = status
    prm.opt.audioCount = 1
    prm.opt.videoCount = 0
    prm.opt.textCount = 0
    if sdp:
        prm.sdp.wholeSdp = sdp
    for name, value in headers:
        header = pj.SipHeader()
        header.hName, header.hValue = name, value
        prm.txOption.headers.append(header)
    return prm
