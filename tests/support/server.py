"""What the servers of the tests have in common: a block in which they serve, and an end by their own pid."""

from __future__ import annotations

import contextlib
import subprocess
from types import TracebackType
from typing import Any, Self

_END_S = 10.0


class Server:
    """Started where its block begins and gone where it ends, also when it starts only halfway."""

    def start(self) -> None:
        """Returns when it serves."""
        raise NotImplementedError

    def stop(self) -> None:
        """It may be started again. Does nothing where nothing runs."""
        raise NotImplementedError

    def close(self) -> None:
        """For good."""
        self.stop()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            self.start()
            undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def end(process: subprocess.Popen[Any]) -> None:
    """Ask it to end, and make it end."""
    process.terminate()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
