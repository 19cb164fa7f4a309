"""The one place where things are put together; the lifespan opens and closes them."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from uuid_utils.compat import uuid7

from runstate.core.desk import Desk
from runstate.database import Database
from runstate.database.migrate import migrate
from runstate.graphql.context import Context
from runstate.graphql.http import Endpoint
from runstate.graphql.schema import build_schema
from runstate.settings import Settings


def clock() -> datetime:
    """The time."""
    return datetime.now(UTC)


def build_app(settings: Settings) -> Starlette:
    """The application. What its lifespan opens is found in `app.state`."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        database = Database(settings.database_url, statement_timeout_seconds=settings.statement_timeout_seconds)
        try:
            await migrate(database)
            app.state.database = database
            app.state.desk = Desk(database, clock=clock, draw=random.random, new_id=uuid7)
            yield
            await app.state.desk.close()
        finally:
            await database.close()

    endpoint = Endpoint(build_schema(), make_context, body_limit=settings.body_limit_bytes)
    routes = [
        Route("/graphql", endpoint),
        WebSocketRoute("/graphql", endpoint),
        Route("/health", health),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


def make_context(connection: Request | WebSocket, request_id: str) -> Context:
    """The context of an operation."""
    state = connection.app.state
    return Context(state.database, clock, request_id=request_id, desk=state.desk)


async def health(_: Request) -> Response:
    """Whether the server runs."""
    return JSONResponse({"status": "ok"})
