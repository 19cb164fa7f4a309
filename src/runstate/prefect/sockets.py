"""WebSockets of the client: the handshake, and the declaration of their paths."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

import orjson
from starlette.websockets import WebSocket, WebSocketDisconnect

from runstate.core.access import keys
from runstate.core.access.credentials import UNRESTRICTED, CredentialCache, Principal
from runstate.documents.access import Scope
from runstate.errors import RunstateError, Unauthenticated

SUBPROTOCOL: Final = "prefect"
REFUSED: Final = 1008
"""Close code of a client that is not admitted."""

Handler = Callable[[WebSocket, Principal], Awaitable[None]]
S = TypeVar("S", bound=Handler)
SOCKETS: Final[dict[str, Callable[[WebSocket], Awaitable[None]]]] = {}
"""The declared sockets, by path."""


def socket(path: str, scope: Scope) -> Callable[[S], S]:
    """Return a decorator that declares the handler of a socket. It gets the socket after the handshake."""

    def decorate(handler: S) -> S:
        async def serve(websocket: WebSocket) -> None:
            with suppress(WebSocketDisconnect):
                principal = await admitted(websocket, scope)
                if principal is not None:
                    await handler(websocket, principal)

        SOCKETS[path] = serve
        return handler

    return decorate


async def admitted(websocket: WebSocket, scope: Scope) -> Principal | None:
    """Accept a socket and return its client; None if it was closed because the client is not admitted."""
    speaks = SUBPROTOCOL in websocket.scope["subprotocols"]
    await websocket.accept(SUBPROTOCOL if speaks else None)
    credentials: CredentialCache | None = websocket.app.state.credentials
    if not speaks and credentials is None:
        # A client without the subprotocol sends no handshake.
        return UNRESTRICTED
    token = _token(await websocket.receive_text())
    try:
        principal = await _principal(credentials, websocket.headers.get("authorization"), token)
    except RunstateError as error:
        await websocket.close(REFUSED, error.message)
        return None
    if scope not in principal.scopes:
        await websocket.close(REFUSED, f"The key lacks the scope `{scope}`.")
        return None
    await websocket.send_text('{"type":"auth_success"}')
    return principal


async def _principal(credentials: CredentialCache | None, header: str | None, token: Any) -> Principal:
    if credentials is None:
        return UNRESTRICTED
    if isinstance(token, str) and token:
        header = f"Bearer {token}" if keys.prefix_of(token) else f"Basic {b64encode(token.encode()).decode()}"
    return await credentials.admit(header)


def _token(text: str) -> Any:
    """Return the token of the first message. Raise Unauthenticated if it is another message."""
    with suppress(ValueError):
        message = orjson.loads(text)
        if isinstance(message, dict) and message.get("type") == "auth":
            return message.get("token")
    raise Unauthenticated
