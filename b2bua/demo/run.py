"""The demonstration: one real call recorded `mixed`, once more `split`, verified, exported, scored and told in a table.

Everything runs as a user would run it: `b2bua init`, `b2bua serve`, `b2bua recordings`, and two endpoints, each in a
process of its own.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from b2bua.demo import recorded
from b2bua.demo.children import EndpointChild, command, endpoint, serving
from b2bua.demo.deployment import (
    CALLED_NUMBER,
    CALLING_NUMBER,
    Deployment,
    Material,
    is_made,
    read_deployment,
)
from b2bua.demo.errors import DemoError, SpeechError
from b2bua.demo.frames import Report
from b2bua.demo.process import Task
from b2bua.demo.report import CallReport, DemoReport, LegReport, RecordingReport
from b2bua.demo.score import Score, SplitScore, score_heard, score_mixed, score_split
from b2bua.demo.speech import PROGRAMME_S

LAYOUTS: Final = ("mixed", "split")
_ANSWER_S: Final = 30.0
_END_S: Final = 15.0
_FETCH: Final = Path(__file__).resolve().parents[2] / "packaging" / "speech" / "fetch.py"

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """What to run. `speech` None fetches the recorded prompts first."""

    directory: Path = Path("demo")
    speech: Path | None = None
    seconds: float = PROGRAMME_S


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heard:
    """The two endpoints' results of one call."""

    caller: Report
    callee: Report


def run_demo(settings: DemoSettings, progress: Progress) -> DemoReport:
    """Run the whole demonstration; blocks for about half a minute.

    Args:
        settings: where and with what.
        progress: told a sentence before each step.

    Raises:
        DemoError: a step could not be done. A step that was done badly is a fault in the report instead.
    """
    speech = settings.speech or _fetch_speech(progress)
    return asyncio.run(_run(settings, speech, progress))


async def _run(settings: DemoSettings, speech: Path, progress: Progress) -> DemoReport:
    directory = settings.directory.absolute()
    if not is_made(directory):
        progress(f"making a development CA, certificates, keys and a configuration in {directory}")
        await command("init", str(directory), "--free-ports", "--json")
    deployment = read_deployment(directory)
    calls = [await _call(deployment, layout, speech, settings.seconds, progress) for layout in LAYOUTS]
    return DemoReport(calls=tuple(calls))


async def _call(
    deployment: Deployment, layout: str, speech: Path, seconds: float, progress: Progress
) -> CallReport:
    configuration = deployment.configurations[layout]
    known = await recorded.file_ids(configuration)
    progress(f"{layout}: starting the server")
    async with serving(configuration):
        heard = await _converse(deployment, layout, speech, seconds, progress)
        progress(f"{layout}: stopping the server, which completes the recording")
    progress(f"{layout}: verifying and exporting the recording")
    found = await recorded.verify_new(configuration, known)
    wav = deployment.wav_path(layout, found.file_id)
    samples = await recorded.export(configuration, found.file_id, wav)
    progress(f"{layout}: scoring")
    return CallReport(
        layout=layout,
        caller=_leg("caller", heard.caller, heard.callee),
        callee=_leg("callee", heard.callee, heard.caller),
        recording=RecordingReport(
            call_uid=found.call_uid,
            file_id=found.file_id,
            records=found.records,
            state=found.state,
            key_id=found.key_id,
            wav=wav,
            score=_recording_score(layout, samples, heard),
        ),
    )


async def _converse(
    deployment: Deployment, layout: str, speech: Path, seconds: float, progress: Progress
) -> _Heard:
    """Place the call, let both programmes run, hang up (the called side in `split`), and take both results."""
    callee_task = _task(
        "callee", deployment.callee, speech, seconds, port=deployment.callee_port, user=CALLED_NUMBER
    )
    caller_task = _task(
        "caller", deployment.caller, speech, seconds, port=deployment.sip_port,
        user=CALLING_NUMBER, server_name=deployment.server_name, uri=deployment.request_uri,
    )  # fmt: skip
    async with endpoint(callee_task) as callee:
        await callee.expect("listening", _ANSWER_S)
        progress(f"{layout}: calling")
        async with endpoint(caller_task) as caller:
            await _both(caller, callee, "answered", _ANSWER_S)
            progress(f"{layout}: both sides speak for {seconds:.0f} s")
            await _both(caller, callee, "spoken", seconds + _ANSWER_S)
            (callee if layout == "split" else caller).command("hang_up")
            caller_result, callee_result = await _both(caller, callee, "result", _END_S)
    return _Heard(caller=caller_result, callee=callee_result)


async def _both(
    caller: EndpointChild, callee: EndpointChild, event: str, timeout_s: float
) -> tuple[Report, Report]:
    """Wait for one event of both sides; the first failure counts, and cancels the other wait."""
    try:
        async with asyncio.TaskGroup() as group:
            waits = [group.create_task(child.expect(event, timeout_s)) for child in (caller, callee)]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures
    return waits[0].result(), waits[1].result()


def _task(
    role: str,
    material: Material,
    speech: Path,
    seconds: float,
    *,
    port: int,
    user: str,
    server_name: str = "",
    uri: str = "",
) -> Task:
    return Task(
        role=role,
        certificate=str(material.certificate),
        private_key=str(material.private_key),
        authority=str(material.authority),
        speech=str(speech),
        seconds=seconds,
        port=port,
        server_name=server_name,
        uri=uri,
        user=user,
    )


def _leg(side: str, own: Report, other: Report) -> LegReport:
    facts = own.facts
    return LegReport(
        side=side,
        tls=str(facts["tls"]),
        cipher=str(facts["cipher"]),
        suite=str(facts["suite"]),
        sent=int(facts["sent"]),
        sent_late=int(facts["sent_late"]),
        received=int(facts["received"]),
        lost=int(facts["lost"]),
        auth_failures=int(facts["auth_failures"]),
        plaintext=int(facts["plaintext"]),
        heard=score_heard(own.audio[0], other.audio[1]),
    )


def _recording_score(layout: str, samples: recorded.Samples, heard: _Heard) -> Score | SplitScore:
    wanted = 2 if layout == "split" else 1
    if samples.shape[1] != wanted:
        raise DemoError(f"the {layout} recording has {samples.shape[1]} channels instead of {wanted}")
    if layout == "split":
        return score_split(samples, heard.caller.audio[1], heard.callee.audio[1])
    return score_mixed(samples[:, 0], heard.caller.audio[0], heard.callee.audio[0])


def _fetch_speech(progress: Progress) -> Path:
    """Run the packaging script that fetches Debian's prompts into the cache and prints their folder."""
    progress("fetching recorded speech")
    if not _FETCH.exists():
        raise SpeechError(
            "there is no packaging/speech/fetch.py here; give the folder of prompts with --speech"
        )
    done = subprocess.run([sys.executable, str(_FETCH)], stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603
    if done.returncode != 0 or not done.stdout.strip():
        raise SpeechError(f"{_FETCH} failed with {done.returncode}; see its message above")
    return Path(done.stdout.strip())
