"""GraphQL over server-sent events: the protocol graphql-sse, with one connection for each operation."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any, Final

from graphql import GraphQLError
from starlette.responses import StreamingResponse
from strawberry.types.execution import ExecutionResult, PreExecutionError

from runstate.core.access.credentials import UNRESTRICTED, Principal
from runstate.database.budget import ANSWER_BYTES, ANSWERS_AT_ONCE, Room
from runstate.errors import Overloaded, ServerRestarting, Unauthenticated
from runstate.graphql.types.scalars import dumped

EVENTS: Final = "text/event-stream"
HEARTBEAT_SECONDS: Final = 12.0
HEARTBEAT: Final = b":\n\n"
COMPLETE: Final = b"event: complete\ndata:\n\n"
# `X-Accel-Buffering` keeps nginx from holding events back.
HEADERS: Final = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}
END: Final = object()
PIECE_BYTES: Final = 2**16
"""Largest number of bytes that are sent at once. The next ones are sent when the client has taken these."""

Results = AsyncGenerator[Any, None]


def streamed(
    results: Results,
    *,
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
    principal: Principal = UNRESTRICTED,
    request_id: str = "",
    room: Room | None = None,
) -> StreamingResponse:
    """Return a response with the results of an operation as events, and comments while no result comes.

    The comments keep proxies from closing an idle connection. When the key of the client is revoked or expires, an
    error is sent and the stream ends.
    """
    extensions = {"code": Unauthenticated.code, "requestId": request_id}
    revoked = PreExecutionError(None, [GraphQLError(Unauthenticated().message, extensions=extensions)])
    beating = _beating(results, heartbeat_seconds, principal, revoked)
    events = _events(results, beating, room or Room(ANSWERS_AT_ONCE * ANSWER_BYTES), request_id)
    return StreamingResponse(events, media_type=EVENTS, headers=HEADERS)


async def _events(results: Results, beats: Results, room: Room, request_id: str) -> AsyncGenerator[bytes, None]:
    """Yield the events, large ones in pieces. If the server stops, end without `complete`: clients connect again."""
    async with aclosing(results), aclosing(beats) as beating:
        async for result in beating:
            if result is None:
                yield HEARTBEAT
            elif goes_away(result):
                return
            else:
                async for piece in _event(result, room, request_id):
                    yield piece
    yield COMPLETE


async def _event(result: ExecutionResult, room: Room, request_id: str) -> AsyncGenerator[bytes, None]:
    event = _written(result)
    try:
        with room.holding(len(event)):
            for start in range(0, len(event), PIECE_BYTES):
                yield event[start : start + PIECE_BYTES]
    except Overloaded as error:
        extensions = {"code": error.code, "requestId": request_id}
        yield _written(PreExecutionError(None, [GraphQLError(error.message, extensions=extensions)]))


def _written(result: ExecutionResult) -> bytes:
    return b"event: next\ndata: " + dumped(body_of(result)) + b"\n\n"


async def _beating(
    results: Results, seconds: float, principal: Principal, revoked: ExecutionResult
) -> AsyncGenerator[ExecutionResult | None, None]:
    """Yield the results, None after each idle interval, and `revoked` once the principal's access ends."""
    over = principal.over or asyncio.Event()
    ending = asyncio.ensure_future(over.wait())
    waiting: asyncio.Future[Any] | None = None
    try:
        while not over.is_set():
            # Kept after a timeout, because cancelling it would end the generator.
            waiting = waiting or asyncio.ensure_future(anext(results, END))
            done, _ = await asyncio.wait([waiting, ending], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                yield None
            elif not over.is_set():
                result, waiting = waiting.result(), None
                if result is END:
                    return
                yield result
        yield revoked
    finally:
        ending.cancel()
        # A generator cannot be closed while its `anext` is running.
        if waiting:
            waiting.cancel()
            with suppress(asyncio.CancelledError):
                await waiting


def goes_away(result: ExecutionResult) -> bool:
    """Return whether a result only says that the server is stopping."""
    return any((error.extensions or {}).get("code") == ServerRestarting.code for error in result.errors or ())


def body_of(result: ExecutionResult) -> dict[str, Any]:
    """Return a result as JSON. That of an operation that was not executed has no `data`, not even null."""
    body: dict[str, Any] = {} if isinstance(result, PreExecutionError) else {"data": result.data}
    if result.errors:
        body["errors"] = [error.formatted for error in result.errors]
    if result.extensions:
        body["extensions"] = result.extensions
    return body
