"""A client of the application: over HTTP, in this process, between its start and its shutdown."""

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import httpx
from starlette.applications import Starlette

Message = MutableMapping[str, Any]
IS_ASKING = ContextVar("IS_ASKING", default=False)
"""Whether code runs for an operation of an `Ask`, and not in the background of the application."""


class Ask:
    """Sends operations over HTTP: `data = await ask("query($id: ID!) { … }", id=…)`.

    Errors in the response fail the test.
    """

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def __call__(self, document: str, /, **variables: Any) -> Any:
        """Return the data of a response; AssertionError: it has errors."""
        body = await self.raw(document, **variables)
        if body.get("errors"):
            raise AssertionError(body["errors"])
        return body["data"]

    async def raw(self, document: str, /, **variables: Any) -> dict[str, Any]:
        """Return the whole response, including errors."""
        before = IS_ASKING.set(True)
        try:
            reply = await self.client.post("/graphql", json={"query": document, "variables": variables})
        finally:
            IS_ASKING.reset(before)
        body: dict[str, Any] = reply.json()
        return body


@asynccontextmanager
async def running(app: Starlette) -> AsyncIterator[None]:
    """Start the application and shut it down, both in one task, as a server does."""
    heard, said = asyncio.Queue[Message](), asyncio.Queue[Message]()
    scope: Message = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}}
    lifespan = asyncio.create_task(app(scope, heard.get, said.put))
    heard.put_nowait({"type": "lifespan.startup"})
    await _answered(said, "lifespan.startup")
    yield
    heard.put_nowait({"type": "lifespan.shutdown"})
    await _answered(said, "lifespan.shutdown")
    await lifespan


async def _answered(said: asyncio.Queue[Message], event: str) -> None:
    message = await said.get()
    if message["type"] != f"{event}.complete":
        raise AssertionError(message)


@asynccontextmanager
async def asking(app: Starlette) -> AsyncIterator[Ask]:
    """Yield a client of an application that runs in this process."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:4200", timeout=60) as client:
        yield Ask(client)
