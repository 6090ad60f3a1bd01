"""Compiling and driving generator.c, and the stream that an endpoint of the demonstration uses in its place."""

from __future__ import annotations

import ctypes
import functools
import os
import re
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from b2bua.demo.endpoint import Endpoint
from b2bua.demo.sdp import MediaPlan, SRTPSuite
from b2bua.demo.session import MediaSession

SOURCE = Path(__file__).with_name("generator.c")
NATIVE = Path(__file__).resolve().parents[2] / f"b2bua/native/_native{sysconfig.get_config_var('EXT_SUFFIX')}"
PACKET_S = 0.02
_PROFILES = {SRTPSuite.AEAD_AES_128_GCM: 7, SRTPSuite.AEAD_AES_256_GCM: 8}
"""libsrtp's srtp_profile_t."""


class GeneratorError(Exception):
    """The generator could not be built, or refused what was asked of it."""


@dataclass(slots=True, kw_only=True)
class Counts:
    """What one leg counted, as `struct counts` in generator.c words it; or the sum or difference of several."""

    sent: int = 0
    send_errors: int = 0
    received: int = 0
    expected: int = 0
    voiced: int = 0
    refused: int = 0
    reports: int = 0
    far_lost: int = 0
    far_expected: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    def __sub__(self, other: Counts) -> Counts:
        return Counts(**{f.name: getattr(self, f.name) - getattr(other, f.name) for f in fields(self)})


class _Counts(ctypes.Structure):
    _fields_ = [(f.name, ctypes.c_int64 if f.name == "far_lost" else ctypes.c_uint64) for f in fields(Counts)]


class _Health(ctypes.Structure):
    _fields_ = [
        ("ticks", ctypes.c_uint64),
        ("late_ticks", ctypes.c_uint64),
        ("worst_late_ns", ctypes.c_int64),
    ]


def libsrtp() -> Path:
    """The library that the product's extension loads."""
    listing = subprocess.run(["ldd", str(NATIVE)], check=True, capture_output=True, text=True).stdout
    found = re.search(r"libsrtp2\.so\S* => (\S+)", listing)
    if found is None:
        raise GeneratorError(f"{NATIVE} loads no libsrtp; run `make setup`")
    return Path(found[1])


@functools.cache
def _library(directory: Path) -> ctypes.CDLL:
    prefix = libsrtp().parent.parent
    target = directory / "generator.so"
    command = [
        os.environ.get("CC", "cc"), "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared",
        f"-I{prefix}/include", str(SOURCE), "-o", str(target),
        f"-L{prefix}/lib", f"-Wl,-rpath,{prefix}/lib", "-lsrtp2", "-lpthread",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise GeneratorError(f"{SOURCE.name} did not compile:\n{done.stderr}")
    return ctypes.CDLL(str(target))


class Generator:
    """The media thread of every leg of a measurement. Methods may be called from any thread and never wait long."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def add(self, address: str) -> tuple[int, int]:
        """A leg's place and its RTP port."""
        port = ctypes.c_int()
        place = _checked("media_add", self._library.media_add(address.encode(), ctypes.byref(port)))
        return place, port.value

    def start(self, place: int, plan: MediaPlan) -> None:
        """Move packets by a plan."""
        if plan.payload_type != 0 or not (plan.sends and plan.receives):
            raise GeneratorError("only PCMU in both directions can be generated")
        result = self._library.media_start(
            place, plan.remote[0].encode(), plan.remote[1], _PROFILES[plan.suite], plan.send_key, plan.receive_key
        )  # fmt: skip
        _checked("media_start", result)

    def counts(self, place: int) -> Counts:
        """A leg's counts so far."""
        raw = _Counts()
        _checked("media_counts", self._library.media_counts(place, ctypes.byref(raw)))
        return Counts(**{f.name: getattr(raw, f.name) for f in fields(Counts)})

    def remove(self, place: int) -> None:
        """Close a leg."""
        _checked("media_remove", self._library.media_remove(place))

    def health(self) -> dict[str, float]:
        """How late the generator itself was since the last call."""
        raw = _Health()
        self._library.media_health(ctypes.byref(raw))
        return {
            "ticks": raw.ticks,
            "late_ticks": raw.late_ticks,
            "worst_late_ms": round(raw.worst_late_ns / 1e6, 3),
        }


@contextmanager
def generating(directory: Path, packets: tuple[bytes, ...]) -> Iterator[Generator]:
    """Build the generator in `directory` and run it; every leg says `packets` in a loop."""
    library = _library(directory)
    octets = b"".join(packets)
    if len(octets) != 160 * len(packets):
        raise GeneratorError("the generator takes packets of 160 octets")
    _checked("media_open", library.media_open(octets, ctypes.c_size_t(len(packets))))
    try:
        yield Generator(library)
    finally:
        library.media_close()


class GeneratedStream:
    """A media stream whose packets the generator moves: what `MediaSession` and `Call` ask of one."""

    def __init__(self, generator: Generator, address: str) -> None:
        self._generator = generator
        self._place, port = generator.add(address)
        self.local = (address, port)
        self.plan: MediaPlan | None = None
        self.closed = False
        self.total = Counts()
        """What was counted by the time the stream was closed."""

    async def start(self, plan: MediaPlan, source: object = None) -> None:
        """Run by a plan. A call's media does not change once it runs, so a second plan must be the first."""
        del source
        if self.plan is None:
            self._generator.start(self._place, plan)
            self.plan = plan
        elif plan != self.plan:
            raise GeneratorError("the plan of a running stream cannot be changed")

    def counts(self) -> Counts:
        """The counts so far."""
        return self.total if self.closed else self._generator.counts(self._place)

    async def close(self) -> None:
        """Stop and close the sockets; the counts stay."""
        if not self.closed:
            self.total = self.counts()
            self.closed = True
            self._generator.remove(self._place)


class LoadEndpoint(Endpoint):
    """The demonstration's endpoint with generated media."""

    def __init__(self, settings: Any, generator: Generator) -> None:
        super().__init__(settings, pump=None)  # type: ignore[arg-type]  # nothing is left for a pump
        self.generator = generator

    def _new_session(
        self, suites: tuple[SRTPSuite, ...] | None, encodings: tuple[str, ...] | None
    ) -> MediaSession:
        stream = GeneratedStream(self.generator, self.settings.address)
        return MediaSession(
            stream,  # type: ignore[arg-type]  # the part of MediaStream that sessions and calls use
            suites=suites or self.settings.suites,
            encodings=encodings or self.settings.encodings,
        )


def _checked(action: str, result: int) -> int:
    if result < 0:
        raise GeneratorError(f"{action}: {os.strerror(-result)}")
    return result
