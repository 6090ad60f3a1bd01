"""Reading what really goes over loopback, and searching it for SIP and for speech nobody should be able to read.

    with LoopbackCapture({5061, 4000}) as capture:
        ...
    found = search(capture.datagrams, spoken=pcm)
    assert not found.sip and not found.speech

Needs CAP_NET_RAW. A search that finds nothing proves something only beside one that finds: plant a plain call too.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

import numpy as np

from b2bua.demo import g711
from b2bua.demo.g711 import PCM16

_ETH_P_IP: Final = 0x0800
_SNAP_BYTES: Final = 65_535
_LINGER_S: Final = 1.0
_BUFFER_BYTES: Final = 64 << 20
_FRAME_SAMPLES: Final = 160
_SILENT_PEAK: Final = 64
_SIP_WORDS: Final = (b"SIP/2.0", b"Call-ID:", b"CSeq:", b"a=crypto:", b"m=audio")
_SO_RCVBUFFORCE, _SOL_PACKET, _PACKET_STATISTICS = 33, 263, 6
TCP, UDP = 6, 17


@dataclass(frozen=True, slots=True, kw_only=True)
class Datagram:
    """The payload of one TCP segment or UDP datagram."""

    protocol: int
    source_port: int
    destination_port: int
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a search found: packets that hold SIP or SDP text, and packets that hold 20 ms of the speech, by form."""

    sip: tuple[Datagram, ...]
    speech: dict[str, tuple[Datagram, ...]]

    @property
    def clean(self) -> bool:
        return not self.sip and not any(self.speech.values())


class LoopbackCapture:
    """A thread that keeps the payloads of the loopback packets whose source or destination port is watched.

    IPv4 only; each packet is kept once. `dropped` is the kernel's count of what it could not keep: a test that proves
    absence asserts that it is 0. `ports` None keeps everything.
    """

    def __init__(self, ports: Collection[int] | None = None) -> None:
        self.datagrams: list[Datagram] = []
        self.dropped = 0
        self._ports = None if ports is None else frozenset(ports)
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_IP))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        self._socket.bind(("lo", _ETH_P_IP))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="loopback-capture", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        statistics = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        self.dropped = struct.unpack("II", statistics)[1]
        self._socket.close()

    def _run(self) -> None:
        until: float | None = None
        while until is None or time.monotonic() < until:
            ready, _, _ = select.select([self._socket], [], [], 0.05)
            if ready:
                self._keep(self._socket.recv(_SNAP_BYTES))
            elif self._stop.is_set():
                return
            if until is None and self._stop.is_set():
                until = (
                    time.monotonic() + _LINGER_S
                )  # what was sent before is read; others' traffic never ends

    def _keep(self, packet: bytes) -> None:
        datagram = _taken_apart(packet)
        if datagram is None or not datagram.payload:
            return
        ports = {datagram.source_port, datagram.destination_port}
        if self._ports is None or ports & self._ports:
            self.datagrams.append(datagram)


def search(datagrams: Iterable[Datagram], *, spoken: Sequence[PCM16]) -> Findings:
    """Look for SIP text, and for any audible 20 ms of the speech as PCMU, PCMA or PCM16 of either byte order.

    A packet counts when it holds 20 ms that begin at any sample of the speech, at any place of the packet.
    """
    kept = list(datagrams)
    ends = np.cumsum([len(datagram.payload) for datagram in kept])
    stream = b"".join(datagram.payload for datagram in kept)
    speech: dict[str, tuple[Datagram, ...]] = {}
    for form in FORMS:
        needles = SpeechNeedles(spoken, form)
        places = np.array(list(needles.places(stream)), dtype=np.int64)
        first = np.searchsorted(ends, places, side="right")
        last = np.searchsorted(ends, places + needles.frame_bytes - 1, side="right")
        speech[form] = tuple(kept[number] for number in sorted(set(first[first == last].tolist())))
    return Findings(
        sip=tuple(datagram for datagram in kept if any(word in datagram.payload for word in _SIP_WORDS)),
        speech=speech,
    )


FORMS: Final = {"PCMU": 1, "PCMA": 1, "s16le": 2, "s16be": 2}
"""The readable forms of speech and the octets of a sample in each."""
_KEY_OCTETS: Final = 8


def _coded(pcm: PCM16, form: str) -> bytes:
    if form == "PCMU":
        return g711.encode(pcm)
    if form == "PCMA":
        return g711.encode(pcm, "PCMA/8000")
    return pcm.astype("<i2" if form == "s16le" else ">i2").tobytes()


class SpeechNeedles:
    """Every audible 20 ms of some speech in one form, at every sample, looked up by its first eight octets."""

    def __init__(self, spoken: Sequence[PCM16], form: str) -> None:
        width = FORMS[form]
        self.frame_bytes = _FRAME_SAMPLES * width
        self._speech = b"".join(_coded(pcm, form) for pcm in spoken)
        octets = np.frombuffer(self._speech, dtype=np.uint8)
        last = max(len(octets) - self.frame_bytes + 1, 0)
        starts = np.arange(0, last, width)
        windows = np.lib.stride_tricks.sliding_window_view(octets, _KEY_OCTETS)[starts]
        lively = (np.diff(np.sort(windows, axis=1), axis=1) != 0).sum(axis=1) >= _KEY_OCTETS // 2
        keys = np.ascontiguousarray(windows[lively]).view(np.uint64).reshape(-1)
        order = np.argsort(keys, kind="stable")
        self._keys, self._starts = keys[order], starts[lively][order]

    def places(self, data: bytes) -> Iterator[int]:
        """The offsets in the data where 20 ms of the speech begin."""
        if len(data) < self.frame_bytes:
            return
        octets = np.frombuffer(data, dtype=np.uint8)
        windows = np.lib.stride_tricks.sliding_window_view(octets, _KEY_OCTETS)
        keys = np.ascontiguousarray(windows).view(np.uint64).reshape(-1)
        lows = np.searchsorted(self._keys, keys)
        known = self._keys[np.minimum(lows, len(self._keys) - 1)] == keys if len(self._keys) else lows < 0
        for place in np.flatnonzero(known).tolist():
            low, high = lows[place], np.searchsorted(self._keys, keys[place], side="right")
            frame = data[place : place + self.frame_bytes]
            if any(
                self._speech[start : start + self.frame_bytes] == frame
                for start in self._starts[low:high].tolist()
            ):
                yield place


def audible_frames(pcm: PCM16) -> int:
    """How many whole 20 ms frames of a signal are loud enough to be told from silence."""
    frames = pcm[: len(pcm) // _FRAME_SAMPLES * _FRAME_SAMPLES].reshape(-1, _FRAME_SAMPLES).astype(np.int32)
    return int((np.abs(frames).max(axis=1) > _SILENT_PEAK).sum())


def _taken_apart(packet: bytes) -> Datagram | None:
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return None
    start = (packet[0] & 0x0F) * 4
    end = int.from_bytes(packet[2:4], "big") or len(packet)  # 0 with segmentation offload
    segment = packet[start:end]
    protocol = packet[9]
    if protocol == UDP and len(segment) >= 8:
        head = 8
    elif protocol == TCP and len(segment) >= 20:
        head = (segment[12] >> 4) * 4
    else:
        return None
    source, destination = struct.unpack_from("!HH", segment)
    return Datagram(
        protocol=protocol, source_port=source, destination_port=destination, payload=segment[head:]
    )
