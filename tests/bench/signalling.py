"""How long the B2BUA takes to set a call up, and how many calls a second it takes."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from b2bua.demo.endpoint import Endpoint
from b2bua.demo.errors import DemoError
from b2bua.demo.outgoing import OutgoingCall
from b2bua.demo.sip_message import SIPRequest, SIPResponse
from support.edge import Edge
from tests.bench.capacity import Say
from tests.bench.generator import PACKET_S, Generator, generating
from tests.bench.process import on_last_core
from tests.bench.served import ANSWER_S, Parties, judge_recordings, parties, served

WARM_UP_PAIRS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class SetUpPlan:
    """So many calls through the B2BUA and as many without it, one after the other, each held for a moment."""

    pairs: int = 120
    held_s: float = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class RatePlan:
    """Calls begun at a steady pace; each is held so long after its answer."""

    per_second: float = 50.0
    seconds: float = 10.0
    held_s: float = 2.0

    @property
    def calls(self) -> int:
        return round(self.per_second * self.seconds)


def measure_set_up(plan: SetUpPlan, packets: tuple[bytes, ...], directory: Path, say: Say) -> dict[str, Any]:
    """INVITE to 200 as the caller sees it, with and without the B2BUA in between."""
    say(f"set-up: {plan.pairs} calls through the B2BUA and as many without it")
    directory.mkdir()
    with served(directory, max_calls=10, recording="required") as edge:
        with on_last_core(), generating(directory, packets) as generator:
            times = asyncio.run(_pairs(plan, edge, generator))
        edge.stop()
    through, direct = times
    return {
        "plan": {"pairs": plan.pairs, "held_s": plan.held_s},
        "through_ms": _spread(through),
        "direct_ms": _spread(direct),
        "added_ms": round(statistics.median(through) - statistics.median(direct), 2),
        "samples": {"through_ms": through, "direct_ms": direct},
    }


async def _pairs(plan: SetUpPlan, edge: Edge, generator: Generator) -> tuple[list[float], list[float]]:
    through: list[float] = []
    direct: list[float] = []
    async with parties(edge, generator) as pair:
        for number in range(-WARM_UP_PAIRS, plan.pairs):
            for straight, times in ((True, direct), (False, through)):
                call = await pair.call(direct=straight)
                taken = invite_to_200_ms(pair.caller, call)
                await asyncio.sleep(plan.held_s)
                await call.hang_up(timeout_s=ANSWER_S)
                await pair.callee.incoming[-1].wait_ended(timeout_s=ANSWER_S)
                if number >= 0:
                    times.append(taken)
    return through, direct


def invite_to_200_ms(caller: Endpoint, call: OutgoingCall) -> float:
    """Between the sending of a call's INVITE and the arrival of its 200, by the endpoint's transcript."""
    answered = None
    for seen in reversed(caller.transcript.seen):
        message = seen.message
        if message.call_id != call.invite.call_id or message.cseq.method != "INVITE":
            continue
        if isinstance(message, SIPResponse) and message.status == 200:
            answered = seen.at_ns
        elif isinstance(message, SIPRequest) and answered is not None:
            return round((answered - seen.at_ns) / 1e6, 3)
    raise LookupError("the transcript has no INVITE with its 200")


def measure_rate(plan: RatePlan, packets: tuple[bytes, ...], directory: Path, say: Say) -> dict[str, Any]:
    """Every call must be answered, carry media, end well and leave a whole recording."""
    say(f"call rate: {plan.calls} calls at {plan.per_second:g} a second, each held {plan.held_s:g} s")
    directory.mkdir()
    room = plan.calls  # no call of this run is to meet the admission limit
    with served(directory, max_calls=room, recording="required") as edge:
        with on_last_core(), generating(directory, packets) as generator:
            outcome = asyncio.run(_rate(plan, edge, generator))
            outcome["generator_lateness"] = generator.health()
        exit_code = edge.stop()
        archive = judge_recordings(edge)
        lines = Counter(line["event"] for line in edge.audit())
    failures: Counter[str] = outcome.pop("failures")
    if archive.complete != plan.calls:
        failures["recordings missing or not complete"] += plan.calls - archive.complete
    if archive.silent:
        failures["recordings without sound"] += archive.silent
    if exit_code:
        failures[f"serve ended with {exit_code}"] += 1
    return {
        "plan": {"per_second": plan.per_second, "seconds": plan.seconds, "held_s": plan.held_s},
        "calls": plan.calls,
        "failures": sum(failures.values()),
        "failures_by_kind": dict(failures),
        "recordings_complete": archive.complete,
        "audit_events": dict(lines),
        **outcome,
    }


async def _rate(plan: RatePlan, edge: Edge, generator: Generator) -> dict[str, Any]:
    failures: Counter[str] = Counter()
    times: list[float] = []
    async with parties(edge, generator) as pair:
        began = time.monotonic()
        tasks, late_s = [], 0.0
        for number in range(plan.calls):
            due = began + number / plan.per_second
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            late_s = max(late_s, time.monotonic() - due)
            tasks.append(asyncio.create_task(_one_call(plan, pair, failures, times)))
        offered_s = time.monotonic() - began
        await asyncio.gather(*tasks)
    return {
        "failures": failures,
        "offered_per_second": round(plan.calls / offered_s, 2),
        "caller_late_ms": round(late_s * 1000, 1),
        "set_up_ms": _spread(times) if times else {},
    }


async def _one_call(plan: RatePlan, pair: Parties, failures: Counter[str], times: list[float]) -> None:
    try:
        call = await pair.call()
        times.append(invite_to_200_ms(pair.caller, call))
        await asyncio.sleep(plan.held_s)
        response = await call.hang_up(timeout_s=ANSWER_S)
        counts = call.stream.total  # type: ignore[attr-defined]  # a GeneratedStream
    except DemoError as error:
        failures[f"{type(error).__name__}: {error}"] += 1
        return
    if response.status != 200:
        failures[f"BYE answered with {response.status}"] += 1
    due = plan.held_s / PACKET_S
    if counts.received < 0.8 * due or counts.voiced < 0.3 * due:  # the programme has pauses
        failures["call with too little sound"] += 1


def _spread(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {
        "median": round(statistics.median(ordered), 2),
        "p95": round(ordered[int(len(ordered) * 0.95)], 2) if len(ordered) > 1 else ordered[0],
        "max": round(ordered[-1], 2),
    }
