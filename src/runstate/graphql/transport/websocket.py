"""GraphQL over WebSockets: graphql-transport-ws. An invalid operation does not close the socket."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from functools import cached_property
from typing import Any, Final, cast

import orjson
import structlog
from graphql import GraphQLError
from starlette.websockets import WebSocketDisconnect, WebSocketState
from strawberry.asgi import ASGIWebSocketAdapter
from strawberry.http.exceptions import NonJsonMessageReceived, NonTextMessageReceived, WebSocketDisconnected
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import BaseGraphQLTransportWSHandler, Operation
from strawberry.subscriptions.protocols.graphql_transport_ws.types import (
    CompleteMessage,
    ConnectionInitMessage,
    Message,
    SubscribeMessage,
    SubscribeMessagePayload,
)
from strawberry.types.execution import ExecutionResult, PreExecutionError
from typing_extensions import override

from runstate.documents import exact_json
from runstate.errors import Overloaded
from runstate.graphql.context import Context
from runstate.graphql.errors import Code, as_known_error
from runstate.graphql.transport.observability import Observer
from runstate.graphql.transport.request import GraphQLRequest, RefusedError, operation
from runstate.graphql.transport.sse import goes_away

COMES_BACK_LATER: Final = 1013
"""Close code if the key of the client cannot be checked now."""
FORBIDDEN: Final = 4403
"""Close code if the key of the client is not valid, or no longer valid."""
COMES_BACK: Final = 1012
"""Close code if the server stops; clients connect again."""

LONGEST_REASON: Final = 123
"""Maximum number of bytes of the reason in a close frame (RFC 6455)."""

log = structlog.get_logger(__name__)


class Adapter(ASGIWebSocketAdapter):
    """A socket that can be closed repeatedly and truncates the reason, which can quote the client."""

    length = 0
    """Number of characters in the last message."""

    @cached_property
    def sending(self) -> asyncio.Lock:
        """The lock that is held from the writing of a message until the client has taken it."""
        return asyncio.Lock()

    async def until_taken(self) -> None:
        """Wait until the client has taken all messages before."""
        if self.sending.locked():
            async with self.sending:
                pass

    @override
    async def iter_json(self, *, ignore_parsing_errors: bool = False) -> AsyncGenerator[object, None]:
        with suppress(WebSocketDisconnect):
            while self.ws.application_state is not WebSocketState.DISCONNECTED:
                yield self._parsed(await self._received())

    async def _received(self) -> str:
        try:
            return await self.ws.receive_text()
        except KeyError as error:
            # Starlette raises KeyError for a binary message.
            raise NonTextMessageReceived from error

    def _parsed(self, text: str) -> object:
        # Kept for `_check_length`, because the handler gets the parsed message only.
        self.length = len(text)
        try:
            return exact_json.loads(text)
        except orjson.JSONDecodeError as error:
            raise NonJsonMessageReceived from error

    @override
    async def send_json(self, message: Mapping[str, object]) -> None:
        try:
            async with self.sending:
                sent = {"type": "websocket.send", "text": str(self.view.encode_json(message))}
                with cast("Any", self.view.schema).room.holding(len(sent["text"])):
                    await self.ws.send(sent)
        except WebSocketDisconnect as error:
            raise WebSocketDisconnected from error
        except RuntimeError as error:
            # The socket is closed already, and its handler has not noticed yet.
            raise WebSocketDisconnected from error

    @override
    async def close(self, code: int, reason: str) -> None:
        if self.ws.application_state is not WebSocketState.DISCONNECTED:
            # The limit can cut a character, and a reason can have surrogates, which UTF-8 cannot encode.
            fitting = reason.encode(errors="ignore")[:LONGEST_REASON].decode(errors="ignore")
            with suppress(WebSocketDisconnect, RuntimeError):
                await super().close(code, fitting)


class Handler(BaseGraphQLTransportWSHandler[Context, None]):
    """One socket. Each operation has a context of its own; an invalid one does not affect the others."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.view: Any
        self.observer: Observer = self.view.observer
        self.headers: Mapping[str, str] = cast("Any", self.websocket).ws.headers
        """Headers of the request that opened the socket."""
        self.restarted: set[str] = set()
        """Ids of operations that ended because the server is stopping."""
        self.guard: asyncio.Task[None] | None = None
        """Closes the socket when the client's key is revoked or expires."""

    @override
    async def handle_message(self, message: Message) -> None:
        if isinstance(message, dict):
            await super().handle_message(message)
        else:
            await self.handle_invalid_message("A message must be a JSON object")

    @override
    async def handle_connection_init(self, message: ConnectionInitMessage) -> None:
        payload = message.get("payload")
        try:
            await super().handle_connection_init(
                {"type": "connection_init", "payload": {} if payload is None else payload}
            )
        except Exception as error:
            # The database may be unavailable, for example.
            if not as_known_error(error):
                raise
            await self.websocket.close(COMES_BACK_LATER, "Try again later")
        over = self.context.principal.over
        if over and self.connection_acknowledged and not self.guard:
            self.guard = asyncio.create_task(self._end_when(over))

    async def _end_when(self, over: asyncio.Event) -> None:
        await over.wait()
        # First, so that no event is sent after the key has ended.
        for key in list(self.operations):
            await self.cleanup_operation(key)
        with suppress(WebSocketDisconnect, RuntimeError):
            # The client may have closed the socket already.
            await self.websocket.close(FORBIDDEN, "The key was revoked or has expired")

    @override
    async def shutdown(self) -> None:
        if self.guard:
            self.guard.cancel()
        await super().shutdown()

    @override
    async def handle_subscribe(self, message: SubscribeMessage) -> None:
        over = self.context.principal.over
        # The socket is about to be closed.
        if over and over.is_set():
            return
        try:
            # Otherwise the base class closes the socket.
            if self.connection_acknowledged:
                message = _checked(message)
                self._check_length()
                self._check_load()
        except RefusedError as refused:
            await self._refuse(message.get("id"), refused)
        else:
            await super().handle_subscribe(message)

    async def _refuse(self, key: object, refused: RefusedError) -> None:
        """Send an error. An id that is not a text is sent as JSON, or empty if another operation has that id."""
        known_as = key if isinstance(key, str) else orjson.dumps(key).decode()
        if known_as in self.operations:
            known_as = ""
        error = self._error(str(refused), refused.code)
        await self.send_message({"id": known_as, "type": "error", "payload": [error.formatted]})

    def _error(self, message: str, code: Code) -> GraphQLError:
        return GraphQLError(message, extensions={"code": code.value, "requestId": self.context.request_id})

    def _check_length(self) -> None:
        most = self.view.limits.body_bytes
        # Uvicorn accepts twice this length, so that a long message is an error of its operation only.
        if cast("Adapter", self.websocket).length > most:
            raise RefusedError(413, f"A message must not exceed {most} characters.")

    def _check_load(self) -> None:
        most = self.max_subscriptions_per_connection
        if most is not None and len(self.operations) >= most:
            raise RefusedError(429, f"A WebSocket can have at most {most} concurrent operations.", Code.OVERLOADED)

    @override
    async def handle_complete(self, message: CompleteMessage) -> None:
        # Only operations whose id is a text are accepted.
        if isinstance(message.get("id"), str):
            await super().handle_complete(message)

    @override
    async def run_operation(self, operation: Operation[Context, None]) -> None:
        try:
            await self._answer(operation)
        except WebSocketDisconnected:
            log.debug("client_gone", operation=operation.id)
        except Overloaded as error:
            error.__traceback__ = None  # its frames hold the message, which the client may never take
            await operation.send_initial_errors([self._error(error.message, Code.OVERLOADED)])
        except Exception:
            log.exception("operation_failed", operation=operation.id)
            await operation.send_initial_errors([self._error("Internal error", Code.INTERNAL)])
        finally:
            await self._close_if_restarted()

    async def _answer(self, operation: Operation[Context, None]) -> None:
        context = self.context.fresh()
        context.until_taken = cast("Adapter", self.websocket).until_taken
        results = await self.schema.stream(
            operation.query,
            variable_values=operation.variables,
            context_value=context,
            operation_name=operation.operation_name,
        )
        asked = GraphQLRequest(operation.query, operation.variables, operation.operation_name, None)
        async with aclosing(self.observer.stream(results, asked, context, self.headers)) as watched:
            async for result in watched:
                if goes_away(result):
                    # Without `complete`, so that the client subscribes again.
                    self.restarted.add(operation.id)
                    return
                if _is_an_end(result):
                    await operation.send_initial_errors(result.errors or [])
                    return
                await operation.send_next(result)
                del result  # the next one may come late
        await operation.send_operation_message(CompleteMessage(id=operation.id, type="complete"))

    async def _close_if_restarted(self) -> None:
        """Close the socket once all its operations have ended because the server is stopping."""
        if self.restarted and self.restarted >= self.operations.keys():
            self.restarted.clear()
            await self.websocket.close(COMES_BACK, "Service restart")


def _is_an_end(result: ExecutionResult) -> bool:
    """Return whether an operation was rejected or its stream failed. An error of a field does not end it."""
    if isinstance(result, PreExecutionError):
        return True
    return result.data is None and all(error.path is None for error in result.errors or ())


def _checked(message: SubscribeMessage) -> SubscribeMessage:
    """Return a message with a valid operation. Raise RefusedError if it has none."""
    if not isinstance(message.get("id"), str) or not message["id"]:
        raise RefusedError(400, "The id of an operation must be a text that is not empty.")
    asked = operation(message.get("payload"))
    payload: SubscribeMessagePayload = {
        "query": asked.query,
        "variables": asked.variables,
        "operationName": asked.operation_name,
        "extensions": asked.extensions,
    }
    return {**message, "payload": payload}
