"""What the kernel says about processes and the machine: CPU time by thread, resident memory, and who else was busy."""

from __future__ import annotations

import contextlib
import ctypes.util
import importlib.metadata
import json
import os
import platform
import re
import ssl
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.generator import libsrtp

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


@dataclass(frozen=True, slots=True, kw_only=True)
class CPUTime:
    """CPU seconds since the start of the process tree; `threads` sums threads of one name that live now."""

    total_s: float
    threads: Counter[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineTime:
    """Seconds of all processors together since boot."""

    busy_s: float
    stolen_s: float


def tree(pid: int) -> list[int]:
    """A process and its descendants."""
    found, waiting = [], [pid]
    while waiting:
        current = waiting.pop()
        found.append(current)
        for task in (PROC / str(current) / "task").iterdir():
            waiting += [int(child) for child in (task / "children").read_text().split()]
    return found


def cpu_time(pid: int) -> CPUTime:
    """User and system time of the process tree, its dead children and dead threads included."""
    total, threads = 0.0, Counter[str]()
    for member in tree(pid):
        fields = _stat(PROC / str(member) / "stat")[1]
        total += sum(int(field) for field in fields[11:15]) / TICKS_PER_S
        for task in (PROC / str(member) / "task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
                name, fields = _stat(task / "stat")
                threads[_family(name)] += sum(int(field) for field in fields[11:13]) / TICKS_PER_S
    return CPUTime(total_s=total, threads=threads)


def resident_bytes(pid: int) -> dict[str, int]:
    """RSS of the process tree, and its part that no file backs."""
    sums = {"VmRSS": 0, "RssAnon": 0}
    for member in tree(pid):
        status = (PROC / str(member) / "status").read_text()
        for name in sums:
            found = re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)
            sums[name] += int(found[1]) * 1024 if found else 0
    return {"rss": sums["VmRSS"], "anonymous": sums["RssAnon"]}


def machine_time() -> MachineTime:
    """From /proc/stat: everything but idle and waiting for a disk; what the hypervisor took is apart."""
    user, nice, system, _idle, _wait, irq, softirq, stolen = map(
        int, (PROC / "stat").read_text().splitlines()[0].split()[1:9]
    )
    return MachineTime(
        busy_s=(user + nice + system + irq + softirq) / TICKS_PER_S, stolen_s=stolen / TICKS_PER_S
    )


def udp_drops() -> int:
    """Datagrams that the kernel threw away because a socket's buffer was full, in this network namespace."""
    names, values = [
        line.split() for line in (PROC / "net/snmp").read_text().splitlines() if line.startswith("Udp:")
    ]
    return int(values[names.index("RcvbufErrors")])


@contextlib.contextmanager
def on_last_core() -> Iterator[int | None]:
    """Keep the calling thread, and threads that it starts, on the last core, so that they never crowd the rest.

    None: the machine has one core only.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) == 1:
        yield None
        return
    os.sched_setaffinity(0, {allowed[-1]})
    try:
        yield allowed[-1]
    finally:
        os.sched_setaffinity(0, allowed)


def describe_machine() -> dict[str, Any]:
    """What a reader needs to compare figures."""
    models = re.findall(r"^model name\s*: (.*)$", (PROC / "cpuinfo").read_text(), re.MULTILINE)
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    hypervisor = Path("/sys/class/dmi/id/sys_vendor")
    built = json.loads((libsrtp().parents[1] / "sealtrunk-build.json").read_text())
    return {
        "cpu_model": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "system": _system_name(),
        "vendor": hypervisor.read_text().strip() if hypervisor.is_file() else None,
        "governor": governor.read_text().strip() if governor.is_file() else None,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "openssl": _system_openssl(),
        "openssl_of_python": ssl.OPENSSL_VERSION,
        "cryptography": importlib.metadata.version("cryptography"),
        "python": platform.python_version(),
        "pjproject": built["pjproject"],
        "libsrtp": built["libsrtp"],
        "load_average_at_start": os.getloadavg()[0],
    }


def _system_name() -> str:
    with contextlib.suppress(OSError):
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    return platform.system()


def _system_openssl() -> str:
    """The OpenSSL that libsrtp, and with it all media, runs on."""
    listing = subprocess.run(["ldd", str(libsrtp())], check=True, capture_output=True, text=True).stdout
    found = re.search(r"libcrypto\S* => (\S+)", listing)
    if found is None:
        return "none"
    library = ctypes.CDLL(found[1])
    library.OpenSSL_version.restype = ctypes.c_char_p
    return str(library.OpenSSL_version(0).decode())


def _stat(path: Path) -> tuple[str, list[str]]:
    """Name and the fields after it, state first. Source: proc(5)."""
    text = path.read_text()
    opening, closing = text.index("("), text.rindex(")")
    return text[opening + 1 : closing], text[closing + 2 :].split()


def _family(name: str) -> str:
    """Numbered threads of one kind under one name."""
    return re.sub(r"[_-]?\d+$", "", name)
