"""The program that `pj_process` starts: pjsua2 and the native extension, one command a line on stdin."""

from __future__ import annotations

import base64
import json
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pjsua2 as pj

from b2bua.native import _native as native
from support.pj_process import ALLOWED, SUITE

RATE_HZ = int(os.environ.get("PJ_RATE_HZ", "8000"))


class Child:
    """The child's side. Each public method is a command."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.tokens: list[Any] = [1]
        self.gate_rules: list[dict[str, Any]] = []
        self.keep: list[Any] = []
        self.calls: dict[int, Any] = {}
        self.free_late: list[int] = []
        self.frame_bytes: dict[int, int] = {}
        self.running = True
        self.pump: _Pump | None = None
        self._start()

    def _start(self) -> None:
        self.endpoint = pj.Endpoint()
        self.endpoint.libCreate()
        config = pj.EpConfig()
        config.uaConfig.threadCnt = 0
        config.uaConfig.mainThreadOnly = True
        config.uaConfig.userAgent = ""
        config.logConfig.level = 3
        config.logConfig.consoleLevel = 0
        config.logConfig.filename = "/dev/stderr"
        config.logConfig.fileFlags = 0x1108  # PJ_O_APPEND: the file is shared with stderr
        config.logConfig.msgLogging = 0
        config.medConfig.clockRate = config.medConfig.sndClockRate = RATE_HZ
        config.medConfig.sndAutoCloseTime = -1
        config.medConfig.maxMediaPorts = 4096
        config.medConfig.noVad = True
        self.endpoint.libInit(config)
        self.endpoint.audDevManager().setNullDev()
        self.endpoint.libStart()

    def start_again(self, guard_removed: bool) -> None:
        """A new library in the same process, the old one's guard removed before it went or not."""
        if guard_removed:
            native.guard_remove()
        self.endpoint.libDestroy()
        del self.endpoint  # pjsua2 allows one at a time
        self._start()

    def record(self, kind: str, **fields: Any) -> None:
        self.events.append({"kind": kind, **fields})

    # ---- events

    def list_events(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["kind"] == kind]

    def take_event(self, kind: str, fields: dict[str, Any], limit_s: float) -> dict[str, Any]:
        deadline = time.monotonic() + limit_s
        while True:
            for event in self.events:
                if event["kind"] == kind and all(event[name] == value for name, value in fields.items()):
                    self.events.remove(event)
                    return event
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {kind} {fields} in {limit_s} s, but {self.events}")
            self.endpoint.libHandleEvents(20)

    # ---- guard

    def guard(self, methods: list[str] | None = None, max_message_bytes: int = 14000) -> None:
        def on_connected(*arguments: Any) -> Any:
            names = (
                "hnd",
                "incoming",
                "remote",
                "remote_name",
                "protocol",
                "cipher",
                "verify_status",
                "chain",
            )
            self.record("connected", **dict(zip(names, arguments, strict=True)))
            token = self.tokens[0] if len(self.tokens) == 1 else self.tokens.pop(0)
            if token == "raise":
                raise RuntimeError("on_connected was told to fail")
            return token

        def on_disconnected(*arguments: Any) -> None:
            names = ("hnd", "token", "incoming", "remote", "status")
            self.record("disconnected", **dict(zip(names, arguments, strict=True)))

        def on_refused(*arguments: Any) -> None:
            names = ("token", "hnd", "reason", "method", "status")
            self.record("refused", **dict(zip(names, arguments, strict=True)))

        native.guard_install(
            on_connected=on_connected,
            on_disconnected=on_disconnected,
            gate=self._gate,
            on_refused=on_refused,
            may_send=lambda token, sip_call_id: True,
            methods=ALLOWED if methods is None else methods,
            max_message_bytes=max_message_bytes,
        )

    def _gate(self, *arguments: Any) -> Any:
        names = ("token", "hnd", "is_request", "method", "status", "initial", "sip_call_id", "content_type",
                 "body", "message")  # fmt: skip
        seen = dict(zip(names, arguments, strict=True))
        for rule in self.gate_rules:
            if rule["method"] == seen["method"] and rule.get("is_request", True) == seen["is_request"]:
                if rule["answer"] == "raise":
                    raise RuntimeError("the gate was told to fail")
                answer = rule["answer"]
                break
        else:
            answer = None
        for name in ("body", "message"):
            seen[name] = seen[name].decode("utf-8", "replace")
        self.record("gate", **seen)
        if isinstance(answer, list):
            status, reason, headers = answer
            return status, reason, [tuple(header) for header in headers]
        return answer

    def set_gate(self, rules: list[dict[str, Any]]) -> None:
        self.gate_rules = rules

    def set_tokens(self, tokens: list[Any]) -> None:
        self.tokens = tokens

    def plain_transport(self, kind: str) -> int:
        config = pj.TransportConfig()
        config.boundAddress = config.publicAddress = "127.0.0.1"
        types = {"udp": pj.PJSIP_TRANSPORT_UDP, "tcp": pj.PJSIP_TRANSPORT_TCP}
        identifier = self.endpoint.transportCreate(types[kind], config)
        return int(self.endpoint.transportGetInfo(identifier).localName.rpartition(":")[2])

    # ---- transports

    def listen(self, **arguments: Any) -> list[int]:
        values: dict[str, Any] = {
            "address": "127.0.0.1", "port": 0, "public_host": "127.0.0.1", "public_port": 0,
            "ciphers": [0x1302, 0x1303], "handshake_timeout_ms": 5000, **arguments,
        }  # fmt: skip
        identifier = native.listener_create(**values)
        return [identifier, native.listener_port(identifier)]

    def swap(self, transport_id: int, **files: str) -> None:
        native.listener_swap(transport_id, **files)

    def native_call(self, name: str, arguments: list[Any]) -> Any:
        result = getattr(native, name)(*arguments)
        return list(result) if isinstance(result, tuple) else result

    # ---- calls

    def account(self, transport_id: int, answer: int = 200) -> None:
        child = self

        class Call(pj.Call):
            def onCallState(self, _prm: Any) -> None:
                state = self.getInfo()
                child.record("call", id=self.getId(), state=state.stateText, code=state.lastStatusCode)

            def onCallMediaState(self, _prm: Any) -> None:
                child.record("media", id=self.getId(), srtp=list(native.srtp_state(self.getId(), 0)))

        class Account(pj.Account):
            def onIncomingCall(self, prm: Any) -> None:
                call = Call(self, prm.callId)
                child.calls[prm.callId] = call
                hnd = native.request_transport(int(prm.rdata.pjRxData))
                child.record("incoming", id=prm.callId, hnd=hnd)
                parameters = pj.CallOpParam(True)
                parameters.opt.audioCount, parameters.opt.videoCount, parameters.opt.textCount = 1, 0, 0
                parameters.statusCode = answer
                call.answer(parameters)

        config = pj.AccountConfig()
        config.idUri = "sip:b2bua@127.0.0.1"
        config.sipConfig.transportId = transport_id
        config.natConfig.contactUseSrcPort = 0
        config.mediaConfig.srtpUse = pj.PJMEDIA_SRTP_MANDATORY
        config.mediaConfig.srtpSecureSignaling = 1
        config.mediaConfig.transportConfig.boundAddress = "127.0.0.1"
        config.mediaConfig.transportConfig.publicAddress = "127.0.0.1"
        crypto = pj.SrtpCrypto()
        crypto.name = SUITE
        config.mediaConfig.srtpOpt.cryptos = pj.SrtpCryptoVector([crypto])
        account = Account()
        account.create(config)
        self.account_object, self.call_class = account, Call

    def dial(self, uri: str) -> int:
        call = self.call_class(self.account_object)
        parameters = pj.CallOpParam(True)
        parameters.opt.audioCount, parameters.opt.videoCount, parameters.opt.textCount = 1, 0, 0
        call.makeCall(uri, parameters)
        self.calls[call.getId()] = call
        return int(call.getId())

    def message(self, uri: str) -> None:
        """A MESSAGE outside a dialog, from an account that may use any transport."""
        config = pj.AccountConfig()
        config.idUri = "sip:b2bua@127.0.0.1"
        account = pj.Account()
        account.create(config)
        buddy, buddy_config = pj.Buddy(), pj.BuddyConfig()
        buddy_config.uri = uri
        buddy.create(account, buddy_config)
        self.keep += [buddy, account]
        parameters = pj.SendInstantMessageParam()
        parameters.content = "text"
        buddy.sendInstantMessage(parameters)

    def hang_up(self, call_id: int) -> None:
        self.calls[call_id].hangup(pj.CallOpParam())

    # ---- taps

    def tone(self, hertz: int, volume: int = 8000) -> int:
        tone = pj.ToneGenerator()
        tone.createToneGenerator(RATE_HZ, 1)
        description = pj.ToneDesc()
        description.freq1, description.on_msec, description.off_msec, description.volume = (
            hertz,
            20000,
            0,
            volume,
        )
        tone.play(pj.ToneDescVector([description]), True)
        self.keep.append(tone)
        return int(tone.getPortId())

    def tap(self, layout: str = "mixed", ptime_ms: int = 20, ring_ms: int = 5000) -> list[int]:
        """The tap's id and the monotonic time at its start."""
        tap_id = native.tap_new(
            rate_hz=RATE_HZ,
            ptime_ms=ptime_ms,
            ring_ms=ring_ms,
            layout=native.SPLIT if layout == "split" else native.MIXED,
        )
        self.frame_bytes[tap_id] = 4 if layout == "split" else 2
        return [tap_id, time.monotonic_ns()]

    def many_taps(self, count: int, slots: list[int]) -> list[int]:
        """Taps on pairs of these slots, made in one go."""
        made = [self.tap()[0] for _ in range(count)]
        for index, tap_id in enumerate(made):
            native.tap_attach(tap_id, slots[index % len(slots)], slots[(index + 1) % len(slots)])
        return made

    def drain(self, size: int = 1 << 22) -> dict[str, Any]:
        """The spans with their audio, and the monotonic time of the drain."""
        buffer = bytearray(size)
        spans = native.tap_drain_all(buffer)
        at_ns = time.monotonic_ns()
        found = []
        for tap_id, offset, frames, gap_frames, overruns in spans:
            audio = buffer[offset : offset + frames * self.frame_bytes[tap_id]]
            found.append([tap_id, frames, gap_frames, overruns, base64.b64encode(audio).decode()])
        return {"at_ns": at_ns, "spans": found}

    def pump_start(self, every_ms: int, path: str) -> None:
        self.pump = _Pump(native.tap_drain_all, every_ms / 1000, Path(path))
        self.pump.start()

    def pump_stop(self) -> dict[str, Any]:
        assert self.pump is not None
        return self.pump.stop()

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def cpu_s(self) -> float:
        return time.process_time()

    def busy(self, seconds: float) -> None:
        """A thread that computes in Python beside the SIP loop."""

        def spin() -> None:
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                pass

        threading.Thread(target=spin, name="busy", daemon=True).start()

    def quit(self, free_late: list[int] | None = None) -> None:
        """End in order; `free_late`: taps that are freed only when the library is gone."""
        self.free_late = free_late or []
        self.running = False

    def close(self) -> None:
        """Every object goes before the library does."""
        if self.pump is not None:
            self.pump.stop()
        self.endpoint.hangupAllCalls()
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            self.endpoint.libHandleEvents(20)
        self.calls.clear()
        self.keep.clear()
        self.account_object = self.call_class = None
        native.guard_remove()
        self.endpoint.libDestroy()
        for tap_id in self.free_late:
            native.tap_free(tap_id)


class _Pump(threading.Thread):
    """Drains all taps at an interval into a file, as the product's pump does."""

    def __init__(self, drain_all: Callable[[bytearray], list[tuple[int, int, int, int, int]]], every_s: float,
                 path: Path) -> None:  # fmt: skip
        super().__init__(name="pump", daemon=True)
        self.drain_all, self.every_s, self.path = drain_all, every_s, path
        self.ended = threading.Event()
        self.frames, self.overruns, self.drained_at_ns = 0, 0, 0
        self.gaps: list[list[int]] = []

    def run(self) -> None:
        buffer = bytearray(1 << 24)
        with self.path.open("wb") as audio:
            last = False
            while not last:
                last = self.ended.wait(self.every_s)
                spans = self.drain_all(buffer)
                self.drained_at_ns = time.monotonic_ns()
                for index, (_, offset, frames, gap_frames, overruns) in enumerate(spans):
                    end = spans[index + 1][1] if index + 1 < len(spans) else None
                    if gap_frames:
                        self.gaps.append([self.frames, gap_frames])
                    self.frames += frames
                    self.overruns += overruns
                    audio.write(
                        buffer[offset:end] if end is not None else buffer[offset : offset + frames * 2]
                    )

    def stop(self) -> dict[str, Any]:
        self.ended.set()
        self.join()
        return {
            "frames": self.frames,
            "gaps": self.gaps,
            "overruns": self.overruns,
            "drained_at_ns": self.drained_at_ns,
        }


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # pjlib's first lines go to stdout whatever the settings say
    child = Child()
    while child.running:
        child.endpoint.libHandleEvents(10)
        ready, _, _ = select.select([sys.stdin], [], [], 0)
        if not ready:
            continue
        line = sys.stdin.readline()
        if not line:
            break
        command, arguments = json.loads(line)
        try:
            answer: dict[str, Any] = {"result": getattr(child, command)(**arguments)}
        except Exception as error:  # noqa: BLE001 - whatever it is, the parent raises it
            text = f"{error.status} {error.reason}" if isinstance(error, pj.Error) else str(error)
            answer = {"error": [type(error).__name__, text]}
        print(json.dumps(answer), file=answers, flush=True)
    child.close()


if __name__ == "__main__":
    _serve()
