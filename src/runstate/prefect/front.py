"""The application below `/api`: finds the endpoint of a request, checks it, and writes its answer."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route, Router, WebSocketRoute
from starlette.types import Receive, Scope, Send
from websockets.frames import CloseCode

from runstate.core.access.credentials import UNRESTRICTED, Principal
from runstate.errors import Forbidden, LimitExceeded, Overloaded
from runstate.graphql.transport.http import request_id
from runstate.graphql.transport.large_requests import LargeRequests
from runstate.prefect import endpoints as package
from runstate.prefect.csrf import check_token
from runstate.prefect.endpoint import ENDPOINTS, Call, Endpoint, Reply
from runstate.prefect.presentation import as_json
from runstate.prefect.refusals import refusal
from runstate.prefect.sockets import SOCKETS
from runstate.prefect.versions import version_of

PREFIX: Final = "/api"
BODIES: Final = 8
"""Size of the largest body, in bodies of GraphQL: the client sends up to 4 MB of logs at once."""
AT_ONCE: Final = 16
"""Size of all bodies in memory, in largest bodies."""
IDS: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
NO_CONTENT: Final = 204

Counted = Callable[[str, str, int], None]
"""Counts an answer, by method, path of the endpoint and status."""


class Front:
    """The endpoints as one application."""

    def __init__(self, body_bytes: int, counted: Counted, missed: Callable[[str], None]) -> None:
        for module in iter_modules(package.__path__):
            import_module(f"{package.__name__}.{module.name}")
        self.largest = BODIES * body_bytes
        self.large_requests = LargeRequests(self.largest)
        self.held = 0
        """Bytes of the bodies of all requests."""
        self.counted = counted
        self.missed = missed
        # Paths without parameters first: `/flows/filter` is not a flow.
        declared = sorted(ENDPOINTS, key=lambda each: each.path.count("{"))
        # A router for each method: a known path with another method is as unknown as any other.
        routes: dict[str, list[BaseRoute]] = {"": [WebSocketRoute(path, socket) for path, socket in SOCKETS.items()]}
        for each in declared:
            route = Route(each.path.rstrip("/"), self._handler(each), methods=[each.method])
            routes.setdefault(each.method, []).append(route)
        self.routers = {
            method: Router(found, redirect_slashes=False, default=self._unknown) for method, found in routes.items()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request. A slash at the end of the path makes no difference."""
        answer = self.routers.get(scope.get("method", ""), self._unknown)
        await answer({**scope, "path": scope["path"].rstrip("/")}, receive, send)

    async def _unknown(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            # Refused before it is accepted: the client reads status 403.
            await send({"type": "websocket.close", "code": CloseCode.NORMAL_CLOSURE})
            return
        named = f"{scope['method']} {IDS.sub('{id}', scope['path'])}"
        self.missed(named)
        text = f"runstate does not serve {named}. docs/prefect.md lists what it serves."
        await _written(Reply({"detail": text}, 404))(scope, receive, send)

    def _handler(self, endpoint: Endpoint) -> Callable[[Request], Any]:
        async def handle(request: Request) -> Response:
            known_as = request_id(request)
            try:
                reply = await self._reply(endpoint, request, known_as)
            except Exception as error:  # every failure has an answer
                reply = refusal(error, known_as)
            self.counted(endpoint.method, endpoint.path, reply.status)
            return _written(reply)

        return handle

    async def _reply(self, endpoint: Endpoint, request: Request, known_as: str) -> Reply:
        principal: Principal = request.scope.get("principal", UNRESTRICTED)
        if endpoint.scope not in principal.scopes:
            raise Forbidden(f"The key lacks the scope `{endpoint.scope}`.")
        version_of(request.headers)
        await check_token(request)
        call = Call(request, principal, known_as)
        with request.app.state.in_flight.operation():
            if endpoint.body is None:
                content = await endpoint.handler(call)
            else:
                async with self._body(request) as body, self.large_requests.turn(len(body)):
                    call.body_bytes = len(body)
                    content = await endpoint.handler(call, endpoint.content(body))
        return content if isinstance(content, Reply) else Reply(content, endpoint.status)

    @asynccontextmanager
    async def _body(self, request: Request) -> AsyncIterator[bytes]:
        """Yield a body. Raise LimitExceeded if it is too large, Overloaded if all bodies together are."""
        body = bytearray()
        try:
            async for chunk in request.stream():
                body += chunk
                self.held += len(chunk)
                if len(body) > self.largest:
                    raise LimitExceeded("bytes", self.largest)
                if self.held > AT_ONCE * self.largest:
                    raise Overloaded("Too many large requests are under way; try again.")
            yield bytes(body)
        finally:
            self.held -= len(body)


def _written(reply: Reply) -> Response:
    if reply.status == NO_CONTENT:
        return Response(status_code=NO_CONTENT)
    return Response(as_json(reply.content), reply.status, reply.headers, "application/json")


def routes(body_bytes: int, counted: Counted, missed: Callable[[str], None]) -> list[BaseRoute]:
    """Return the routes of the API."""
    return [Mount(PREFIX, Front(body_bytes, counted, missed))]
