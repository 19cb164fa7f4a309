"""WebSockets of the client: the handshake, the limits, and the declaration of their paths."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import nullcontext, suppress
from typing import Any, Final, TypeVar

import orjson
from starlette.websockets import WebSocket, WebSocketDisconnect

from runstate.core.access import keys
from runstate.core.access.credentials import UNRESTRICTED, CredentialCache, Principal
from runstate.documents.access import Scope
from runstate.errors import Forbidden, RunstateError, Unauthenticated

SUBPROTOCOL: Final = "prefect"
REFUSED: Final = 1008
"""Close code of a client that is not admitted, or not any more."""
LATER: Final = 1013
"""Close code of a server that cannot serve the client now: it has too many subscriptions, or no database."""
LONGEST_REASON: Final = 123
"""Maximum number of bytes of the reason in a close frame (RFC 6455)."""
HANDSHAKE_SECONDS: Final = 10.0
"""Seconds for which a client may wait with its first message."""

Handler = Callable[[WebSocket, Principal], Coroutine[Any, Any, None]]
S = TypeVar("S", bound=Handler)
SOCKETS: Final[dict[str, Callable[[WebSocket], Awaitable[None]]]] = {}
"""The declared sockets, by path."""


def socket(path: str, scope: Scope, *, is_subscription: bool = True) -> Callable[[S], S]:
    """Return a decorator that declares the handler of a socket. It gets the socket after the handshake.

    A subscription counts against the largest number of open subscriptions.
    """

    def decorate(handler: S) -> S:
        async def serve(websocket: WebSocket) -> None:
            counted = websocket.app.state.in_flight.subscription if is_subscription else nullcontext
            with suppress(WebSocketDisconnect):
                try:
                    principal = await admitted(websocket, scope)
                    with counted():
                        await _while_valid(websocket, principal, handler(websocket, principal))
                except RunstateError as error:
                    is_refused = isinstance(error, Unauthenticated | Forbidden)
                    await close(websocket, REFUSED if is_refused else LATER, error.message)

        SOCKETS[path] = serve
        return handler

    return decorate


async def admitted(websocket: WebSocket, scope: Scope) -> Principal:
    """Accept a socket and return its client. Raise Unauthenticated or Forbidden if it is not admitted."""
    speaks = SUBPROTOCOL in websocket.scope["subprotocols"]
    await websocket.accept(SUBPROTOCOL if speaks else None)
    credentials: CredentialCache | None = websocket.app.state.credentials
    if not speaks and credentials is None:
        # A client without the subprotocol sends no handshake.
        return UNRESTRICTED
    try:
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            token = _token(await received(websocket))
    except TimeoutError:
        raise Unauthenticated from None
    principal = await _principal(credentials, websocket.headers.get("authorization"), token)
    if scope not in principal.scopes:
        raise Forbidden(f"The key lacks the scope `{scope}`.")
    await websocket.send_text('{"type":"auth_success"}')
    return principal


async def _while_valid(websocket: WebSocket, principal: Principal, serving: Coroutine[Any, Any, None]) -> None:
    """Serve a client until its key is revoked or expires."""
    if principal.over is None:
        await serving
    elif not await is_first(serving, principal.over.wait()):
        await close(websocket, REFUSED, "The key was revoked or has expired.")


async def is_first(work: Coroutine[Any, Any, Any], end: Coroutine[Any, Any, Any]) -> bool:
    """Run two coroutines until one of them is done, and cancel the other. Return whether the first one was done."""
    tasks = [asyncio.ensure_future(each) for each in (work, end)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        is_done = tasks[0].done()
    finally:
        for each in tasks:
            each.cancel()
        ended, _ = await asyncio.gather(*tasks, return_exceptions=True)
    if is_done and isinstance(ended, BaseException):
        raise ended
    return is_done


async def received(websocket: WebSocket) -> str:
    """Return the text of the next message; an empty one if the message is binary."""
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1006))
    return message.get("text") or ""


async def until_closed(websocket: WebSocket) -> None:
    """Wait until the client, which has nothing more to say, leaves."""
    with suppress(WebSocketDisconnect):
        while True:
            await received(websocket)


async def close(websocket: WebSocket, code: int, reason: str) -> None:
    """Close a socket, unless the client has left. A reason that is too long is cut."""
    with suppress(WebSocketDisconnect, RuntimeError):
        await websocket.close(code, reason.encode(errors="ignore")[:LONGEST_REASON].decode(errors="ignore"))


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
