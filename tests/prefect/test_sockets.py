"""The sockets of Prefect's clients: who may open them, how many, and for how long; and the lines of logs on them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import orjson
import pytest
import websockets
from websockets.asyncio.client import ClientConnection

from runstate.database import Database
from runstate.prefect.sockets import SOCKETS
from tests.credentials import Keys
from tests.prefect.reporting import PROTOCOL
from tests.subscribing import Listening, listening

PATHS = ("/events/in", "/events/out", "/logs/out", "/task_runs/subscriptions/scheduled")


@asynccontextmanager
async def dialled(server: Listening, path: str, **how: Any) -> AsyncIterator[ClientConnection]:
    address = f"ws://{server.address.replace('/graphql', '/api')}{path}"
    async with websockets.connect(address, subprotocols=PROTOCOL, **how) as socket:
        yield socket


@asynccontextmanager
async def opened(server: Listening, path: str, token: str | None = None) -> AsyncIterator[ClientConnection]:
    """Yield a socket after the handshake."""
    async with dialled(server, path) as socket:
        await say(socket, {"type": "auth", "token": token})
        assert await heard(socket) == {"type": "auth_success"}
        yield socket


async def say(socket: ClientConnection, message: Any) -> None:
    await socket.send(orjson.dumps(message).decode())


async def heard(socket: ClientConnection) -> Any:
    async with asyncio.timeout(30):
        return orjson.loads(await socket.recv())


async def closed(socket: ClientConnection) -> tuple[int | None, str | None]:
    async with asyncio.timeout(30):
        await socket.wait_closed()
    return socket.close_code, socket.close_reason


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 the server has no event for it
            await asyncio.sleep(0)


async def subscribers(server: Listening, number: int) -> None:
    """Wait until the feed of logs has so many subscribers."""
    await until(lambda: len(server.app.state.feed.logs.subscribers) == number)


def api_of(server: Listening) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://{server.address.replace('/graphql', '/api')}", timeout=60)


async def test_a_page_of_another_site_cannot_open_a_socket(server: Listening) -> None:
    for path in PATHS:
        with pytest.raises(websockets.InvalidStatus, match="403"):
            async with dialled(server, path, origin=cast("Any", "https://evil.example")):
                pass


async def test_sockets_begin_with_the_handshake(server: Listening) -> None:
    for path in PATHS:
        for first in (b"\0", "{", "[]", '{"type":"filter"}', "[" * 100_000):
            async with dialled(server, path) as socket:
                await socket.send(first)
                code, reason = await closed(socket)
                assert (code, bool(reason)) == (1008, True), first


async def test_sockets_need_the_scope_and_end_with_the_key(url: str, database: Database) -> None:
    keys = Keys(database)
    narrow = {path: await keys.make(path, "propose" if path.endswith("out") else "read") for path in PATHS}
    async with listening(url, authentication="keys") as server:
        assert set(SOCKETS) == set(PATHS)
        for path in PATHS:
            for token in (None, "", "x", "me:secret", narrow[path]):
                # Proposing includes reading.
                if token == narrow[path] and path.endswith("out"):
                    continue
                async with dialled(server, path) as socket:
                    await say(socket, {"type": "auth", "token": token})
                    assert (await closed(socket))[0] == 1008, (path, token)
        for path in PATHS:
            key = await keys.make(f"{path}-2", "admin")
            async with opened(server, path, key) as socket:
                await keys.revoke(f"{path}-2")
                assert await closed(socket) == (1008, "The key was revoked or has expired.")


async def test_subscriptions_of_clients_are_limited(url: str) -> None:
    async with listening(url, max_subscriptions=1) as server:
        async with opened(server, "/logs/out") as first:
            await say(first, {"type": "filter", "filter": {}})
            await subscribers(server, 1)
            for path in PATHS[1:]:
                async with opened(server, path) as socket:
                    assert (await closed(socket))[0] == 1013, path
            async with opened(server, "/events/in") as socket:
                await (await socket.ping())
        await until(lambda: server.app.state.in_flight.subscriptions == 0)


async def test_a_message_that_is_no_filter_is_refused(server: Listening) -> None:
    for path in ("/events/out", "/logs/out"):
        for message in ("{", '{"type":"filter","filter":{"level":{"ge_":"x"}, "id": 1}}', '{"filter":{}}', b"\0"):
            async with opened(server, path) as socket:
                await socket.send(message)
                assert await closed(socket) == (1002, "The message is not a filter."), message


async def test_new_lines_of_logs_are_sent_as_the_filter_selects_them(server: Listening) -> None:
    line = {"name": "etl", "level": 20, "message": "one", "timestamp": "2026-01-01T00:00:00Z"}
    other = "00000000-0000-7000-8000-000000000001"
    async with api_of(server) as api, opened(server, "/logs/out") as all_lines, opened(server, "/logs/out") as errors:
        assert (await api.post("/logs/", json=[line | {"message": "before"}])).status_code == 201
        await say(all_lines, {"type": "filter", "filter": {"level": None}})
        await say(errors, {"type": "filter", "filter": {"level": {"ge_": 40}, "flow_run_id": {"any_": [other]}}})
        await subscribers(server, 2)

        wanted = line | {"level": 40, "flow_run_id": other, "message": "three"}
        assert (await api.post("/logs/", json=[line, line | {"level": 40}, wanted])).status_code == 201

        got = [await heard(all_lines) for _ in range(3)]
        read = (await api.post("/logs/filter", json={"logs": {"flow_run_id": {"any_": [other]}}})).json()
        assert await heard(errors) == {"type": "log", "log": read[0]}
        assert [each["log"]["message"] for each in got] == ["one", "one", "three"]
        assert {each["type"] for each in got} == {"log"}


async def test_lines_of_one_server_reach_subscribers_of_another(url: str) -> None:
    line = {"name": "etl", "level": 20, "message": "far", "timestamp": "2026-01-01T00:00:00Z"}
    async with listening(url) as one, listening(url) as other, opened(other, "/logs/out") as socket, api_of(one) as api:
        await say(socket, {"type": "filter", "filter": {}})
        await subscribers(other, 1)
        assert (await api.post("/logs/", json=line)).status_code == 201
        assert (await heard(socket))["log"]["message"] == "far"


async def test_earlier_events_come_in_order_and_then_new_ones(server: Listening) -> None:
    made = [
        {"event": "order.placed", "occurred": f"2026-01-01T00:{n // 60:02}:{n % 60:02}Z", "payload": {"n": n}}
        for n in range(123)
    ]
    sent = [each | {"resource": {"prefect.resource.id": "order.1"}} for each in made]
    async with api_of(server) as api, opened(server, "/events/out") as socket:
        assert (await api.post("/events", json=sent[:-1])).status_code == 204
        await say(socket, {"type": "filter", "filter": {"event": {"prefix": ["order."]}}})
        got = [await heard(socket) for _ in sent[:-1]]
        assert (await api.post("/events", json=sent[-1:])).status_code == 204
        got.append(await heard(socket))
    assert [each["event"]["payload"]["n"] for each in got] == list(range(123))
