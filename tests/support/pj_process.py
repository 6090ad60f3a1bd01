"""pjsua with the native extension in a process of its own, driven by a test line by line.

    with PjProcess(tmp_path) as pj:
        pj.call("guard", methods=["INVITE", "ACK"])
        port = pj.call("listen", **files)
        pj.wait_event("connected")

One process holds one pjsua, and a crash or a SIGSTOP must not reach the test run. Each call is one JSON line in
and one out; between them the child runs the SIP loop, so callbacks arrive as they would in the product.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

REPOSITORY: Final = Path(__file__).resolve().parents[2]
CHILD: Final = Path(__file__).resolve().with_name("pj_child.py")
ALLOWED: Final = ("INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "UPDATE", "PRACK")
SUITE: Final = "AEAD_AES_256_GCM"


class ChildError(Exception):
    """The child raised; `kind` is the exception's class name."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


class PjProcess:
    """The parent's side."""

    def __init__(self, directory: Path, *, rate_hz: int = 8000, preload: Path | None = None) -> None:
        self.log_path = directory / f"pj-{time.monotonic_ns()}.log"
        environment = dict(
            os.environ, PYTHONPATH=f"{REPOSITORY}:{REPOSITORY / 'tests'}", PJ_RATE_HZ=str(rate_hz)
        )
        if preload is not None:
            environment["LD_PRELOAD"] = f"{environment.get('LD_PRELOAD', '')} {preload}".strip()
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(CHILD)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment, cwd=REPOSITORY,
            )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                assert self.finish() == 0, self.log
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait(10)
            for stream in (self.process.stdin, self.process.stdout):
                if stream is not None:
                    stream.close()

    @property
    def log(self) -> str:
        """What the child wrote to stderr: pjsip's log, tracebacks, a sanitizer's report."""
        return self.log_path.read_text(errors="replace")

    def call(self, command: str, *, timeout_s: float = 20, **arguments: Any) -> Any:
        """Run one command of `pj_child.Child` and return what it returns."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([command, arguments]).encode() + b"\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], timeout_s)
        assert ready, f"no answer to {command} in {timeout_s} s\n{self.log}"
        line = self.process.stdout.readline()
        assert line, f"the child ended in {command}\n{self.log}"
        answer = json.loads(line)
        if "error" in answer:
            raise ChildError(*answer["error"])
        return answer["result"]

    def wait_event(self, kind: str, *, timeout_s: float = 10, **fields: Any) -> dict[str, Any]:
        """The first recorded event of this kind with these fields; it is taken off the record."""
        limits = {"timeout_s": timeout_s + 5, "limit_s": timeout_s}
        event: dict[str, Any] = self.call("take_event", kind=kind, fields=fields, **limits)
        return event

    def events(self, kind: str) -> list[dict[str, Any]]:
        """What of this kind is on record now."""
        found: list[dict[str, Any]] = self.call("list_events", kind=kind)
        return found

    def stop_for(self, seconds: float) -> None:
        """SIGSTOP, wait, SIGCONT."""
        self.process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.process.send_signal(signal.SIGCONT)

    def finish(self) -> int:
        """End it in order; the exit status."""
        if self.process.poll() is None:
            self.call("quit")
        return self.process.wait(30)
