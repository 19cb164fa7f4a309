"""Clients that send much, slowly or nothing, and read no answers: memory stays low, and others are answered."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import pytest
import websockets

from tests.hostile.attacking import GET, INIT, MEGABYTE, PATIENCE_SECONDS, POST, UPGRADE, Attacker, attackers, frame
from tests.hostile.watching import Watch, base_of, watched
from tests.serving import Serve
from tests.subscribing import PROTOCOL

MOST_GROWTH = 50 * MEGABYTE
SETTLED = 25 * MEGABYTE
SLOWEST_SECONDS = 2.0
SUBSCRIBE = '{"type": "subscribe", "id": "1", "payload": {"query": "subscription { transitions { cursor } }"}}'


@pytest.fixture
def kind() -> str:
    """Return `sqlite`: these tests do not depend on the database."""
    return "sqlite"


async def everybody(attack: Callable[[Attacker], Coroutine[Any, Any, Any]], hostile: list[Attacker]) -> list[Any]:
    """Run an attack on every connection concurrently; return the results."""
    return await asyncio.gather(*map(attack, hostile))


async def check(watch: Watch) -> None:
    """Check that memory stayed low and returned to its old size, and that a friendly client was answered quickly."""
    assert watch.growth_bytes < MOST_GROWTH, f"grew by {watch.growth_bytes / MEGABYTE:.0f} MB"
    assert {*watch.statuses} == {200}
    assert watch.slowest < SLOWEST_SECONDS
    settled = await watch.settled(SETTLED)
    assert settled < SETTLED, f"{settled / MEGABYTE:.0f} MB stayed"


@pytest.mark.parametrize("path", ["/healthz", "/graphql?query=%7B__schema%7Btypes%7Bname%7D%7D%7D"])
async def test_pipelined_requests_with_unread_answers_are_bounded(serve: Serve, path: str) -> None:
    server = await serve(RUNSTATE_GET_CSRF_PREVENTION="false")
    flood = GET.replace(b"/healthz", path.encode()) * (20 * MEGABYTE // len(GET))
    async with watched(server) as watch:
        for _ in range(2):
            async with attackers(server, 4) as hostile:
                taken = await everybody(lambda each: each.send(flood), hostile)
                assert not any(taken)  # the server has stopped reading
    await check(watch)


async def test_pipelined_requests_are_answered_in_order(serve: Serve) -> None:
    server = await serve()
    async with attackers(server, 1) as (client,):
        sending = asyncio.create_task(
            client.send(GET * 2_000 + GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        )
        answer = await client.answer()
        assert await sending

    assert answer.count(b"HTTP/1.1 200 OK") == 2_001


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (GET[:-2], b"a: b\r\n"),
        (GET[:-2] + b"a: ", b"b" * 1024),
        (b"GET /", b"x" * 1024),
        (GET[:-2], b"a" * 1024),
        (b"", b"\r\n"),
        (b"GET /healthz HTTP/1.1\r\n", b"Host: " + b"h" * 1024 + b"\r\n"),
    ],
    ids=["fields", "value", "url", "name", "lines", "long-fields"],
)
async def test_an_endless_head_is_refused(serve: Serve, start: bytes, more: bytes) -> None:
    server = await serve()
    flood = start + more * (20 * MEGABYTE // len(more))
    async with watched(server) as watch, attackers(server, 4) as hostile:
        sending = [asyncio.create_task(each.send(flood, PATIENCE_SECONDS)) for each in hostile]
        statuses = await everybody(Attacker.status, hostile)
        await asyncio.gather(*sending)
    assert {*statuses} <= {431, 0}
    await check(watch)


async def test_a_head_has_at_most_100_fields_and_64_kilobytes(serve: Serve) -> None:
    server = await serve()
    async with httpx.AsyncClient(base_url=base_of(server)) as client:
        many = {f"x-{number}": "1" for number in range(90)}
        assert (await client.get("/healthz", headers=many)).status_code == 200
        refused = await client.get("/healthz", headers=many | {f"y-{number}": "1" for number in range(20)})
        assert (await client.get("/healthz", headers={"x": "y" * 60_000})).status_code == 200
        assert (await client.get("/healthz", headers={"x": "y" * 70_000})).status_code == 431

    assert refused.status_code == 431
    assert refused.json()["errors"][0]["extensions"]["code"] == "BAD_REQUEST"


async def test_incomplete_heads_and_bodies_time_out(serve: Serve) -> None:
    server = await serve(RUNSTATE_REQUEST_HEAD_TIMEOUT_SECONDS="1", RUNSTATE_REQUEST_BODY_TIMEOUT_SECONDS="1")
    halves = {b"": 0, GET[:-2]: 408, GET + GET[:20]: 200, POST % 100: 408, POST % 100 + b"{": 408}
    async with watched(server) as watch, attackers(server, 500) as hostile:
        sent = [[*halves][number % len(halves)] for number in range(len(hostile))]
        await asyncio.gather(*(each.send(half) for each, half in zip(hostile, sent, strict=True)))
        statuses = await everybody(Attacker.status, hostile)
    assert statuses == [halves[half] for half in sent]
    await check(watch)
    await server.stop()
    assert b"Traceback" not in await server.output


async def test_a_slow_body_times_out(serve: Serve) -> None:
    server = await serve(RUNSTATE_REQUEST_BODY_TIMEOUT_SECONDS="1")
    async with attackers(server, 1) as (hostile,):
        await hostile.send(POST % 1000)
        status = asyncio.create_task(hostile.status())
        while not status.done():
            await hostile.send(b" ")
            await asyncio.sleep(0.05)

    assert await status == 408


async def test_incomplete_large_bodies_are_bounded(serve: Serve) -> None:
    server = await serve()
    almost = POST % MEGABYTE + b" " * (MEGABYTE - 1)
    async with watched(server) as watch, attackers(server, 100) as hostile:
        await everybody(lambda each: each.send(almost), hostile)
    await check(watch)


@pytest.mark.parametrize(
    "flood",
    [
        frame(9) * 100_000,
        frame(9, b"x" * 125) * 20_000,
        frame(1, b"5") * 100_000,
        frame(1, b"", final=False) + frame(0, b"", final=False) * 100_000,
        frame(1, b"{", final=False) + frame(0, b" ", final=False) * 100_000,
        frame(1, b" " * (2 * MEGABYTE - 1))[:-1],
    ],
    ids=["pings", "long-pings", "texts", "empty-fragments", "fragments", "large"],
)
async def test_malformed_websocket_frames_are_bounded(serve: Serve, flood: bytes) -> None:
    server = await serve()
    async with watched(server) as watch, attackers(server, 40) as hostile:
        await everybody(lambda each: each.send(UPGRADE), hostile)
        await everybody(lambda each: each.reader.readuntil(b"\r\n\r\n"), hostile)
        await everybody(lambda each: each.send(flood), hostile)
    await check(watch)
    await server.stop()
    assert b"Traceback" not in await server.output


async def test_a_socket_with_unread_answers_is_bounded(serve: Serve) -> None:
    server = await serve()
    many = b" ".join(b"a%d: __typename" % number for number in range(15))
    said = b'{"type":"subscribe","id":"%d","payload":{"query":"{%s}"}}'
    async with watched(server) as watch, attackers(server, 10) as hostile:
        for each in hostile:
            await each.send(UPGRADE)
            await each.reader.readuntil(b"\r\n\r\n")
            await each.send(frame(1, b'{"type":"connection_init"}'))
        flood = b"".join(frame(1, said % (number, many)) for number in range(2_000))
        await everybody(lambda each: each.send(flood), hostile)
    await check(watch)


async def test_an_address_has_a_limit_on_connections(serve: Serve) -> None:
    server = await serve(RUNSTATE_MAX_CONNECTIONS_PER_ADDRESS="20", RUNSTATE_LOG_FORMAT="json")
    async with attackers(server, 20), attackers(server, 5) as refused:
        assert {*await everybody(Attacker.status, refused)} == {503}
    async with httpx.AsyncClient(base_url=base_of(server)) as client:
        assert (await client.get("/healthz")).status_code == 200
    await server.stop()
    assert b'"event": "connections_refused"' in await server.output


async def test_a_client_that_disconnects_during_a_request_is_not_an_error(serve: Serve) -> None:
    server = await serve()
    async with attackers(server, 3) as hostile:
        await hostile[0].send(POST % 100 + b"{")
        await hostile[1].send(UPGRADE)
        await hostile[2].send(UPGRADE)
        await hostile[2].reader.readuntil(b"\r\n\r\n")
        await hostile[2].send(frame(1, b'{"type":"connection_init"}'))
        await hostile[2].reader.readuntil(b"ack")
    async with attackers(server, 30) as hostile:
        await everybody(lambda each: each.send(UPGRADE), hostile)
        await everybody(lambda each: each.reader.readuntil(b"\r\n\r\n"), hostile)
        await everybody(lambda each: each.send(frame(1, INIT.encode()) + frame(9) + frame(1, b"\xff")), hostile)
        assert all(b"\x88" in answer for answer in await everybody(Attacker.answer, hostile))
    for code in (1000, 1001, 3000, 4999):
        async with websockets.connect(server.url.replace("http", "ws"), subprotocols=PROTOCOL) as socket:
            for message in (INIT, SUBSCRIBE, SUBSCRIBE.replace("1", "2").replace("subscription", "query")):
                await socket.send(message)
            await socket.recv()
            await socket.close(code)
    await server.stop()

    output = (await server.output).decode()
    assert "Traceback" not in output
    assert '"error"' not in output
