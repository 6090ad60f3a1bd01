"""Media that is not what it was agreed to be ends the call, whatever pjmedia says of its own success.

pjmedia has a branch that passes media in clear and reports success. Its sources are patched against that: no peer can
make it happen; here the state that the process reads from it is changed on its way, in the process itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from b2bua.demo.call import EndCause
from b2bua.demo.errors import CallRefusedError
from b2bua.demo.incoming import Answering
from support.edge import Edge, edge
from support.endpoint import run

FAULT = """
import sys

if "serve" in sys.orig_argv:
    from b2bua.native import _native

    truth, calls = _native.srtp_state, 0

    def srtp_state(*arguments):
        global calls
        calls += 1
        active, sent, received = truth(*arguments)
        return {change} if calls > {after} else (active, sent, received)

    _native.srtp_state = srtp_state
"""

CHANGES = {
    "inactive": "(False, '', '')",
    "inactive by its own word only": "(False, sent, received)",
    "a suite that was not agreed, sent": "(True, 'AES_CM_128_HMAC_SHA1_80', received)",
    "a suite that was not agreed, received": "(True, sent, 'AES_CM_128_HMAC_SHA1_80')",
    "nothing received": "(True, sent, '')",
}


@contextmanager
def faulty(directory: Path, *, change: str, after: int) -> Iterator[Edge]:
    """An edge whose process reads changed SRTP states after the first `after` ones."""
    (directory / "sitecustomize.py").write_text(FAULT.format(change=change, after=after))
    path = os.pathsep.join(filter(None, [str(directory), os.environ.get("PYTHONPATH")]))
    limits = "[limits]\ndrain_deadline_s = 1\n"
    with edge(
        directory, edit=lambda text: text.replace("[limits]\n", limits), env={"PYTHONPATH": path}
    ) as running:
        yield running


@pytest.mark.parametrize("change", CHANGES)
def test_media_that_is_not_secure_at_the_answer_ends_the_attempt(tmp_path: Path, change: str) -> None:
    async def scenario(served: Edge) -> None:
        async with served.parties(Answering()) as p:
            call = await p.invite()
            with pytest.raises(CallRefusedError) as refused:
                await call.wait_answered()
            assert refused.value.status == 488
            other = await p.callee.next_call()
            assert (await other.wait_ended()).cause is EndCause.BYE
            assert served.wait_audit(lambda line: line["event"] == "call_ended")["reason"] == "media_insecure"

    with faulty(tmp_path, change=CHANGES[change], after=0) as served:
        run(scenario(served))


@pytest.mark.parametrize("change", ["inactive", "a suite that was not agreed, sent"])
def test_media_that_becomes_insecure_in_a_call_ends_it(tmp_path: Path, change: str) -> None:
    """Both legs have passed; the change comes with the re-INVITE that holds."""

    async def scenario(served: Edge) -> None:
        async with served.parties(Answering()) as p:
            call, other = await p.established()
            await call.stream.wait_heard(0.3, timeout_s=5)
            await call.hold()
            assert (await call.wait_ended()).cause is EndCause.BYE
            assert (await other.wait_ended()).cause is EndCause.BYE
            assert served.wait_audit(lambda line: line["event"] == "call_ended")["reason"] == "media_insecure"

    with faulty(tmp_path, change=CHANGES[change], after=2) as served:
        run(scenario(served))


def test_the_same_process_without_a_change_carries_the_call(tmp_path: Path) -> None:
    async def scenario(served: Edge) -> None:
        async with served.parties(Answering()) as p:
            call, other = await p.established()
            assert (await call.hold()).status == 200
            assert (await call.resume()).status == 200
            await call.stream.wait_heard(0.3, timeout_s=5)
            assert (await call.hang_up()).status == 200
            await other.wait_ended()
            ending = served.wait_audit(lambda line: line["event"] == "call_ended")
            assert ending["reason"] == "caller_hung_up"

    with faulty(tmp_path, change="(active, sent, received)", after=0) as served:
        run(scenario(served))
