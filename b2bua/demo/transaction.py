"""Client transactions over a reliable transport: responses by branch, and the ACK of a refused INVITE.

Source: RFC 3261 section 17.1; TLS needs none of its retransmissions.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from b2bua.demo.connection import Connection
from b2bua.demo.dialog import hop_request
from b2bua.demo.errors import DemoError, WaitTimeoutError
from b2bua.demo.sip_message import SIPRequest, SIPResponse
from b2bua.demo.watch import WAIT_S, Watched

OnResponse = Callable[[SIPResponse], Awaitable[None]]


class ClientTransaction(Watched):
    """A sent request and the responses to it. `acknowledge_refusal` False leaves a refused INVITE without its ACK."""

    def __init__(
        self, connection: Connection, request: SIPRequest, *, on_response: OnResponse | None = None,
        acknowledge_refusal: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.connection = connection
        self.request = request
        self.responses: list[SIPResponse] = []
        self._on_response = on_response
        self._acknowledge_refusal = acknowledge_refusal

    @property
    def final_response(self) -> SIPResponse | None:
        """The first response of 200 or above, or None."""
        return next((response for response in self.responses if response.status >= 200), None)

    async def on_response(self, connection: Connection, response: SIPResponse) -> None:
        """Take one response; called in the order they arrive."""
        self.responses.append(response)
        if self.request.method == "INVITE" and response.status >= 300 and self._acknowledge_refusal:
            connection.send(hop_request(self.request, "ACK", to=response.require("To")))
        if self._on_response is not None:
            await self._on_response(response)
        self.changed()

    async def response(self, *, minimum: int, timeout_s: float = WAIT_S) -> SIPResponse:
        """Wait for the first response with at least this status.

        Raises:
            WaitTimeoutError: none came in time, or the connection ended before one did.
        """
        method = self.request.method

        def found() -> SIPResponse | None:
            return next((response for response in self.responses if response.status >= minimum), None)

        await self.until(
            lambda: found() is not None or self.connection.closed,
            f"response to {method}",
            timeout_s=timeout_s,
        )
        response = found()
        if response is None:
            raise WaitTimeoutError(f"connection {self.connection.id} ended before {method} was answered")
        return response

    async def final(self, *, timeout_s: float = WAIT_S) -> SIPResponse:
        """Wait for the final response.

        Raises:
            WaitTimeoutError: none came in time, or the connection ended before it did.
        """
        return await self.response(minimum=200, timeout_s=timeout_s)

    def require_final(self) -> SIPResponse:
        """The final response of a transaction known to be complete.

        Raises:
            DemoError: it is not complete.
        """
        response = self.final_response
        if response is None:
            raise DemoError(f"{self.request.method} has no final response yet")
        return response
