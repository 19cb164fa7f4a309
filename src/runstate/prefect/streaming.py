"""Sockets on which clients get what they have asked for in one message."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from pydantic import ValidationError
from starlette.websockets import WebSocket

from runstate.documents import exact_json
from runstate.errors import RunstateError
from runstate.prefect.bodies import Body
from runstate.prefect.sockets import close, is_first, received, until_closed

WRONG: Final = 1002
"""Close code for a message that is no filter."""
AGAIN: Final = 1012
"""Close code of a server that ends the stream; the client comes again."""

B = TypeVar("B", bound=Body)


async def stream(
    websocket: WebSocket, kind: type[B], sending: Callable[[WebSocket, B], Coroutine[Any, Any, None]]
) -> None:
    """Read a filter and send what it selects, until the client leaves or the server ends the stream."""
    try:
        wanted = kind.model_validate(exact_json.loads(await received(websocket)))
    except (ValueError, ValidationError):
        await close(websocket, WRONG, "The message is not a filter.")
        return
    try:
        await is_first(sending(websocket, wanted), until_closed(websocket))
    except RunstateError as error:
        await close(websocket, AGAIN, error.message)
