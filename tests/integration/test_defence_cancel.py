"""A CANCEL ends the attempt of the trunk that made it, and of no other that learned its branch."""

from __future__ import annotations

from dataclasses import replace

import pytest

from b2bua.demo.call import EndCause
from b2bua.demo.dialog import hop_request, new_tag
from b2bua.demo.sip_message import Header
from support.edge import Edge
from support.endpoint import run


@pytest.mark.parametrize("own_call_id", [False, True], ids=["its Call-ID", "a Call-ID of one's own"])
def test_a_cancel_of_another_trunks_invite_is_refused(served: Edge, own_call_id: bool) -> None:
    """A CANCEL is matched by its branch: whoever learned that must still come the way the INVITE came."""

    async def scenario() -> None:
        async with served.parties() as p:
            call = await p.invite()
            other = await p.callee.next_call()
            other.ring()
            await call.wait_status(180)
            stranger = await served.connect(p.callee)
            cancel = hop_request(call.invite, "CANCEL")
            if own_call_id:
                renamed = (
                    Header(h.name, new_tag() if h.name == "Call-ID" else h.value) for h in cancel.headers
                )
                cancel = replace(cancel, headers=tuple(renamed))
            refused = await p.callee.begin(stranger, cancel).final()
            assert refused.status == 481
            await other.answer()
            await call.wait_answered()
            await call.stream.wait_heard(0.3, timeout_s=5)
            await call.hang_up()
            await other.wait_ended()

            call = await p.invite()
            other = await p.callee.next_call()
            other.ring()
            await call.wait_status(180)
            assert (await call.cancel().final()).status == 200
            assert (await call.wait_final()).status == 487
            assert (await other.wait_ended()).cause is EndCause.CANCELLED

    run(scenario())


def test_the_refusal_is_audited(served: Edge) -> None:
    reasons = [line["reason"] for line in served.audit() if line["event"] == "request_refused"]
    assert reasons == ["foreign_cancel", "foreign_cancel"]
