"""CPU, loss, overruns and memory with many calls up, recorded and not, in alternating order."""

from __future__ import annotations

import asyncio
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from support.edge import Edge
from tests.bench.generator import Counts, Generator, generating
from tests.bench.process import (
    CPUTime,
    cpu_time,
    machine_time,
    on_last_core,
    resident_bytes,
    udp_drops,
)
from tests.bench.served import Parties, judge_recordings, metric, parties, served

MIB = 1024 * 1024
WARM_UP_CALLS = 3
SETTLE_S = 6.0
"""Longer than the interval of RTCP reports (5 s), so that each stream has one before the window."""
Say = Callable[[str], None]


class Counting(Protocol):
    """A call whose two ends count packets."""

    def counts(self) -> Counts:
        """What both ends counted so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityPlan:
    """How much load, for how long, how often."""

    calls: int = 100
    window_s: float = 30.0
    repeats: int = 3
    per_second: float = 20.0
    settle_s: float = SETTLE_S


def measure_capacity(
    plan: CapacityPlan, packets: tuple[bytes, ...], directory: Path, say: Say
) -> dict[str, Any]:
    """Recorded and unrecorded runs, alternating so that a drift of the machine meets both alike."""
    samples: dict[str, list[dict[str, Any]]] = {"required": [], "off": []}
    order = [policy for turn in range(plan.repeats) for policy in _pair(turn)]
    for number, policy in enumerate(order, 1):
        say(f"capacity {number}/{len(order)}: {plan.calls} calls, recording {policy}")
        sample = run_capacity(plan, packets, directory / f"capacity-{number}", policy)
        samples[policy].append(sample)
        say(
            f"  {sample['cpu_percent_per_call']:.3f} % of a core for a call, others {sample['others_percent']} %"
        )
    return {"plan": {"calls": plan.calls, "window_s": plan.window_s, "repeats": plan.repeats}, "order": order,
            "samples": samples, **_summary(samples)}  # fmt: skip


def _pair(turn: int) -> tuple[str, str]:
    return ("required", "off") if turn % 2 == 0 else ("off", "required")


def run_capacity(
    plan: CapacityPlan, packets: tuple[bytes, ...], directory: Path, policy: str
) -> dict[str, Any]:
    """One run of its own process with that recording policy."""
    directory.mkdir()
    with served(directory, max_calls=plan.calls + WARM_UP_CALLS + 5, recording=policy) as edge:
        with on_last_core() as core, generating(directory, packets) as generator:
            sample = asyncio.run(_load(plan, edge, generator))
        edge.stop()
        sample["generator_core"] = core
        if policy != "off":
            archive = judge_recordings(edge)
            sample["recordings"] = {
                "complete": archive.complete,
                "incomplete": archive.incomplete,
                "silent": archive.silent,
                "audio_s": archive.seconds,
                "expected": plan.calls + WARM_UP_CALLS,
            }
    return sample


async def _load(plan: CapacityPlan, edge: Edge, generator: Generator) -> dict[str, Any]:
    async with parties(edge, generator) as pair:
        await _warm_up(pair)
        idle = resident_bytes(edge.pid)
        calls = await pair.calls(plan.calls, per_second=plan.per_second)
        await asyncio.sleep(plan.settle_s)
        sample = await measure_window(plan, edge.pid, generator, calls)
        loaded = resident_bytes(edge.pid)
        sample["overruns"] = int(metric(edge, "sealtrunk_tap_overruns_total"))
        sample["memory"] = {
            "idle": idle,
            "loaded": loaded,
            "mib_per_call": round((loaded["rss"] - idle["rss"]) / MIB / plan.calls, 4),
        }
        await pair.hang_up(calls)
        return sample


async def _warm_up(pair: Parties) -> None:
    """A few calls first: connections, code paths and buffers that are made once exist then."""
    calls = await pair.calls(WARM_UP_CALLS, per_second=10)
    await asyncio.sleep(1.0)
    await pair.hang_up(calls)
    await asyncio.sleep(1.5)  # one group commit: the recordings of the warm-up are out of the way


async def measure_window(
    plan: CapacityPlan, pid: int, generator: Generator, calls: Sequence[Counting]
) -> dict[str, Any]:
    """What a process tree and the media of its calls did in the steady state of `plan.window_s` seconds."""
    loop = asyncio.get_running_loop()
    counts, cpu, own, machine = _sum(calls), cpu_time(pid), cpu_time(os.getpid()), machine_time()
    drops, began = udp_drops(), loop.time()
    generator.health()
    await asyncio.sleep(plan.window_s)
    seconds = loop.time() - began
    spent, own_spent = _since(cpu, cpu_time(pid)), _since(own, cpu_time(os.getpid()))
    after = machine_time()
    moved = _sum(calls) - counts
    others = after.busy_s - machine.busy_s - spent.total_s - own_spent.total_s
    return {
        "seconds": round(seconds, 3),
        "cpu_percent": round(100 * spent.total_s / seconds, 2),
        "cpu_percent_per_call": round(100 * spent.total_s / seconds / plan.calls, 4),
        "cpu_percent_by_thread": {
            name: round(100 * used / seconds, 2) for name, used in spent.threads.most_common() if used
        },
        "generator_percent": round(100 * own_spent.total_s / seconds, 1),
        "cpu_relative_to_generator": round(spent.total_s / own_spent.total_s, 3),
        "others_percent": round(100 * max(0.0, others) / seconds, 1),
        "stolen_percent": round(100 * (after.stolen_s - machine.stolen_s) / seconds, 1),
        "media": _media(moved, plan.calls * 2, seconds),
        "udp_buffer_drops": udp_drops() - drops,
        "generator_lateness": generator.health(),
    }


def _media(moved: Counts, legs: int, seconds: float) -> dict[str, Any]:
    """Loss as each end counted it: the endpoints by sequence number, the B2BUA in its RTCP reports."""
    lost = moved.expected - moved.received
    return {
        "sent": moved.sent,
        "received": moved.received,
        "expected": moved.expected,
        "lost_by_endpoints": lost,
        "lost_by_b2bua": moved.far_lost,
        "reported_by_b2bua": moved.far_expected,
        "reports": moved.reports,
        "loss_percent": round(_percent(lost, moved.expected), 4),
        "loss_percent_to_b2bua": round(_percent(moved.far_lost, moved.far_expected), 4),
        "voiced_percent": round(_percent(moved.voiced, moved.received), 2),
        "refused": moved.refused,
        "send_errors": moved.send_errors,
        "packets_per_leg_second": round(moved.received / legs / seconds, 2),
    }


def _summary(samples: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    recorded, bare = (
        statistics.median(sample["cpu_percent_per_call"] for sample in samples[policy])
        for policy in ("required", "off")
    )
    every = samples["required"] + samples["off"]
    return {
        "cpu_percent_per_call": recorded,
        "cpu_percent_per_call_unrecorded": bare,
        "recording_adds_percent": round(100 * (recorded / bare - 1), 1),
        "overruns": sum(sample["overruns"] for sample in every),
        "loss_percent": max(
            max(sample["media"]["loss_percent"], sample["media"]["loss_percent_to_b2bua"]) for sample in every
        ),
        "memory_mib_per_call": statistics.median(
            sample["memory"]["mib_per_call"] for sample in samples["required"]
        ),
    }


def _sum(calls: Sequence[Counting]) -> Counts:
    total = Counts()
    for call in calls:
        total += call.counts()
    return total


def _since(before: CPUTime, after: CPUTime) -> CPUTime:
    return CPUTime(total_s=after.total_s - before.total_s, threads=after.threads - before.threads)


def _percent(part: float, whole: float) -> float:
    return 100 * part / whole if whole else 0.0
