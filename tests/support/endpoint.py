"""Starting demonstration endpoints in tests: certificates, contexts, one pump, and a loop with a limit.

with rig(tmp_path) as r:
    async def scenario():
        async with r.endpoint("alice") as caller, r.endpoint("bob", listen=True) as callee:
            connection = await caller.connect("127.0.0.1", callee.port)
            call = await caller.invite(connection, Invitation(uri=r.uri(callee)))
    run(scenario())
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import wave
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from b2bua.demo.endpoint import Endpoint, EndpointSettings
from b2bua.demo.g711 import PCM16, RATE_HZ
from b2bua.demo.pump import MediaPump
from b2bua.demo.speech import Side
from b2bua.demo.tls_context import client_context, server_context
from support.certificates import Issuer
from tls.settings import TLSMaterialSettings

_T = TypeVar("_T")
LOCALHOST = "127.0.0.1"


def run(scenario: Coroutine[Any, Any, _T], *, limit_s: float = 30.0) -> _T:
    """Run a scenario on a loop of its own; it may not take longer than the limit."""
    return asyncio.run(asyncio.wait_for(scenario, limit_s))


def contexts(material: TLSMaterialSettings) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A client and a server context of one certificate."""
    files = {
        "certificate": material.certificate_path,
        "private_key": material.private_key_path,
        "authority": material.trust_path,
    }
    return client_context(**files), server_context(**files)


@dataclass(frozen=True)
class Rig:
    """One certificate authority and one media pump for the endpoints of a test."""

    issuer: Issuer
    pump: MediaPump

    def endpoint(self, name: str, *, listen: bool = False, **settings: Any) -> Endpoint:
        """An endpoint with a certificate for 127.0.0.1; `settings` are those of `EndpointSettings`."""
        client, server = contexts(self.issuer.material(name, f"{name}.example", LOCALHOST))
        settings.setdefault("client_context", client)
        settings.setdefault("server_context", server if listen else None)
        return Endpoint(EndpointSettings(user=name, **settings), self.pump)

    def uri(self, endpoint: Endpoint, *, scheme: str = "sip") -> str:
        """The URI under which an endpoint listens."""
        place = f"{scheme}:{endpoint.settings.user}@{LOCALHOST}:{endpoint.port}"
        return place if scheme == "sips" else f"{place};transport=tls"


@contextlib.contextmanager
def rig(directory: Path) -> Iterator[Rig]:
    """A rig that ends its pump at the end."""
    with MediaPump() as pump:
        yield Rig(issuer=Issuer(directory), pump=pump)


def write_wav(path: Path, pcm: PCM16, *, rate_hz: int = RATE_HZ, channels: int = 1) -> None:
    """A 16 bit WAV file, its folder made if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as target:
        target.setparams((channels, 2, rate_hz, 0, "NONE", ""))
        target.writeframes(pcm.tobytes())


def prompts(folder: Path) -> Path:
    """A folder like that of the recorded prompts: 5 s each, one in four with a pause of 3 s, levels tenfold apart."""
    for seed, name in enumerate(name for side in Side for name in side.value):
        prompt = (babble(5, seed=seed) * (0.05 + 0.25 * (seed % 4))).astype(np.int16)
        if seed % 4 == 1:
            prompt[4000:28000] = 0
        write_wav(folder / "sounds" / f"{name}.wav", prompt)
    return folder


def babble(seconds: float, *, seed: int) -> PCM16:
    """Speech-like sound: voiced bursts of wandering pitch with noise, never silent for 2 s. One seed, one sound."""
    random = np.random.default_rng(seed)
    count = round(seconds * RATE_HZ)
    time = np.arange(count) / RATE_HZ
    turns = np.arange(0, seconds + 1, 0.3)
    pitch = 120 + 60 * np.interp(time, turns, random.random(len(turns)))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE_HZ
    voice = sum(np.sin(k * phase + random.random() * 6) / k for k in range(1, 12))
    beats = np.arange(0, seconds + 1, 0.12)
    envelope = np.interp(time, beats, random.random(len(beats)) ** 2)
    signal = envelope * (voice + 0.6 * random.standard_normal(count))
    scaled: PCM16 = np.round(signal * 4000).clip(-20000, 20000).astype(np.int16)
    return scaled
