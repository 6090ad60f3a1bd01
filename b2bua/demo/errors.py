"""What the demonstration endpoint, the scorer and the demonstration itself raise.

Split by what the catcher does: a malformed message closes a connection, a refused session is answered or hung up,
a wait that ran out fails the test or the demonstration that waited. The ones that end `b2bua demo` own an exit code.
"""

from __future__ import annotations

from b2bua.errors import B2BUAError


class DemoError(B2BUAError):
    """The demonstration could not be run to its end. Abstract: one of the below is raised."""

    exit_code = 90


class SIPParseError(DemoError):
    """Bytes from the peer are not a SIP message."""


class SDPError(DemoError):
    """A session description is malformed, or offers nothing this endpoint may use."""


class RTPError(DemoError):
    """A datagram is not the RTP packet or telephone event it should be."""


class ConnectionClosedError(DemoError):
    """The TLS connection ended while something was still expected on it."""


class WaitTimeoutError(DemoError):
    """An awaited event did not come in time; the message names the event."""


class CallRefusedError(DemoError):
    """The far end answered the INVITE with a final status of 300 or more."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"the call was refused with {status} {reason}")
        self.status = status
        self.reason = reason


class SpeechError(DemoError):
    """The folder of recorded speech is missing, or holds too little to fill a programme."""

    exit_code = 91


class DemoProcessError(DemoError):
    """A process of the demonstration (server, endpoint, `recordings` command) failed or did not get ready."""

    exit_code = 92


class ScoreError(DemoError):
    """What was heard or recorded is not what was said, or TLS, SRTP or the recording is not as promised."""

    exit_code = 93
