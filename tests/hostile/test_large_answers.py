"""Answers that would be large are refused before they fill the memory: LIMIT_EXCEEDED."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.client import Ask
from tests.graphql.mutations import make_flow, make_flow_run, make_task_run
from tests.hostile.attacking import INIT, POST, UPGRADE, attackers, frame
from tests.hostile.watching import Watch, base_of, watched
from tests.serving import Serve

MB = 2**20
MOST_GROWTH = 100 * MB
"""The aim is 50 MB. On PostgreSQL bytes are counted before they are decoded: a text can take four times as many."""
SETTLED = 25 * MB
ROOM = 32 * MB
"""Bytes of large answers that a server holds at once."""
CACHES = {"sqlite": 64 * MB, "postgresql": 0}
"""Bytes that caches of SQLite grow by, with each connection that was not used before."""
JSON = {"Content-Type": "application/json"}
RUNS = 60
LARGE = {"a": "x" * 500_000}
MANY_VALUES: Any = {"a": [[] for _ in range(160_000)]}
"""Each empty list has three bytes of JSON, and a hundred in Python."""
ASTRAL = {"a": "😀" + "x" * 500_000}
"""One character that makes each of the others take four bytes in Python."""
SOME = "query($ids: [ID!]!) { nodes(ids: $ids) { ... on FlowRun { parameters } } }"
LONG_NAME = "a" * 60_000


def aliases(number: int, field: str) -> str:
    """Return a field that is selected so many times."""
    return " ".join(f"a{each}: {field}" for each in range(number))


ATTACKS = {
    "large values": "{ flowRuns(first: 200) { nodes { id parameters } } }",
    "aliases": f"{{ flowRuns(first: 200) {{ nodes {{ {aliases(32, 'parameters')} }} }} }}",
    "aliases of few": f"{{ flowRuns(first: 1) {{ nodes {{ {aliases(100, 'parameters')} }} }} }}",
    "aliases of pages": " ".join(
        ("{", *(f"a{each}: flowRuns(first: 20) {{ nodes {{ parameters }} }}" for each in range(20)), "}")
    ),
    "one value everywhere": "{ taskRuns(first: 200) { nodes { flowRun { parameters } } } }",
    "long names": f"{{ taskRuns(first: 200) {{ nodes {{ flowRun {{ taskRuns(first: 200) {{ nodes {{"
    f" {LONG_NAME}: id }} }} }} }} }} }}",
    "paths of errors": f"{{ taskRuns(first: 200) {{ nodes {{ flowRun {{ taskRuns(first: 200) {{ nodes {{"
    f" {LONG_NAME}: history(last: 0) {{ id }} }} }} }} }} }} }}",
    "cursors": f"{{ taskRuns(first: 200) {{ nodes {{ flowRun {{ taskRuns(first: 200) {{ edges {{"
    f" {aliases(90, 'cursor')} }} }} }} }} }} }}",
    "by id": SOME,
    "documents": f"{{ taskRuns(first: 200) {{ nodes {{ flowRun {{ taskRuns(first: 100) {{ nodes {{ policy {{"
    f" {aliases(90, '__typename')} }} }} }} }} }} }} }}",
    "not planned": "{ flowRuns(first: 200) { nodes { parameters taskRuns(first: 0) { totalCount } } } }",
}


async def stored(ask: Ask, parameters: Any, number: int = RUNS) -> list[str]:
    """Create flow runs with these parameters, and task runs of the last one; return the ids of the flow runs."""
    flow = await make_flow(ask)
    runs = [await make_flow_run(ask, flowId=flow, parameters=parameters) for _ in range(number)]
    await asyncio.gather(*(make_task_run(ask, str(each), flowRunId=runs[-1]) for each in range(200)))
    return runs


@pytest.mark.parametrize("parameters", [LARGE, MANY_VALUES, ASTRAL], ids=["text", "lists", "astral"])
async def test_an_answer_that_is_too_large_is_refused(kind: str, serve: Serve, parameters: Any) -> None:
    server, found = await serve(), dict[str, set[str]]()
    async with httpx.AsyncClient(base_url=base_of(server), timeout=60) as client:
        ask = Ask(client)
        runs = await stored(ask, parameters)
        await fill_caches(ask, runs)
        async with watched(server) as watch:
            for name, document in ATTACKS.items():
                body = await ask.raw(document, **({"ids": runs} if "$ids" in document else {}))
                found[name] = {each["extensions"]["code"] for each in body.get("errors", ())}
                assert not body["data"], name

    assert found == {name: {"LIMIT_EXCEEDED"} for name in ATTACKS}
    await check(watch, MOST_GROWTH, CACHES[kind])


async def test_large_answers_that_are_not_taken_are_few(kind: str, serve: Serve) -> None:
    server = await serve()
    query = json.dumps({"query": "{ flowRuns(first: 30) { nodes { parameters } } }"}).encode()
    said = json.dumps({"type": "subscribe", "id": "1", "payload": {"query": "{ flowRuns { nodes { parameters } } }"}})
    async with httpx.AsyncClient(base_url=base_of(server), timeout=60) as client:
        await fill_caches(Ask(client), await stored(Ask(client), LARGE, 30))
    async with watched(server) as watch, attackers(server, 20) as hostile, attackers(server, 20) as sockets:
        for each in hostile:
            await each.send(POST % len(query) + query)
        for each in sockets:
            await each.send(UPGRADE)
            await each.reader.readuntil(b"\r\n\r\n")
            operations = (frame(1, said.replace('"1"', f'"{number}"').encode()) for number in range(5))
            await each.send(frame(1, INIT.encode()) + b"".join(operations))
        async with httpx.AsyncClient(base_url=base_of(server), timeout=60) as client:
            while "OVERLOADED" not in (await client.post("/graphql", content=query, headers=JSON)).text:
                pass
            answer = await Ask(client)("{ taskRuns(first: 200) { nodes { id } } }")
    assert len(answer["taskRuns"]["nodes"]) == 200
    await check(watch, ROOM + MOST_GROWTH, CACHES[kind])


async def test_thousands_of_failing_fields_leave_no_garbage(serve: Serve) -> None:
    server = await serve()
    async with httpx.AsyncClient(base_url=base_of(server), timeout=60) as client:
        ask = Ask(client)
        await stored(ask, {}, 1)
        async with watched(server) as watch:
            for _ in range(6):
                (error,) = (await ask.raw(ATTACKS["paths of errors"]))["errors"]
                assert error["extensions"]["limit"] in {"resolvers", "errors"}
    await check(watch, 50 * MB, 0)


async def test_many_small_answers_that_are_not_taken_fill_no_memory(serve: Serve) -> None:
    server = await serve()
    query = json.dumps({"query": "{ flowRuns(first: 1) { nodes { parameters } } }"}).encode()
    async with httpx.AsyncClient(base_url=base_of(server), timeout=60) as client:
        await stored(Ask(client), {"a": "x" * 240_000}, 1)
    async with watched(server) as watch, attackers(server, 500, receive_buffer=4_096) as hostile:
        for each in hostile:
            await each.send(POST % len(query) + query)
        # Answered after all others.
        async with httpx.AsyncClient(base_url=base_of(server), timeout=60) as client:
            await Ask(client)("{ __typename }")
    await check(watch, ROOM + 50 * MB, 0)


async def fill_caches(ask: Ask, runs: list[str]) -> None:
    """Read all parameters on several connections: on SQLite each has a cache of 64 MB."""
    for start in range(0, len(runs), 6):
        await asyncio.gather(*(ask(SOME, ids=runs[start : start + 6]) for _ in range(2)))


async def check(watch: Watch, most_growth: int, caches: int) -> None:
    """Check that the server stayed small, became as small as before, and answered others quickly."""
    assert watch.growth_bytes < most_growth + caches, f"grew by {watch.growth_bytes / MB:.0f} MB"
    assert {*watch.statuses} == {200}
    assert watch.slowest < 2
    settled = await watch.settled(SETTLED + caches)
    assert settled < SETTLED + caches, f"{settled / MB:.0f} MB stayed"
