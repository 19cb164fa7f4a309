"""Expensive conditions end at the statement timeout, and the next query is answered."""

import asyncio
import json
import time
from typing import Any

import httpx
import pytest

from runstate.graphql.types.json_comparison import MOST_ITEMS
from tests.client import Ask
from tests.graphql.mutations import make_flow, make_flow_run
from tests.hostile.watching import base_of, watched
from tests.serving import Serve

FIND = "query($where: FlowRunWhere) { flowRuns(where: $where) { nodes { id } } }"
MANY = 60_000
TIMEOUT_SECONDS = 1
LISTS = [[number] for number in range(MANY // 2)]
"""Lists in a list, which are compared pairwise."""


async def stored(ask: Ask, parameters: list[Any]) -> None:
    """Create flow runs with these parameters under a key."""
    flow = await make_flow(ask)
    for each in parameters:
        await make_flow_run(ask, flowId=flow, parameters={"items": each})


def holding(items: list[Any]) -> dict[str, Any]:
    """Return a condition on runs whose items contain these values."""
    return {"parameters": {"path": ["items"], "contains": items}}


async def test_long_lists_of_scalars_are_compared_in_linear_time(serve: Serve) -> None:
    server = await serve()
    async with httpx.AsyncClient(base_url=base_of(server), timeout=60) as client:
        ask = Ask(client)
        await stored(ask, [list(range(MANY))])
        began = time.monotonic()
        found = await ask(FIND, where=holding(list(range(MANY - MOST_ITEMS, MANY))))
    assert len(found["flowRuns"]["nodes"]) == 1
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (list(range(MANY)), "LIMIT_EXCEEDED"),
        ([{"a": list(range(MOST_ITEMS))}], "LIMIT_EXCEEDED"),
        (json.loads("[" * 500 + "]" * 500), "BAD_USER_INPUT"),
    ],
    ids=["long", "long inside", "deep"],
)
async def test_a_value_that_is_expensive_to_compare_is_refused(ask: Ask, value: Any, code: str) -> None:
    for comparison in ({"contains": value}, {"eq": value}, {"in": [value]}):
        (error,) = (await ask.raw(FIND, where={"parameters": comparison}))["errors"]
        assert error["extensions"]["code"] == code


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_an_expensive_condition_ends_at_the_statement_timeout_and_others_are_answered(serve: Serve) -> None:
    server = await serve(RUNSTATE_STATEMENT_TIMEOUT_SECONDS=str(TIMEOUT_SECONDS))
    async with httpx.AsyncClient(base_url=base_of(server), timeout=60) as client:
        ask = Ask(client)
        await stored(ask, [LISTS])
        other = holding([[float(number)] for number in range(MANY // 2 - MOST_ITEMS // 2, MANY // 2)])
        async with watched(server, "{ flows { totalCount } }") as watch:
            began = time.monotonic()
            answers = await asyncio.gather(*(ask.raw(FIND, where=other) for _ in range(4)))
            took = time.monotonic() - began
        ready = (await client.get("/readyz")).json()

    codes = [answer["errors"][0]["extensions"]["code"] for answer in answers]
    assert "TIMEOUT" in codes
    assert set(codes) <= {"TIMEOUT", "OVERLOADED"}
    assert took < 5 * TIMEOUT_SECONDS
    assert watch.slowest < 2
    assert set(watch.statuses) == {200}
    assert ready["checks"]["feed"] == "ok"


async def test_a_text_longer_than_the_maximum_of_a_pattern_is_found(serve: Serve) -> None:
    server = await serve()
    async with httpx.AsyncClient(base_url=base_of(server), timeout=60) as client:
        ask = Ask(client)
        flow = await make_flow(ask)
        await make_flow_run(ask, flowId=flow, name="ÄPFEL")
        for text, found in (("x" * 60_000, 0), ("ä" * 60_000, 0), ("äpfel", 1)):
            nodes = (await ask(FIND, where={"name": {"contains": text}}))["flowRuns"]["nodes"]
            assert len(nodes) == found
