"""The queries of docs/questions.md find something in the data of the demo, each in one request."""

import re
from collections.abc import AsyncIterator, Callable
from math import inf
from pathlib import Path
from typing import Any

import pytest

from runstate.cli.demo import FLOWS, demo
from runstate.client.sockets import socket_address
from runstate.database import Database
from tests.client import Ask
from tests.credentials import Keys, asking_with
from tests.graphql.mutations import make_task_run, propose
from tests.subscribing import Listening, asking, listening

PAGE = (Path(__file__).parent.parent / "docs/questions.md").read_text()
QUESTIONS = re.findall(r"^## (.*?)\n\n```graphql\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
async def server(url: str) -> AsyncIterator[Listening]:
    """Yield a server with the data of a demo, with a flow run that is late and one that is running."""
    async with listening(url) as server:
        await demo(socket_address(server.address), None, 3 * len(FLOWS), inf, lambda *_: None)
        async with asking(server) as ask:
            await ask(
                """mutation { late: runDeployment(input: {deployment: {flow: "etl", name: "nightly"},
                  scheduledTime: "2026-01-01T00:00:00Z"}) { __typename }
                running: runFlow(input: {flow: {name: "etl"}, state: {type: RUNNING}}) { __typename } }"""
            )
            for key in ("first", "second", "third"):
                task = await make_task_run(ask, key, name=key, tags=["database"])
                await propose(ask, task, "RUNNING", task=True)
        yield server


@pytest.fixture
async def reader(url: str, server: Listening) -> AsyncIterator[Ask]:
    """Yield a client with a key that may only read."""
    database = Database(url)
    key = await Keys(database).make("operator", "read")
    await database.close()
    async with listening(url, authentication="keys") as protected, asking_with(protected, key) as ask:
        yield ask


def waiting(limit: Any) -> tuple[int, int, int, list[str]]:
    """Return the numbers of slots, of held slots and of waiting runs, and the names of these."""
    names = [each["run"]["name"] for each in limit["waiting"]["nodes"]]
    return limit["limit"], limit["activeSlots"], limit["waitingCount"], names


def groups(answer: Any) -> dict[str, int]:
    """Return the number of runs by status."""
    return {each["status"]: each["count"] for each in answer["outcomes"]}


CHECKS: dict[str, Callable[[Any], bool]] = {
    "What failed in the last hour, and why?": lambda data: (
        {each["state"]["message"] for each in data["flowRuns"]["nodes"]}
        >= {"DemoError: Failed: load", "SystemExit: The process was killed: out of memory."}
        and any(each["taskRuns"]["nodes"] for each in data["flowRuns"]["nodes"])
    ),
    "What is running, and how far is it?": lambda data: [each["all"] for each in data["flowRuns"]["nodes"]] != [],
    "What is late?": lambda data: (
        data["flowRuns"]["nodes"][0]["estimatedStartTimeDeltaSeconds"] > 0
        and any(each["latenessSeconds"]["p95"] is not None for each in data["flowRunStatistics"])
    ),
    "Which runs wait for which limit?": lambda data: (
        [waiting(each) for each in data["concurrencyLimits"]["nodes"]] == [(2, 2, 1, ["third"])]
    ),
    "How long does each flow take?": lambda data: (
        {each["flow"]["name"] for each in data["flowRunStatistics"]} >= {"etl", "report"}
        and any(each["runTimeSeconds"]["p95"] for each in data["flowRunStatistics"])
        and len(data["slowest"]["nodes"]) == 10
    ),
    "What is the success rate of each flow, day by day?": lambda data: (
        ("etl", 2 / 3) in {(each["flow"]["name"], each["successRate"]) for each in data["flowRunStatistics"]}
    ),
    "Retry everything that failed last night": lambda data: groups(data["retryFlowRuns"]) == {"ACCEPT": 1, "ABORT": 2},
    "How did one task do across runs?": lambda data: (
        len(data["taskRuns"]["nodes"]) == 3 and "join" in {each["key"] for each in data["flow"]["tasks"]}
    ),
    "What changed since I last looked?": lambda data: data["transitions"]["hasMore"],
    "Cancel everything of one flow": lambda data: data["cancelFlowRuns"]["changed"] == 3,
}


def test_there_are_ten_questions_and_each_is_checked() -> None:
    assert len(QUESTIONS) == 10
    assert CHECKS.keys() == {question for question, _ in QUESTIONS}


async def test_each_question_is_answered_by_one_request(server: Listening, reader: Ask) -> None:
    async with asking(server) as operator:
        for question, document in QUESTIONS:
            data = await (operator if document.startswith("mutation") else reader)(document)
            assert CHECKS[question](data), (question, data)


async def test_questions_that_change_runs_need_more_than_read(reader: Ask) -> None:
    for _, document in QUESTIONS:
        if document.startswith("mutation"):
            assert (await reader.raw(document))["errors"][0]["extensions"]["code"] == "FORBIDDEN"
