"""GraphQL over HTTP: parses requests, writes responses, and rejects invalid requests."""

import functools
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

import orjson
import structlog
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket
from strawberry import UNSET
from strawberry.asgi import GraphQL
from strawberry.exceptions import ConnectionRejectionError, MissingQueryError
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.types import ExecutionResult
from strawberry.types.execution import PreExecutionError
from strawberry.types.graphql import OperationType
from structlog.contextvars import bind_contextvars
from uuid_utils import uuid4

from runstate.database.budget import SMALL_ANSWER_BYTES
from runstate.documents import exact_json
from runstate.errors import Forbidden, Overloaded, Unauthenticated
from runstate.graphql.context import Context
from runstate.graphql.errors import Code
from runstate.graphql.execution.operation import Schema
from runstate.graphql.families import csrf
from runstate.graphql.transport.large_requests import LargeRequests
from runstate.graphql.transport.observability import Observer
from runstate.graphql.transport.request import GraphQLRequest, RefusedError, operation
from runstate.graphql.transport.sse import EVENTS, PIECE_BYTES, body_of, streamed
from runstate.graphql.transport.websocket import Adapter, Handler
from runstate.graphql.types.scalars import dumped
from runstate.negotiation import is_named, preferred

JSON: Final = "application/json"
GRAPHQL: Final = "application/graphql-response+json"
ANSWERS: Final = (JSON, GRAPHQL)
"""Media types of answers; the first one if the client has no preference."""

ALLOWED: Final = {"GET": {OperationType.QUERY}, "POST": {OperationType.QUERY, OperationType.MUTATION}}
REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")

TRACE: Final = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")
"""A `traceparent` header of W3C Trace Context. Versions after 00 may have further parts at the end."""

PREFLIGHT_HEADER: Final = "GraphQL-Require-Preflight"
PREFLIGHT: Final = {PREFLIGHT_HEADER.lower(), "apollo-require-preflight", "x-apollo-operation-name"}
"""Headers that a page of another site can send only after a preflight. A GET request needs one of them."""

COST_HEADER: Final = "GraphQL-Cost"
"""Request header; if its value is `report`, answers contain the cost of the operation."""

COME_BACK: Final = {"Retry-After": "1"}
COMES_BACK: Final = frozenset({Code.OVERLOADED.value, Code.UNAVAILABLE.value})
"""Codes of temporary errors: the response has `Retry-After`."""

MakeContext = Callable[[Request | WebSocket, str], Context]
"""Returns the context of an operation for a connection and the id of the request."""

log = structlog.get_logger(__name__)


class Incoming(Request):
    """A request whose headers are decoded once. Starlette searches all headers for each name."""

    @functools.cached_property
    def headers(self) -> Any:
        """Values of the header fields, by name in lower case."""
        # Latin-1 decodes every byte.
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in self.scope["headers"]}


class Endpoint(GraphQL[Context, None]):
    """The GraphQL endpoint: HTTP, WebSockets with graphql-transport-ws, and server-sent events."""

    graphql_transport_ws_handler_class = Handler
    websocket_adapter_class = Adapter

    schema: Schema

    def __init__(
        self, schema: Schema, make_context: MakeContext, observer: Observer, *, allowed_origins: Sequence[str] = ()
    ) -> None:
        self.limits = schema.documents.limits
        super().__init__(
            schema,
            # `runstate.web` serves GraphiQL.
            graphql_ide=None,
            subscription_protocols=[GRAPHQL_TRANSPORT_WS_PROTOCOL],
            connection_init_wait_timeout=timedelta(seconds=10),
            # The origin of a WebSocket is checked when it is opened, so sockets need no CSRF token.
            allowed_origins=allowed_origins,
            max_subscriptions_per_connection=self.limits.socket_operations,
        )
        self.make_context = make_context
        self.observer = observer
        self.large_requests = LargeRequests(self.limits.body_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102
        if scope["type"] == "http":
            response = await self.respond(Incoming(scope, receive))
            await self._send(response, scope, receive, send)
        else:
            # Strawberry serves the WebSockets.
            with self.observer.metrics.sockets.track_inprogress():
                await super().__call__(scope, receive, send)

    async def _send(self, response: Response, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a response: a large one in pieces, each when the client has taken those before it."""
        body = getattr(response, "body", b"")
        if len(body) <= SMALL_ANSWER_BYTES:
            await response(scope, receive, send)
            return
        try:
            with self.schema.room.holding(len(body)):
                await send(
                    {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers}
                )
                for start in range(0, len(body), PIECE_BYTES):
                    piece, more = body[start : start + PIECE_BYTES], start + PIECE_BYTES < len(body)
                    await send({"type": "http.response.body", "body": piece, "more_body": more})
        except Overloaded as error:
            known_as = request_id(HTTPConnection(scope))
            # A mutation was executed: a client must not simply send it again.
            code = Code.TIMEOUT if scope.get("kind") == OperationType.MUTATION.value else Code.OVERLOADED
            refused = _response(503, _fault(error.message, code, known_as), JSON)
            refused.headers.update({**COME_BACK, "X-Request-ID": known_as})
            await refused(scope, receive, send)

    async def get_context(self, request: Request | WebSocket, response: Response | WebSocket) -> Context:
        """Return the context of an operation."""
        return self._context(request, request_id(request))

    def _context(self, request: Request | WebSocket, known_as: str) -> Context:
        context = self.make_context(request, known_as)
        context.reports_cost = request.headers.get(COST_HEADER.lower()) == "report"
        return context

    async def on_ws_connect(self, context: Context) -> Any:
        """Authenticate a socket by its first message. Raise ConnectionRejectionError if its key is not valid."""
        if context.admit:
            try:
                context.principal = await context.admit(context.connection_params)
            except Unauthenticated as error:
                # Strawberry closes the socket with code 4403 for this exception.
                raise ConnectionRejectionError from error
        return UNSET

    def encode_json(self, data: object) -> str:
        """Return a WebSocket message as JSON text."""
        return dumped(data).decode()

    async def respond(self, request: Request) -> Response:
        """Return the response to a request. Every exception becomes an error response."""
        known_as = request_id(request)
        # All log lines of the request have its id.
        bind_contextvars(request_id=known_as)
        try:
            response = await self._answer(request, known_as)
        except RefusedError as refused:
            self.observer.refused(refused.code, refused.status, str(refused), known_as)
            response = _response(refused.status, _fault(str(refused), refused.code, known_as), JSON)
            response.headers.update(refused.headers)
        # A client that disconnects is no error of the server.
        except ClientDisconnect:
            log.info("client_disconnected", request_id=known_as)
            response = _response(400, _fault("The request is incomplete.", Code.BAD_REQUEST, known_as), JSON)
        except Exception:
            # Details of a bug are for the log only.
            log.exception("request_failed", request_id=known_as)
            response = _response(500, _fault("Internal error", Code.INTERNAL, known_as), JSON)
        response.raw_headers.append((b"x-request-id", known_as.encode("latin-1")))
        return response

    async def _answer(self, request: Request, known_as: str) -> Response:
        if request.method not in ALLOWED:
            raise RefusedError(405, "GraphQL requests must use GET or POST.", Allow="GET, POST")
        if request.method == "GET" and self.limits.preflight and PREFLIGHT.isdisjoint(request.headers.keys()):
            raise RefusedError(400, f"GET requests need the header `{PREFLIGHT_HEADER}`, which prevents CSRF.")
        accept = request.headers.get("accept")
        # Before the body is read: the client would not accept any answer.
        media_type = acceptable(accept)
        body = await self._content(request)
        async with self.large_requests.turn(len(body)):
            asked = operation(_parsed(body) if request.method == "POST" else _of_url(request.query_params))
            del body
            if is_named(accept, EVENTS) and wants_events(accept, self._kind(asked)):
                return await self._stream(request, asked, known_as)
            return await self._result(request, asked, known_as, media_type)

    async def _result(self, request: Request, asked: GraphQLRequest, known_as: str, media_type: str) -> Response:
        context = self._context(request, known_as)
        result = await self._execute(request, asked, context)
        request.scope["kind"] = context.kind
        body = body_of(result)
        if isinstance(result, PreExecutionError):
            return _not_executed(body, media_type)
        if not _has_code(body, COMES_BACK):
            return _response(200, body, media_type)
        status = 503 if media_type == GRAPHQL and self._has_done_nothing(asked, body) else 200
        response = _response(status, body, media_type)
        response.headers.update(COME_BACK)
        return response

    def _has_done_nothing(self, asked: GraphQLRequest, body: dict[str, Any]) -> bool:
        """Whether the whole operation can be repeated: nothing of it is answered, and it has written nothing."""
        found = self.schema.documents.find(asked.query, asked.operation_name)
        may_be_partial = found is None or (found.kind is OperationType.MUTATION and found.root_fields > 1)
        codes = {error["extensions"]["code"] for error in body["errors"]}
        return body["data"] is None and not may_be_partial and codes <= COMES_BACK

    def _kind(self, asked: GraphQLRequest) -> OperationType | None:
        found = self.schema.documents.find(asked.query, asked.operation_name)
        return found.kind if found else None

    async def _stream(self, request: Request, asked: GraphQLRequest, known_as: str) -> Response:
        # Once the stream has begun, its status cannot be 503 any more.
        if self.schema.in_flight.full:
            raise RefusedError(503, "Too many subscriptions are open.", Code.OVERLOADED, **COME_BACK)
        context = self._context(request, known_as)
        await self._check_token(request, asked, context)
        results = await self.schema.stream(
            asked.query,
            variable_values=asked.variables,
            context_value=context,
            operation_name=asked.operation_name,
            allowed_operation_types=ALLOWED[request.method] | {OperationType.SUBSCRIPTION},
            operation_extensions=asked.extensions,
        )
        watched = self.observer.stream(results, asked, context, request.headers)
        return streamed(watched, principal=context.principal, request_id=known_as, room=self.schema.room)

    async def _content(self, request: Request) -> bytes:
        """Return the body of a POST request; nothing for a GET request."""
        if request.method == "GET":
            return b""
        _check_content_type(request.headers.get("content-type", ""))
        _check_encoding(request.headers.get("content-encoding", ""))
        return await self._body(request)

    async def _body(self, request: Request) -> bytes:
        limit = self.limits.body_bytes
        too_large = RefusedError(413, f"The body of a request must not exceed {limit} bytes.")
        length = request.headers.get("content-length", "")
        # Rejected before the body is read; a chunked request has no length.
        if length.isdecimal() and int(length) > limit:
            raise too_large
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise too_large
        return bytes(body)

    async def _check_token(self, request: Request, asked: GraphQLRequest, context: Context) -> None:
        # Queries change nothing, so they need no token.
        if context.csrf and self.schema.documents.changes(asked.query, asked.operation_name):
            try:
                await csrf.check(context.csrf, request.headers)
            except Forbidden as error:
                raise RefusedError(403, error.message, Code.FORBIDDEN) from error

    async def _execute(self, request: Request, asked: GraphQLRequest, context: Context) -> ExecutionResult:
        await self._check_token(request, asked, context)
        try:
            with self.observer.operation(asked, context, request.headers) as seen:
                result = await self.schema.execute(
                    asked.query,
                    variable_values=asked.variables,
                    context_value=context,
                    operation_name=asked.operation_name,
                    allowed_operation_types=ALLOWED[request.method],
                    operation_extensions=asked.extensions,
                )
                seen.answered(result)
                return result
        except InvalidOperationTypeError as error:
            raise _not_allowed(error.operation_type) from error
        except (CannotGetOperationTypeError, MissingQueryError) as error:
            raise RefusedError(400, "The document has no operation with this name.") from error


def request_id(connection: HTTPConnection) -> str:
    """Return the id of a request: a valid `X-Request-ID`, otherwise the id of its trace, otherwise a new id."""
    if "request_id" not in connection.scope:
        # Only harmless characters, since the id is repeated in headers and logs.
        given = connection.headers.get("x-request-id")
        valid = given if given and REQUEST_ID.fullmatch(given) else None
        # Stored in the scope, so that middleware and endpoint use the same id.
        connection.scope["request_id"] = valid or _traced(connection) or str(uuid4())
    return str(connection.scope["request_id"])


def _traced(connection: HTTPConnection) -> str | None:
    given = connection.headers.get("traceparent")
    trace = TRACE.fullmatch(given) if given else None
    return trace[1] if trace else None


def acceptable(header: str | None) -> str:
    """Return the media type of an answer that is not a stream. Raise RefusedError if the client accepts none."""
    media_type = preferred(header, ANSWERS)
    if media_type is None and not is_named(header, EVENTS):
        raise RefusedError(406, f"`Accept` must list {JSON} or {GRAPHQL}, or {EVENTS} for streams.")
    return media_type or JSON


def wants_events(header: str | None, kind: OperationType | None) -> bool:
    """Return whether an operation is answered with events.

    A subscription is if the client accepts events. Others are only if it prefers events to JSON, because some clients
    list every type that they know.
    """
    return is_named(header, EVENTS) and (
        kind is OperationType.SUBSCRIPTION or preferred(header, (*ANSWERS, EVENTS)) == EVENTS
    )


# Almost all requests have one of a few content types.
@functools.lru_cache(16)
def _check_content_type(header: str) -> None:
    name, *parameters = (part.strip().lower().replace('"', "") for part in header.split(";"))
    charsets = {each for each in parameters if each.startswith("charset=")}
    # Pages of other sites cannot send this content type without a CORS preflight.
    if name != JSON or not charsets <= {"charset=utf-8", "charset=utf8"}:
        raise RefusedError(415, f"The content type of a request must be {JSON} in UTF-8.", Accept=JSON)


def _check_encoding(header: str) -> None:
    if header.strip().lower() not in {"", "identity"}:
        encodings = {"Accept-Encoding": "identity"}
        raise RefusedError(415, "The body of a request must not be compressed.", Code.BAD_REQUEST, **encodings)


def _of_url(parameters: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {name: parameters.get(name) or None for name in ("query", "operationName")}
    for name in ("variables", "extensions"):
        found[name] = _parsed(parameters[name].encode()) if parameters.get(name) else None
    return found


def _parsed(text: bytes) -> Any:
    try:
        return exact_json.loads(text)
    except orjson.JSONDecodeError as error:
        raise RefusedError(400, f"The request is not valid JSON: {error}.") from error


def _not_allowed(kind: OperationType) -> RefusedError:
    if kind is OperationType.SUBSCRIPTION:
        return RefusedError(400, "Subscriptions require a WebSocket, or `Accept: text/event-stream`.")
    return RefusedError(405, "Mutations require POST.", Allow="POST")


def _not_executed(body: dict[str, Any], media_type: str) -> Response:
    """Return the response to an operation that was rejected before its execution."""
    if _has_code(body, COMES_BACK):
        response = _response(503, body, media_type)
        response.headers.update(COME_BACK)
        return response
    # GraphQL over HTTP: a client of application/json takes any other status for the answer of a proxy.
    if media_type == JSON:
        return _response(200, body, media_type)
    return _response(403 if _has_code(body, {Code.FORBIDDEN.value}) else 400, body, media_type)


def _has_code(body: dict[str, Any], codes: Collection[str]) -> bool:
    errors = body.get("errors")
    return bool(errors) and any(error["extensions"]["code"] in codes for error in errors or ())


def _fault(message: str, code: Code, known_as: str) -> dict[str, Any]:
    return {"errors": [{"message": message, "extensions": {"code": code.value, "requestId": known_as}}]}


class Answer(Response):
    """A response with JSON. Its head is written at once, which takes Starlette longer than small answers take."""

    def __init__(self, content: bytes, status: int, media_type: str) -> None:
        self.status_code = status
        self.body = content
        self.background = None
        self.raw_headers = [
            (b"content-length", b"%d" % len(content)),
            (b"content-type", f"{media_type}; charset=utf-8".encode("latin-1")),
        ]


def _response(status: int, body: dict[str, Any], media_type: str) -> Response:
    return Answer(dumped(body), status, media_type)
