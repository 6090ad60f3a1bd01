"""The media side of one call: its stream, its keys, and the offers and answers that steer it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace

from b2bua.demo.errors import SDPError
from b2bua.demo.sdp import (
    Direction,
    LocalAudio,
    MediaPlan,
    SessionDescription,
    SRTPSuite,
    agree,
    build_answer,
    build_offer,
    fresh_keys,
    parse_sdp,
)
from b2bua.demo.stream import MediaSource, MediaStream

SDPHook = Callable[[bytes], bytes]
"""Rewrites a description just before it is sent. What this side believes it sent is the text before the hook."""


class MediaSession:
    """Offer/answer state of one call. Used on the event loop of its endpoint."""

    def __init__(
        self, stream: MediaStream, *, suites: tuple[SRTPSuite, ...], encodings: tuple[str, ...],
        hook: SDPHook | None = None, source: MediaSource | None = None,
    ) -> None:  # fmt: skip
        self.stream = stream
        self.hook = hook
        self.source = source
        self.local = LocalAudio(
            address=stream.local[0], port=stream.local[1], keys=fresh_keys(suites),
            session_id=secrets.randbits(31), encodings=encodings,
        )  # fmt: skip
        self._offered: SessionDescription | None = None

    @property
    def plan(self) -> MediaPlan | None:
        """What the last completed offer and answer agreed on."""
        return self.stream.plan

    def offer(self, *, direction: Direction | None = None, rekey: bool = False) -> bytes:
        """A new offer; it is pending until `answered`."""
        keys = fresh_keys(self.local.keys) if rekey else self.local.keys
        self._next_version(replace(self.local, keys=keys, direction=direction or self.local.direction))
        body = build_offer(self.local)
        self._offered = parse_sdp(body)
        return self._hooked(body)

    async def answered(self, body: bytes) -> None:
        """Take the far end's answer to the pending offer and run the media by it.

        Raises:
            SDPError: there is no pending offer, or the answer does not fit it.
        """
        if self._offered is None:
            raise SDPError("an answer came without an offer")
        plan = agree(local=self._offered, remote=parse_sdp(body), local_is_offer=True)
        await self._run(plan)

    async def answer(self, body: bytes) -> bytes:
        """Answer the far end's offer and run the media by it.

        Raises:
            SDPError: the offer holds nothing this side may take.
        """
        offer = parse_sdp(body)
        self._next_version(self.local)
        reply = build_answer(offer, self.local)
        plan = agree(local=parse_sdp(reply), remote=offer, local_is_offer=False)
        await self._run(plan)
        return self._hooked(reply)

    def withdraw(self) -> None:
        """Forget a pending offer that was refused."""
        self._offered = None

    async def _run(self, plan: MediaPlan) -> None:
        source, self.source = self.source, None
        await self.stream.start(plan, source)

    def _next_version(self, local: LocalAudio) -> None:
        self.local = replace(local, version=local.version + 1)

    def _hooked(self, body: bytes) -> bytes:
        return body if self.hook is None else self.hook(body)
