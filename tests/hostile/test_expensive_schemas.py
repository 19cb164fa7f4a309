"""A JSON schema of a client that takes exponential time ends only its own request."""

from typing import Any

import httpx

from tests.client import Ask
from tests.graphql.mutations import PROBLEM, RESULT, do, make_flow_run
from tests.hostile.watching import base_of, watched
from tests.serving import Serve

MB = 2**20


def doubling(levels: int) -> dict[str, Any]:
    """Return a schema whose validation takes two to the power of its levels."""
    twice = {
        f"level{level}": {"allOf": [{"$ref": f"#/$defs/level{level + 1}"}, {"$ref": f"#/$defs/level{level + 1}"}]}
        for level in range(levels)
    }
    return {"$ref": "#/$defs/level0", "$defs": {**twice, f"level{levels}": {"type": "array"}}}


def nested(depth: int) -> Any:
    """Return a value inside this many lists."""
    return [nested(depth - 1)] if depth else 1


async def waiting_run(ask: Ask, schema: Any) -> str:
    """Return the id of a run that waits for a value that conforms to a schema."""
    run = await make_flow_run(ask, state={"type": "RUNNING"})
    keyset = {"schema": "s", "response": "r"}
    await do(ask, "pauseFlowRun", "PauseFlowRunInput", RESULT, id=run, runInputKeyset=keyset)
    written = await do(
        ask, "createFlowRunInput", "CreateFlowRunInputInput", PROBLEM, flowRunId=run, key="s", value=schema
    )
    assert written["__typename"] != "InvalidInput"
    return run


ATTACKS = {
    "backtracking": ({"type": "string", "pattern": "^(a+)+$"}, "a" * 5_000 + "!"),
    "doubling references": (doubling(60), []),
    "recursive alternatives": ({"anyOf": [{"type": "array", "items": {"$ref": "#"}}] * 2}, nested(60)),
    "long lists without duplicates": ({"uniqueItems": True}, [{"a": number} for number in range(50_000)]),
}


async def test_an_expensive_schema_does_not_delay_other_clients(serve: Serve) -> None:
    server = await serve()
    async with httpx.AsyncClient(base_url=base_of(server), timeout=60) as client:
        ask = Ask(client)
        runs = [await waiting_run(ask, schema) for schema, _ in ATTACKS.values()]
        async with watched(server) as watch:
            for run, (_, value) in zip(runs, ATTACKS.values(), strict=True):
                await do(ask, "resumeFlowRun", "ResumeFlowRunInput", RESULT, id=run, runInput=value)

    assert watch.slowest < 1
    assert set(watch.statuses) == {200}
    assert watch.growth_bytes < 50 * MB
