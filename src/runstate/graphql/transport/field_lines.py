"""Header fields that come in several lines (RFC 9110, 5.3)."""

from collections.abc import Sequence
from typing import Final

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from runstate.errors import BadRequest
from runstate.graphql.transport.authentication import refusal

HOST: Final = b"host"
Headers = Sequence[tuple[bytes, bytes]]


class FieldLines:
    """Joins the lines of a header field, so that the rest reads it whole; refuses a second Host.

    Proxies and servers take different ones of two Host lines for the host, so neither can be trusted.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or have it answered."""
        lines = [*scope.get("headers", ())]
        if sum(name == HOST for name, _ in lines) > 1:
            response = refusal(HTTPConnection(scope), BadRequest("A request has one Host line."))
            await response(scope, receive, send)
            return
        if len(lines) > len(dict(lines)):
            scope["headers"] = joined(lines)
        await self.app(scope, receive, send)


def joined(lines: Headers) -> Headers:
    """Return the header fields, each once, with commas between the values of its lines."""
    fields: dict[bytes, list[bytes]] = {}
    for name, value in lines:
        fields.setdefault(name, []).append(value)
    return [(name, b", ".join(values)) for name, values in fields.items()]
