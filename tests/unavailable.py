"""The answers, health checks and logs of a server whose database cannot be used for a while."""

import asyncio
from typing import Any
from uuid import uuid4

from structlog.testing import capture_logs

from tests.client import Ask
from tests.graphql.mutations import PROBLEM

CREATE = f"mutation($name: String!) {{ createFlow(input: {{ name: $name }}) {{ {PROBLEM} }} }}"
PROPOSE = """mutation($run: ID!) { proposeState(input: { run: { flowRunId: $run }, state: { type: RUNNING } }) {
  ... on OrchestrationResult { status } } }"""
COUNT = "{ flows { totalCount } flowRunCount }"


def codes(answer: dict[str, Any]) -> list[str]:
    return [error["extensions"]["code"] for error in answer.get("errors") or ()]


async def ready(ask: Ask) -> dict[str, str]:
    """The failed checks of `/readyz`."""
    reply = await ask.client.get("/readyz")
    wrong: dict[str, str] = {name: check for name, check in reply.json()["checks"].items() if check != "ok"}
    assert reply.status_code == (503 if wrong else 200)
    return wrong


async def until_ready(ask: Ask) -> None:
    async with asyncio.timeout(30):
        while await ready(ask):  # noqa: ASYNC110 nothing tells
            await asyncio.sleep(0.1)


async def until_not_ready(ask: Ask, check: str, wrong: str) -> None:
    async with asyncio.timeout(30):
        while wrong not in (await ready(ask)).get(check, ""):  # noqa: ASYNC110 nothing tells
            await asyncio.sleep(0.1)


async def refused(ask: Ask, run: str, wrong: str) -> None:
    """Commands and proposals are refused for this reason, at once, and write nothing."""
    before = await ask(COUNT)
    with capture_logs() as logs:
        for document, variables in ((CREATE, {"name": str(uuid4())}), (PROPOSE, {"run": run})):
            reply = await ask.client.post("/graphql", json={"query": document, "variables": variables})
            (error,) = reply.json()["errors"]
            assert (reply.status_code, reply.headers["retry-after"]) == (200, "1")
            assert error["extensions"]["code"] == "UNAVAILABLE"
            assert wrong in error["message"]
            assert "nothing was written" in error["message"]
    assert await ask(COUNT) == before
    check_logs(logs)


def check_logs(logs: list[Any]) -> None:
    """There are no tracebacks, and nothing is longer than a line."""
    lines = [each for each in logs if each["log_level"] != "debug"]
    assert [each for each in lines if each.get("exc_info") or len(str(each)) > 500] == []
    assert len([each for each in logs if each["event"] == "database_unavailable"]) <= 1
