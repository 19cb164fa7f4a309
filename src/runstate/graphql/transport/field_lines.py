"""Header fields in several lines (RFC 9110, 5.3)."""

from collections.abc import Sequence
from typing import Final

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from runstate.errors import BadRequest
from runstate.graphql.transport.authentication import refusal

HOST: Final = b"host"
Headers = Sequence[tuple[bytes, bytes]]


class FieldLines:
    """Joins the lines of each header field, and rejects requests with two Host lines.

    Proxies and servers disagree on which of two Host lines counts, so neither can be trusted.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or reject it."""
        lines = scope.get("headers", ())
        # Most requests have one line for each field, and are not copied.
        if len(lines) > len(dict(lines)):
            if sum(name == HOST for name, _ in lines) > 1:
                error = BadRequest("A request must not have more than one Host line.")
                await refusal(HTTPConnection(scope), error)(scope, receive, send)
                return
            scope["headers"] = joined(lines)
        await self.app(scope, receive, send)


def joined(lines: Headers) -> Headers:
    """Return each header field once, with commas between the values of its lines."""
    fields: dict[bytes, list[bytes]] = {}
    for name, value in lines:
        fields.setdefault(name, []).append(value)
    return [(name, b", ".join(values)) for name, values in fields.items()]
