"""The running service as the kernel shows it: core dumps, locked memory, swap, and the libraries it has loaded."""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from b2bua.posture.report import Level, Row, Safeguard
from b2bua.settings import Listener

PROC = Path("/proc")
_TIMEX_BYTES = 256
"""All zero it only asks; 208 are used. Source: adjtimex(2), sys/timex.h."""
_TIME_ERROR = 5
_LISTEN = "0A"
"""Source: proc_net_tcp in the kernel's documentation; the state column of /proc/net/tcp."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessFacts:
    """What /proc says of the process. `None`: it could not be read."""

    pid: int
    core_limits: tuple[str, str] | None
    locked_kib: int | None
    is_dumpable: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFacts:
    """What concerns every process of the machine. `is_clock_synchronised` None: the kernel does not say."""

    swap_devices: tuple[str, ...]
    core_pattern: str
    is_clock_synchronised: bool | None


def ask_process(listener: Listener) -> Sequence[Row]:
    """Rows about the service that listens there, if one does."""
    pid = find_listening_process(listener.address, listener.port)
    machine = read_machine()
    if pid is None:
        return [judge_service(None, listener), *judge_machine(machine, None)]
    facts = read_process(pid)
    return [judge_service(facts, listener), judge_core(facts), *judge_machine(machine, facts)]


def find_listening_process(address: str, port: int) -> int | None:
    """The process that listens at an address; None where none does, or where it belongs to somebody else.

    Raises:
        PermissionError: somebody listens there, and who it is can't be seen.
    """
    inode = next(_listening_inodes(address, port), None)
    if inode is None:
        return None
    is_hidden = False
    for directory in PROC.iterdir():
        if not directory.name.isdigit():
            continue
        try:
            if any(_is_socket(entry, inode) for entry in (directory / "fd").iterdir()):
                return int(directory.name)
        except PermissionError:
            is_hidden = True
        except OSError:
            continue  # it has ended meanwhile
    if is_hidden:
        raise PermissionError(
            "whose listener it is can't be seen, the service's own user included; run this as root"
        )
    return None


def _is_socket(entry: Path, inode: str) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.readlink(entry) == f"socket:[{inode}]"  # noqa: PTH115 - no path, a name of the kernel's
    return False


def _listening_inodes(address: str, port: int) -> Iterator[str]:
    wanted = ipaddress.ip_address(address)
    table = PROC / "net" / ("tcp6" if wanted.version == 6 else "tcp")
    for line in table.read_text().splitlines()[1:]:
        fields = line.split()
        host, _, port_text = fields[1].partition(":")
        if fields[3] == _LISTEN and int(port_text, 16) == port and _address(host) == wanted:
            yield fields[9]


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address as the kernel prints it: 32-bit words in the machine's order."""
    words = [bytes.fromhex(text[at : at + 8]) for at in range(0, len(text), 8)]
    packed = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    return ipaddress.ip_address(packed)


def read_process(pid: int) -> ProcessFacts:
    """Limits and memory of a process."""
    directory = PROC / str(pid)
    status = (directory / "status").read_text()
    limits = re.search(r"^Max core file size +(\S+) +(\S+)", (directory / "limits").read_text(), re.MULTILINE)
    locked = re.search(r"^VmLck:\s+(\d+) kB", status, re.MULTILINE)
    return ProcessFacts(
        pid=pid,
        core_limits=None if limits is None else (limits[1], limits[2]),
        locked_kib=None if locked is None else int(locked[1]),
        is_dumpable=_is_dumpable(status, (directory / "limits").stat().st_uid),
    )


def _is_dumpable(status: str, owner: int) -> bool | None:
    """The kernel gives what it shows of a process that may not be dumped to root; of root's own nothing is seen."""
    user = re.search(r"^Uid:\s+\d+\s+(\d+)", status, re.MULTILINE)
    if user is None or int(user[1]) == 0:
        return None
    return owner != 0


def read_machine() -> MachineFacts:
    """Swap, what becomes of core dumps, and the clock."""
    swaps = (PROC / "swaps").read_text().splitlines()[1:]
    return MachineFacts(
        swap_devices=tuple(line.split()[0] for line in swaps),
        core_pattern=(PROC / "sys/kernel/core_pattern").read_text().strip(),
        is_clock_synchronised=_is_clock_synchronised(),
    )


def _is_clock_synchronised() -> bool | None:
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    return None if state < 0 else state != _TIME_ERROR


def judge_clock(machine: MachineFacts) -> Row:
    """Certificates, retention and Object Lock go by it."""
    finding, level = {
        True: ("held to be synchronised; whether it is right is not known here", Level.OK),
        False: ("not synchronised: retention and certificates go by it", Level.ATTENTION),
        None: ("not known: the kernel does not say", Level.UNKNOWN),
    }[machine.is_clock_synchronised]
    return Row(
        key="machine.clock",
        safeguard=Safeguard.INTEGRITY,
        subject="clock of the machine",
        finding=finding,
        evidence="the kernel's clock state (adjtimex)",
        level=level,
    )


def judge_service(facts: ProcessFacts | None, listener: Listener) -> Row:
    """Whether the service is up: what is not running protects nobody."""
    where = listener.where
    return Row(
        key="process.running",
        safeguard=Safeguard.EVIDENCE,
        subject="running service",
        finding=f"process {facts.pid} listens at {where}" if facts else f"no process listens at {where}",
        evidence="/proc/net/tcp and the descriptors of processes",
        level=Level.OK if facts else Level.ATTENTION,
    )


def judge_core(facts: ProcessFacts) -> Row:
    """A core dump would hold audio and keys."""
    is_off = facts.core_limits == ("0", "0")
    limits = "unreadable" if facts.core_limits is None else " and ".join(facts.core_limits)
    return Row(
        key="process.core_dumps",
        safeguard=Safeguard.AT_REST,
        subject="core dumps of the service",
        finding="switched off" if is_off else f"limits are {limits}, not 0 and 0",
        evidence=f"/proc/{facts.pid}/limits",
        level=Level.OK if is_off else Level.ALARM,
    )


def judge_machine(machine: MachineFacts, facts: ProcessFacts | None) -> Sequence[Row]:
    """The clock, and ways in which memory can reach a disk all the same."""
    is_piped = machine.core_pattern.startswith("|")
    is_open = is_piped and (facts is None or facts.is_dumpable is not False)
    rows = [
        judge_clock(machine),
        Row(
            key="machine.core_pattern",
            safeguard=Safeguard.AT_REST,
            subject="core dump handler of the machine",
            finding=_core_finding(machine, facts),
            evidence="/proc/sys/kernel/core_pattern"
            + ("" if facts is None else f", owner of /proc/{facts.pid}/limits"),
            level=Level.ATTENTION if is_open else Level.OK,
        ),
    ]
    locked = None if facts is None else facts.locked_kib
    rows.append(
        Row(
            key="machine.swap",
            safeguard=Safeguard.AT_REST,
            subject="swap",
            finding=_swap_finding(machine, locked),
            evidence="/proc/swaps" + ("" if facts is None else f", /proc/{facts.pid}/status"),
            level=Level.ATTENTION if machine.swap_devices else Level.OK,
        )
    )
    return rows


def _core_finding(machine: MachineFacts, facts: ProcessFacts | None) -> str:
    if not machine.core_pattern.startswith("|"):
        return "dumps are files, which the limit of the service forbids"
    handler = machine.core_pattern[1:].split(" ")[0]
    piped = f"dumps are piped to {handler}, which the kernel starts whatever the limit is"
    if facts is not None and facts.is_dumpable is False:
        return f"{piped}; the service has forbidden any dump of itself"
    return f"{piped}; the service forbids any dump of itself, which can't be seen here: see that the handler keeps none"


def _swap_finding(machine: MachineFacts, locked_kib: int | None) -> str:
    locked = "" if locked_kib is None else f"; {locked_kib} KiB of the service are locked in memory"
    if not machine.swap_devices:
        return f"this machine has none{locked}"
    return f"{len(machine.swap_devices)} swap devices: audio and keys can reach them unless they are encrypted{locked}"
