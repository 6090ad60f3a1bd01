"""One line per phase on stderr, and logged subprocesses."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from buildkit.errors import BuildError

TAIL_LINES = 40


def say(message: str) -> None:
    """Write one progress line to stderr: stdout belongs to the caller's result."""
    print(f"[setup] {message}", file=sys.stderr, flush=True)


@contextmanager
def phase(title: str) -> Iterator[None]:
    """Announce a phase and say how long it took once it has passed."""
    say(f"{title} ...")
    started_ns = time.monotonic_ns()
    yield
    say(f"{title}: done in {(time.monotonic_ns() - started_ns) / 1e9:.0f} s")


def run(
    argv: Sequence[str],
    *,
    log: Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> None:
    """Run a command with all its output appended to `log`.

    Args:
        argv: The command; no shell is involved.
        log: Kept after the run, whatever its outcome.
        cwd: Where it runs.
        env: Variables set on top of the current environment.

    Raises:
        BuildError: The command failed; the message ends with the tail of the log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as sink:
        sink.write(("$ " + " ".join(argv) + "\n").encode())
        sink.flush()
        code = subprocess.run(
            argv,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    if code != 0:
        tail = log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        raise BuildError(
            f"{argv[0]} failed with exit status {code}; the whole log is {log}\n" + "\n".join(tail)
        )


def capture(argv: Sequence[str], *, cwd: Path | None = None) -> str:
    """Return a command's stdout.

    Raises:
        BuildError: It is not installed, or failed; the message holds its stderr.
    """
    try:
        done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise BuildError(
            f"{argv[0]} is not installed; run `make setup`, which says what to install"
        ) from error
    if done.returncode != 0:
        raise BuildError(f"{' '.join(argv)} failed:\n{done.stderr.strip()}")
    return done.stdout
