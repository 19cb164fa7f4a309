"""The subscription `logs` over WebSockets, on both databases."""

import asyncio
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
import websockets

from tests.client import Ask
from tests.graphql.mutations import make_flow_run, propose
from tests.graphql.test_logs import line, subflow, write
from tests.subscribing import Listening, Socket, Subscription, connected, listening

LOGS = """subscription($where: LogWhere, $tree: ID, $after: String, $tail: Int! = 0, $untilFinal: Boolean! = false) {
  logs(where: $where, tree: $tree, after: $after, tail: $tail, untilFinal: $untilFinal) { cursor logs { message } } }"""
WRITERS, CALLS, LINES = 3, 20, 7


async def batch(subscription: Subscription) -> tuple[list[str], str]:
    """Return the messages of the next batch, and its cursor."""
    found = (await subscription.next())["logs"]
    return [each["message"] for each in found["logs"]], found["cursor"]


async def take(subscription: Subscription, number: int) -> list[str]:
    """Return the next messages."""
    taken: list[str] = []
    while len(taken) < number:
        taken += (await batch(subscription))[0]
    return taken


async def test_new_lines_are_sent_as_they_are_written(live: Ask, socket: Socket) -> None:
    await write(live, line("old"))
    subscription = await socket.subscribe(LOGS)
    assert (await batch(subscription))[0] == []
    await write(live, *(line(str(number)) for number in range(450)))

    assert await take(subscription, 450) == [str(number) for number in range(450)]


async def test_a_stream_starts_with_the_last_lines_and_goes_on(live: Ask, socket: Socket) -> None:
    run = await make_flow_run(live)
    await write(live, *(line(str(number), number, flowRunId=run) for number in (2, 0, 1)), line("other"))
    subscription = await socket.subscribe(LOGS, tree=run, tail=2)

    assert (await batch(subscription))[0] == ["1", "2"]
    await write(live, line("other"), line("3", flowRunId=run))
    assert await take(subscription, 1) == ["3"]


async def test_only_lines_that_meet_the_condition_are_sent(live: Ask, socket: Socket) -> None:
    subscription = await socket.subscribe(LOGS, where={"level": {"gte": 40}, "search": "+disk"})
    await batch(subscription)
    await write(live, line("disk"), line("Disk full", level=40), line("other", level=50))
    await write(live, line("disk gone", level=50))

    assert await take(subscription, 2) == ["Disk full", "disk gone"]


async def test_a_subflow_that_begins_later_belongs_to_the_tree(live: Ask, socket: Socket) -> None:
    run, other = await make_flow_run(live), await make_flow_run(live)
    subscription = await socket.subscribe(LOGS, tree=run)
    await batch(subscription)
    child = await subflow(live, run)
    grandchild = await subflow(live, child)
    await write(live, line("0", flowRunId=grandchild), line("other", flowRunId=other), line("1", flowRunId=child))

    assert await take(subscription, 2) == ["0", "1"]


async def test_a_stream_resumes_at_a_cursor_also_within_a_page(live: Ask, server: Listening) -> None:
    cursor = (await live("{ logCursor }"))["logCursor"]
    for start in range(0, 1200, 400):
        await write(live, *(line(str(number)) for number in range(start, start + 400)))
    found: list[str] = []
    while len(found) < 1200:
        async with connected(server) as socket:
            some, cursor = await batch(await socket.subscribe(LOGS, after=cursor))
        assert len(some) <= 500
        found += some

    assert found == [str(number) for number in range(1200)]


async def test_readers_that_reconnect_get_every_line_once_and_in_order(
    live: Ask, server: Listening, url: str, kind: str
) -> None:
    """Readers change between servers; on PostgreSQL, one of two servers stops meanwhile."""
    cursor = (await live("{ logCursor }"))["logCursor"]
    runs = [await make_flow_run(live) for _ in range(WRITERS)]
    servers = [server]
    every = [f"{name}:{number}" for name in range(WRITERS) for number in range(CALLS * LINES)]

    async def writer(run: str, name: int) -> None:
        for call in range(CALLS):
            await write(live, *(line(f"{name}:{call * LINES + each}", flowRunId=run) for each in range(LINES)))

    async def reader(place: int) -> list[str]:
        found, after = list[str](), cursor
        while len(found) < len(every):
            place += 1
            # The server that stops closes the connection, or refuses a new one.
            with suppress(OSError, websockets.WebSocketException):
                async with connected(servers[place % len(servers)]) as socket:
                    subscription = await socket.subscribe(LOGS, after=after)
                    for _ in range(3):
                        some, after = await batch(subscription)
                        found += some
                        if len(found) >= len(every):
                            break
        return found

    readers = [asyncio.create_task(reader(place)) for place in range(2)]
    async with AsyncExitStack() as stack:
        if kind == "postgresql":
            servers.append(await stack.enter_async_context(listening(url)))
        await asyncio.gather(*(writer(run, name) for name, run in enumerate(runs[1:], 1)))
        del servers[1:]  # it stops with its connections open
    await writer(runs[0], 0)
    for found in await asyncio.gather(*readers):
        assert sorted(found) == sorted(every)
        for name in range(WRITERS):
            mine = [each for each in found if each.startswith(f"{name}:")]
            assert mine == [each for each in every if each.startswith(f"{name}:")]


async def test_a_stream_completes_after_the_lines_of_a_run_that_has_ended(live: Ask, socket: Socket) -> None:
    run = await make_flow_run(live)
    subscription = await socket.subscribe(LOGS, tree=run, tail=10, untilFinal=True)
    await batch(subscription)
    await propose(live, run, "COMPLETED", force=True)
    await write(live, line("after the state", flowRunId=run))

    assert await take(subscription, 1) == ["after the state"]
    await subscription.completed()


@pytest.mark.parametrize(
    ("variables", "code"),
    [
        ({"untilFinal": True}, "BAD_USER_INPUT"),
        ({"tail": 1001}, "BAD_USER_INPUT"),
        ({"tail": 1, "after": "x"}, "BAD_USER_INPUT"),
        ({"after": "x"}, "INVALID_INPUT"),
        ({"tree": "malformed"}, "NOT_FOUND"),
        ({"tree": "01890000-0000-7000-8000-000000000000", "untilFinal": True}, "NOT_FOUND"),
    ],
)
async def test_invalid_arguments_are_errors(socket: Socket, variables: dict[str, Any], code: str) -> None:
    error = await (await socket.subscribe(LOGS, **variables)).error()

    assert error["extensions"]["code"] == code
