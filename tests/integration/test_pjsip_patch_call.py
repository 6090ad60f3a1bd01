"""Calls of the patched pjproject: nothing of a call outlives it."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509

from support.pj_attack import Authority, Target, Victim, response


@pytest.mark.parametrize("refuse", ["CANCEL", "none"])
def test_timer_that_ends_a_call_ends_with_it(tmp_path: Path, refuse: str) -> None:
    """CANCEL cannot be sent, which starts the timer; then the callee is busy, which ends the call."""
    authority = Authority(tmp_path)
    identity = authority.issue("both", sans=[x509.DNSName("localhost")])
    with (
        Victim(ca=authority.path, cert=identity.cert, key=identity.key, refuse=refuse) as victim,
        Target(authority, identity) as target,
    ):
        victim.command(f"call sip:x@localhost:{target.port};transport=tls")
        with target.accept() as peer:
            invite = peer.receive()
            peer.send(response(invite, 180))
            victim.wait_for("STATE 0 EARLY")
            victim.command("bye")
            if refuse == "none":
                cancel = peer.receive()
                assert cancel.startswith("CANCEL ")
                peer.send(response(cancel, 200))
            during = victim.command("timers")
            peer.send(response(invite, 486))
            assert peer.receive().startswith("ACK ")
            if refuse == "CANCEL":
                assert victim.command("timers") == during - 1
        assert victim.finish() == 0
