"""No core dump may carry plaintext audio or keys to a disk, nor to a program that the machine pipes dumps to."""

from __future__ import annotations

import ctypes
import resource
from typing import Final

from b2bua.errors import ReadinessError

_PR_SET_DUMPABLE: Final = 4
"""Source: prctl(2); exec sets it back, so each program says it for itself."""


def forbid_dumping() -> None:
    """No core dump of this process, whatever core_pattern says, and no look into its memory by others of its user.

    A limit of core files does not hold for a pipe in core_pattern (core(5)); this does.

    Raises:
        ReadinessError: the kernel, or a filter of system calls, does not allow it.
    """
    call = ctypes.CDLL(None, use_errno=True).prctl
    arguments = (ctypes.c_ulong(0) for _ in range(4))
    if call(_PR_SET_DUMPABLE, *arguments) != 0:
        raise ReadinessError(
            f"core dumps can't be forbidden: prctl(PR_SET_DUMPABLE) gives errno {ctypes.get_errno()}; allow prctl in "
            "the filter of system calls"
        )


def forbid_core_files() -> None:
    """No core file of this process and of what it starts; for good."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
