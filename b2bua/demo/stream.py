"""One media stream: its socket, SRTP contexts, what it says, and what it heard.

Its state belongs to the pump's thread. The public coroutines may be awaited from any event loop; they hand the pump a
function, or a condition to watch, and wait for its answer.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pylibsrtp import Error as SRTPError
from pylibsrtp import Session

from b2bua.demo import g711
from b2bua.demo.errors import DemoError, WaitTimeoutError
from b2bua.demo.heard import Hearing, StreamStats, looks_plain
from b2bua.demo.pump import MediaPump
from b2bua.demo.rtp import (
    HEADER,
    MARKER,
    SAMPLES_PER_PACKET,
    VERSION_2,
    TelephoneEvent,
    event_payloads,
    srtp_receiver,
    srtp_sender,
)
from b2bua.demo.sdp import MediaPlan

PACKET_NS: Final = 20_000_000
_LATE_NS: Final = 15_000_000
"""A packet sent this long after its slot is counted: past it the receiver's jitter buffer starts to matter."""
_RECEIVE_BYTES: Final = 2048
_RECEIVE_BUFFER_BYTES: Final = 262_144
_PORT_TRIES: Final = 100
_GAP_SLOTS: Final = 3
"""Audio slots between two digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaSource:
    """What a stream says: coded 20 ms payloads, then silence or the same again. Shared by any number of streams."""

    payloads: tuple[bytes, ...]
    repeat: bool = False

    @classmethod
    def of_pcm(cls, pcm: g711.PCM16, *, encoding: str = "PCMU/8000", repeat: bool = False) -> MediaSource:
        """Code a programme of 8 kHz samples once, whole packets; a last part packet is filled with silence."""
        octets = g711.encode(pcm, encoding)
        octets += bytes((g711.SILENCE_OCTET[encoding],)) * (-len(octets) % SAMPLES_PER_PACKET)
        starts = range(0, len(octets), SAMPLES_PER_PACKET)
        return cls(
            payloads=tuple(octets[start : start + SAMPLES_PER_PACKET] for start in starts), repeat=repeat
        )


_SILENCE: Final = {
    encoding: bytes((octet,)) * SAMPLES_PER_PACKET for encoding, octet in g711.SILENCE_OCTET.items()
}
_NOTHING: Final = MediaSource(payloads=())


class MediaStream:
    """One RTP socket: bound at once, so that its port can be offered, and moving packets after `start`.

    The coroutines are for any thread's loop; everything else is the pump's. The port is even and the next one is bound
    too, or the far end's RTCP would reach another stream (RFC 3550 section 11); nothing reads it.
    """

    def __init__(self, pump: MediaPump, address: str, *, keep_audio: bool) -> None:
        self._pump = pump
        self.socket, self._rtcp_socket = _bound_pair(address)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        self.local: tuple[str, int] = self.socket.getsockname()
        self.plan: MediaPlan | None = None
        self.hearing = Hearing(keep_audio=keep_audio)
        self.sent = 0
        self.sent_late = 0
        self.source_done = False
        self._spoken: list[bytes] = []
        self._keep_audio = keep_audio
        self._source = _NOTHING
        self._position = 0
        self._event_slots: deque[bytes | None] = deque()
        """What the coming slots carry instead of audio; None is a slot of audio between two digits."""
        self._event_timestamp: int | None = None
        self._sender: Session | None = None
        self._receiver: Session | None = None
        self._ssrc = secrets.randbits(32)
        self._sequence = secrets.randbits(15)
        self._timestamp = secrets.randbits(31)
        self._next_ns = 0
        self._scheduled = False
        self._marker = True
        self._payload_types: frozenset[int] = frozenset()
        self._waiters: list[tuple[Callable[[MediaStream], bool], Callable[[], object]]] = []
        self.closed = False

    async def start(self, plan: MediaPlan, source: MediaSource | None = None) -> None:
        """Send and receive by a plan; called again after a re-offer with the new plan (a new key starts a new context).

        `source` starts from its beginning; None keeps on with what was being said.
        """
        await self._pump.call(lambda: self._start(plan, source))

    async def send_digits(self, digits: str, *, duration_ms: int = 100) -> None:
        """Queue RFC 4733 events; they take the place of audio, 60 ms of audio between two of them.

        Raises:
            DemoError: the peer did not agree to telephone events, or a digit is none.
        """
        if self.plan is None or self.plan.event_payload_type is None:
            raise DemoError("the call has no telephone-event payload type")
        slots: list[bytes | None] = []
        for digit in digits:
            slots += [*event_payloads(digit, duration_ms=duration_ms), *[None] * _GAP_SLOTS]
        await self._pump.call(lambda: self._event_slots.extend(slots))

    async def wait_for(
        self, condition: Callable[[MediaStream], bool], what: str, *, timeout_s: float
    ) -> None:
        """Wait until a condition holds; it is evaluated on the pump thread after each packet of this stream.

        Raises:
            WaitTimeoutError: it did not hold in time.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def resolve() -> None:
            if not future.done():
                future.set_result(None)

        entry = (condition, lambda: loop.call_soon_threadsafe(resolve))

        def register() -> None:
            self._waiters.append(entry)
            self._check_waiters()

        self._pump.submit(register)
        try:
            await asyncio.wait_for(future, timeout_s)
        except TimeoutError as error:
            self._pump.submit(lambda: self._waiters.remove(entry) if entry in self._waiters else None)
            raise WaitTimeoutError(f"no {what} within {timeout_s} s") from error

    async def wait_heard(self, seconds: float, *, timeout_s: float) -> None:
        """Wait until so many seconds of audio packets were received and opened."""
        packets = round(seconds * 1e9 / PACKET_NS)
        await self.wait_for(
            lambda stream: stream.hearing.audio_packets >= packets,
            f"{seconds} s of audio",
            timeout_s=timeout_s,
        )

    async def wait_spoken(self, *, timeout_s: float) -> None:
        """Wait until the source was sent to its end."""
        await self.wait_for(lambda stream: stream.source_done, "end of the programme", timeout_s=timeout_s)

    async def wait_digits(self, count: int, *, timeout_s: float) -> str:
        """Wait for so many DTMF digits in all and return them joined."""
        await self.wait_for(lambda s: len(s.hearing.digits) >= count, f"{count} digits", timeout_s=timeout_s)
        return "".join(event.digit for event in await self.digits())

    async def digits(self) -> tuple[TelephoneEvent, ...]:
        """The digits heard so far."""
        return await self._pump.call(lambda: tuple(self.hearing.digits))

    async def stats(self) -> StreamStats:
        """The counts so far."""
        return await self._pump.call(lambda: self.hearing.stats(sent=self.sent, sent_late=self.sent_late))

    async def heard_pcm(self) -> g711.PCM16:
        """What was heard so far as 8 kHz PCM16; loss is silence."""
        octets = await self._pump.call(lambda: bytes(self.hearing.octets))
        return g711.decode(octets, self.hearing.encoding)

    async def spoken_pcm(self) -> g711.PCM16:
        """What was sent so far as the far end decodes it, without events; empty if audio is not kept."""
        octets = await self._pump.call(lambda: b"".join(self._spoken))
        return g711.decode(octets, self.hearing.encoding)

    async def send_raw(self, datagram: bytes) -> None:
        """Send bytes as they are to where media goes: for tests of what the far end does with them."""
        if self.plan is None:
            raise DemoError("the stream has not been started")
        self.socket.sendto(datagram, self.plan.remote)

    async def close(self) -> None:
        """Stop and close the socket; what was heard stays readable."""
        await self._pump.call(self.close_now)

    def _start(self, plan: MediaPlan, source: MediaSource | None) -> None:
        old = self.plan
        if old is None or (old.suite, old.send_key) != (plan.suite, plan.send_key):
            self._sender = srtp_sender(plan.suite, plan.send_key)
        if old is None or (old.suite, old.receive_key) != (plan.suite, plan.receive_key):
            self._receiver = srtp_receiver(plan.suite, plan.receive_key)
        self.plan = plan
        self.hearing.encoding = plan.encoding
        events = () if plan.event_payload_type is None else (plan.event_payload_type,)
        self._payload_types = frozenset((plan.payload_type, *events))
        if source is not None:
            self._source, self._position, self.source_done = source, 0, False
        if plan.sends and not self._scheduled:
            self._marker = True
            self._next_ns = time.monotonic_ns()
            self._scheduled = True
            self._pump.schedule(self._next_ns, self)
        self._pump.register(self)

    def on_slot(self, now_ns: int) -> int | None:
        """Send the packet of the slot that is due; the next slot's time, or None while nothing is to be sent."""
        plan, sender = self.plan, self._sender
        if self.closed or plan is None or sender is None or not plan.sends:
            self._scheduled = False
            return None
        if now_ns - self._next_ns > _LATE_NS:
            self.sent_late += 1
        payload_type, timestamp, payload = self._next_payload(plan)
        second = payload_type | (MARKER if self._marker else 0)
        self._marker = False
        packet = HEADER.pack(VERSION_2, second, self._sequence, timestamp, self._ssrc) + payload
        self._sequence = (self._sequence + 1) & 0xFFFF
        self._timestamp = (self._timestamp + SAMPLES_PER_PACKET) & 0xFFFFFFFF
        try:
            self.socket.sendto(sender.protect(packet), plan.remote)
            self.sent += 1
        except OSError:
            pass  # the far end's port is gone or the socket buffer full: a lost packet, as on any network
        if self._waiters:
            self._check_waiters()
        self._next_ns += PACKET_NS
        return self._next_ns

    def _next_payload(self, plan: MediaPlan) -> tuple[int, int, bytes]:
        event = self._event_slots.popleft() if self._event_slots else None
        if event is not None and plan.event_payload_type is not None:
            if self._event_timestamp is None:
                self._event_timestamp = self._timestamp
                self._marker = True
            return plan.event_payload_type, self._event_timestamp, event
        self._event_timestamp = None
        payload = self._source_payload()
        if self._keep_audio:
            self._spoken.append(payload)
        return plan.payload_type, self._timestamp, payload

    def _source_payload(self) -> bytes:
        payloads = self._source.payloads
        if self._position < len(payloads):
            payload = payloads[self._position]
            self._position += 1
            return payload
        if self._source.repeat:
            self._position = 1
            return payloads[0]
        self.source_done = True
        return _SILENCE[self.hearing.encoding]

    def on_readable(self) -> None:
        """Take one datagram; the level-triggered epoll comes back for the next."""
        try:
            datagram = self.socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        self._open(datagram)
        if self._waiters:
            self._check_waiters()

    def _open(self, datagram: bytes) -> None:
        plan, receiver = self.plan, self._receiver
        if plan is None or receiver is None:
            return
        try:
            plain = receiver.unprotect(datagram)
        except SRTPError as error:
            if "replay" in str(error):
                self.hearing.replays += 1
            else:
                self.hearing.auth_failures += 1
                self.hearing.plaintext += looks_plain(datagram, self._payload_types)
            return
        self.hearing.take(plain, time.monotonic_ns(), plan.payload_type, plan.event_payload_type)

    def _check_waiters(self) -> None:
        for entry in [entry for entry in self._waiters if entry[0](self)]:
            self._waiters.remove(entry)
            entry[1]()

    def close_now(self) -> None:
        """Close the socket; pump thread."""
        if not self.closed:
            self.closed = True
            self._pump.forget(self)
            self.socket.close()
            self._rtcp_socket.close()


def _bound_pair(address: str) -> tuple[socket.socket, socket.socket]:
    """Two UDP sockets on an even port and the next.

    Raises:
        DemoError: no two ports in a row are free.
    """
    for _ in range(_PORT_TRIES):
        first, second = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        try:
            first.bind((address, 0))
            port = first.getsockname()[1]
            second.bind((address, port ^ 1))
        except OSError:
            first.close()
            second.close()
        else:
            return (first, second) if port % 2 == 0 else (second, first)
    raise DemoError("no two UDP ports in a row are free")
