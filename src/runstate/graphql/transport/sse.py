"""GraphQL over server-sent events: graphql-sse with a connection for each operation."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any, Final

from graphql import GraphQLError
from starlette.responses import StreamingResponse
from strawberry.types.execution import ExecutionResult, PreExecutionError

from runstate.core.access.credentials import UNRESTRICTED, Principal
from runstate.errors import ServerRestarting, Unauthenticated
from runstate.graphql.types.scalars import dumped

EVENTS: Final = "text/event-stream"
HEARTBEAT_SECONDS: Final = 12.0
HEARTBEAT: Final = b":\n\n"
COMPLETE: Final = b"event: complete\ndata:\n\n"
HEADERS: Final = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}
END: Final = object()

Results = AsyncGenerator[Any, None]


def streamed(
    results: Results,
    *,
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
    principal: Principal = UNRESTRICTED,
    request_id: str = "",
) -> StreamingResponse:
    """The results of an operation as events, as they come; a comment now and then while there are none.

    Once who asked may do nothing any more, an error says so and nothing more comes.
    """
    extensions = {"code": Unauthenticated.code, "requestId": request_id}
    farewell = PreExecutionError(None, [GraphQLError(Unauthenticated().message, extensions=extensions)])
    beating = _beating(results, heartbeat_seconds, principal, farewell)
    return StreamingResponse(_events(results, beating), media_type=EVENTS, headers=HEADERS)


async def _events(results: Results, beats: Results) -> AsyncGenerator[bytes, None]:
    """Ends without an event when the server goes away, so that clients connect again."""
    async with aclosing(results), aclosing(beats) as beating:
        async for result in beating:
            if result is None:
                yield HEARTBEAT
            elif goes_away(result):
                return
            else:
                yield b"event: next\ndata: " + dumped(body_of(result)) + b"\n\n"
    yield COMPLETE


async def _beating(
    results: Results, seconds: float, principal: Principal, farewell: ExecutionResult
) -> AsyncGenerator[ExecutionResult | None, None]:
    """The results, and None whenever there is none for so long; the farewell when the principal may do no more."""
    over = principal.over or asyncio.Event()
    ending = asyncio.ensure_future(over.wait())
    waiting: asyncio.Future[Any] | None = None
    try:
        while not over.is_set():
            waiting = waiting or asyncio.ensure_future(anext(results, END))
            done, _ = await asyncio.wait([waiting, ending], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                yield None
            elif not over.is_set():
                result, waiting = waiting.result(), None
                if result is END:
                    return
                yield result
        yield farewell
    finally:
        ending.cancel()
        if waiting:
            waiting.cancel()
            with suppress(asyncio.CancelledError):
                await waiting


def goes_away(result: ExecutionResult) -> bool:
    """Whether a result says that the server goes away, and nothing else."""
    return any((error.extensions or {}).get("code") == ServerRestarting.code for error in result.errors or ())


def body_of(result: ExecutionResult) -> dict[str, Any]:
    """Return a result as JSON; that of an operation that was not executed has no data, not even null."""
    body: dict[str, Any] = {} if isinstance(result, PreExecutionError) else {"data": result.data}
    if result.errors:
        body["errors"] = [error.formatted for error in result.errors]
    if result.extensions:
        body["extensions"] = result.extensions
    return body
