"""Two replicas behind the proxy of the compose file, over TLS, with the same configuration."""

import asyncio
import os
import shutil
import socket
import ssl
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import websockets

from runstate.database import Database
from tests.client import Ask
from tests.credentials import Keys, bearing
from tests.deploying.test_files import PROXY
from tests.node import lacking
from tests.serving import Serve, Server
from tests.subscribing import PROTOCOL

PATIENCE_SECONDS = 60
FLOW = "mutation($name: String!) { createFlow(input: { name: $name }) { ... on CreateFlowPayload { flow { id } } } }"
RUN = "mutation($flow: ID!) { createFlowRun(input: { flowId: $flow }) { __typename } }"
LISTEN = "subscription { transitions { transitions { version } } }"


@dataclass(frozen=True, slots=True)
class Proxied:
    """Two servers behind a proxy."""

    servers: list[Server]
    https: int
    http: int
    key: str
    trust: ssl.SSLContext

    @property
    def url(self) -> str:
        """URL of the proxy."""
        return f"https://localhost:{self.https}"

    def client(self) -> httpx.AsyncClient:
        """Return a client with a key that trusts the proxy's certificate."""
        return httpx.AsyncClient(
            base_url=self.url, headers=bearing(self.key), verify=self.trust, timeout=PATIENCE_SECONDS
        )


@pytest.fixture
def kind() -> str:
    return "postgresql"


def free_ports(count: int) -> list[int]:
    """Return ports on loopback that are free."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@asynccontextmanager
async def caddy(environment: Mapping[str, str]) -> AsyncIterator[None]:
    """Run the proxy while the block runs."""
    command = ("caddy", "run", "--adapter", "caddyfile", "--config", str(PROXY))
    process = await asyncio.create_subprocess_exec(*command, env={**os.environ, **environment}, stderr=DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


async def root_of(file: Path, url: str) -> ssl.SSLContext:
    """Wait until the proxy has its certificate authority and healthy replicas; return a context that trusts it."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not file.exists():  # noqa: ASYNC110 there is no event to await
            await asyncio.sleep(0.05)
        trust = ssl.create_default_context(cafile=str(file))
        async with httpx.AsyncClient(verify=trust) as client:
            while True:
                try:
                    if (await client.get(f"{url}/graphql")).status_code == 401:
                        return trust
                except httpx.TransportError:
                    await asyncio.sleep(0.05)


@pytest.fixture
async def proxied(serve: Serve, url: str, tmp_path: Path) -> AsyncIterator[Proxied]:
    if not shutil.which("caddy"):
        lacking("caddy is not installed here.")
    database = Database(url)
    key = await Keys(database).make("somebody")
    await database.close()
    servers = [await serve(RUNSTATE_AUTHENTICATION="keys", RUNSTATE_SHUTDOWN_DRAIN_SECONDS="2") for _ in range(2)]
    https, http, health = free_ports(3)
    environment = {
        "XDG_DATA_HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path),
        "RUNSTATE_PROXY_BIND": "127.0.0.1",
        "RUNSTATE_PROXY_HTTPS_PORT": str(https),
        "RUNSTATE_PROXY_HTTP_PORT": str(http),
        "RUNSTATE_PROXY_HEALTH_PORT": str(health),
        "RUNSTATE_REPLICAS": " ".join(each.url.split("/")[2] for each in servers),
    }
    async with caddy(environment):
        trust = await root_of(tmp_path / "caddy/pki/authorities/local/root.crt", f"https://localhost:{https}")
        yield Proxied(servers, https, http, key, trust)


class Listener:
    """A subscriber over a WebSocket through the proxy, with the headers of a browser."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    async def hear(self) -> dict[str, Any]:
        """Return the next message."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            message: dict[str, Any] = orjson.loads(await self.connection.recv())
        return message

    async def say(self, **message: Any) -> None:
        """Send a message."""
        await self.connection.send(orjson.dumps(message).decode())


@asynccontextmanager
async def listening(proxied: Proxied) -> AsyncIterator[Listener]:
    address = proxied.url.replace("https", "wss") + "/graphql"
    dialled = websockets.connect(
        address, subprotocols=PROTOCOL, ssl=proxied.trust, origin=websockets.Origin(proxied.url)
    )
    async with dialled as connection:
        listener = Listener(connection)
        await listener.say(type="connection_init", payload=bearing(proxied.key))
        assert (await listener.hear())["type"] == "connection_ack"
        await listener.say(type="subscribe", id="1", payload={"query": LISTEN})
        assert (await listener.hear())["type"] == "next"
        yield listener


async def make_run(ask: Ask) -> None:
    flow = await ask(FLOW, name="etl")
    await ask(RUN, flow=flow["createFlow"]["flow"]["id"])


async def test_queries_websockets_and_events_pass_the_proxy_over_tls(proxied: Proxied) -> None:
    async with proxied.client() as client, listening(proxied) as listener:
        events = {"Accept": "text/event-stream"}
        async with client.stream("POST", "/graphql", json={"query": LISTEN}, headers=events) as stream:
            lines = (line async for line in stream.aiter_lines() if line.startswith("data: "))
            first = await anext(lines)
            await make_run(Ask(client))

            told = await listener.hear()
            heard = await anext(lines)

    assert orjson.loads(first.removeprefix("data: "))["data"] == {"transitions": {"transitions": []}}
    assert told["payload"]["data"] == {"transitions": {"transitions": [{"version": 1}]}}
    assert orjson.loads(heard.removeprefix("data: "))["data"] == told["payload"]["data"]


async def test_plain_http_is_redirected_and_operators_endpoints_are_not_reachable(proxied: Proxied) -> None:
    async with proxied.client() as client:
        moved = await client.get(f"http://localhost:{proxied.http}/graphql")
        hidden = [(await client.get(path)).status_code for path in ("/metrics", "/healthz", "/readyz", "/health")]
        stranger = await client.post("/graphql", json={"query": "{ __typename }"}, headers={"Authorization": ""})

    assert (moved.status_code, moved.headers["location"].startswith("https://localhost")) == (308, True)
    assert hidden == [404] * 4
    assert stranger.status_code == 401


async def test_no_request_fails_while_a_replica_stops_and_its_subscribers_reconnect(
    proxied: Proxied,
) -> None:
    async with listening(proxied) as first, listening(proxied) as second, proxied.client() as client:
        stopping = asyncio.create_task(proxied.servers[0].stop())
        statuses = set()
        while not stopping.done():
            statuses.add((await client.post("/graphql", json={"query": "{ flowRunCount }"})).status_code)
        assert await stopping == 0
        await make_run(Ask(client))

        codes = [await ended(each) for each in (first, second)]

    assert statuses == {200}
    assert sorted(codes, key=str) == [1012, None]
    async with listening(proxied):
        pass


async def ended(listener: Listener) -> int | None:
    """Return the close code of the socket; None if a transition arrived first, 0 if another message did."""
    try:
        return None if (await listener.hear())["type"] == "next" else 0
    except websockets.ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else 1006
