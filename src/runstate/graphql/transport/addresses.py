"""The entrance: requests from networks that the IP allowlist refuses get status 403."""

import re
from collections.abc import Callable, Sequence
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from runstate.core.access.allowlist import Address, Network, address_of
from runstate.graphql.errors import Code

CLOSE_FORBIDDEN: Final = 4403
"""Close code of a WebSocket that is refused."""
SCHEMES: Final = {"http": "ws", "https": "wss"}
"""Schemes of WebSockets by those of requests."""
PORT: Final = re.compile(r"^(?:\[([^\]]*)\](?::\d+)?|([^:]*):\d+)$")
"""An address in brackets, or with the port that some proxies add."""


class AddressFilter:
    """ASGI middleware before authentication. It asks `app.state.allowlist`, except for open paths."""

    def __init__(
        self, app: ASGIApp, *, is_open: Callable[[Scope], bool], trusted_proxies: Sequence[Network] = ()
    ) -> None:
        self.app = app
        self.is_open = is_open
        self.trusted_proxies = trusted_proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] in ("http", "websocket"):
            address = client_address(scope, self.trusted_proxies)
            if self.trusted_proxies:
                self._adopt_scheme(scope)
            scope.setdefault("state", {})["address"] = address
            if not self.is_open(scope) and not scope["app"].state.allowlist.admits(address):
                await self._refuse(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _adopt_scheme(self, scope: Scope) -> None:
        """Set the scheme that the client used, if a trusted proxy names it."""
        client = scope.get("client")
        peer = address_of(client[0]) if client else None
        said = Headers(scope=scope).get("x-forwarded-proto", "").strip()
        if peer and said in SCHEMES and _is_within(peer, self.trusted_proxies):
            scope["scheme"] = SCHEMES[said] if scope["type"] == "websocket" else said

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            # Before the handshake is accepted, this is an HTTP response with status 403.
            await send({"type": "websocket.close", "code": CLOSE_FORBIDDEN, "reason": "The address is not allowed."})
            return
        error = {"message": "The address is not allowed.", "extensions": {"code": Code.FORBIDDEN.value}}
        await JSONResponse({"errors": [error]}, status_code=403)(scope, receive, send)


def client_address(scope: Scope, trusted_proxies: Sequence[Network]) -> Address | None:
    """Return the address of the client: the peer, or behind trusted proxies the last other one in X-Forwarded-For."""
    client = scope.get("client")
    address = address_of(client[0]) if client else None
    if address is None or not _is_within(address, trusted_proxies):
        return address
    hops = ",".join(Headers(scope=scope).getlist("x-forwarded-for")).split(",")
    for hop in reversed([each.strip() for each in hops if each.strip()]):
        named = address_of(PORT.sub(r"\1\2", hop))
        if named is None:
            # What stands before it can be the client's own text.
            break
        address = named
        if not _is_within(address, trusted_proxies):
            break
    return address


def _is_within(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)
