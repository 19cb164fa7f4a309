"""Answers that would be large are refused before they fill the memory: LIMIT_EXCEEDED."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.client import Ask
from tests.graphql.mutations import make_flow, make_flow_run, make_task_run
from tests.hostile.watching import base_of, watched
from tests.serving import Serve

MB = 2**20
MOST_GROWTH = 64 * MB
"""A few times the limit: what is read, what is written, and what is sent."""
SETTLED = 25 * MB
RUNS = 60
LARGE = {"a": "x" * 500_000}
MANY_VALUES: Any = {"a": [[] for _ in range(160_000)]}
"""Each empty list has three bytes of JSON, and a hundred in Python."""
ASTRAL = {"a": "😀" + "x" * 500_000}
"""One character that makes each of the others take four bytes in Python."""
SOME = "query($ids: [ID!]!) { nodes(ids: $ids) { ... on FlowRun { parameters } } }"
"""Fills the caches of SQLite's connections, which have 64 MB each."""
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
async def test_an_answer_that_is_too_large_is_refused(serve: Serve, parameters: Any) -> None:
    server, found = await serve(), dict[str, set[str]]()
    async with httpx.AsyncClient(base_url=base_of(server), timeout=60) as client:
        ask = Ask(client)
        runs = await stored(ask, parameters)
        await asyncio.gather(*(ask(SOME, ids=runs[start % RUNS :][:20]) for start in range(0, 10 * RUNS, 20)))
        async with watched(server) as watch:
            for name, document in ATTACKS.items():
                body = await ask.raw(document, **({"ids": runs} if "$ids" in document else {}))
                found[name] = {each["extensions"]["code"] for each in body.get("errors", ())}
                assert not body["data"], name
                print(name, watch.above_bytes // MB, watch.growth_bytes // MB, flush=True)

    assert found == {name: {"LIMIT_EXCEEDED"} for name in ATTACKS}
    assert watch.growth_bytes < MOST_GROWTH, f"grew by {watch.growth_bytes / MB:.0f} MB"
    assert {*watch.statuses} == {200}
    assert watch.slowest < 2
    settled = await watch.settled(SETTLED)
    assert settled < SETTLED, f"{settled / MB:.0f} MB stayed"
