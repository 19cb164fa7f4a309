"""Objects of clients that are expensive to read or to compute: tables, schedules, logs, schemas, searches."""

import asyncio
from typing import Any

import httpx

from tests.client import Ask
from tests.graphql.mutations import PROBLEM, do, make_deployment, make_flow, make_flow_run
from tests.hostile.watching import Watch, base_of, watched
from tests.serving import Serve, Server

MB = 2**20
SIZE = 500_000
NEVER = "FREQ=SECONDLY;BYMONTH=2;BYMONTHDAY=30"
WHEN = "2026-03-28T00:00:00Z"
SCHEDULES: list[Any] = [
    {"rrule": {"rrule": NEVER}},
    {
        "rrule": {
            "rrule": "\n".join(["DTSTART:20200101T000000", "RRULE:FREQ=SECONDLY", *["EXRULE:FREQ=SECONDLY"] * 200])
        }
    },
    {"rrule": {"rrule": "FREQ=SECONDLY;COUNT=1000000000;BYSETPOS=-1"}},
    {"cron": {"cron": "0 0 29 2 1#5", "dayOr": False}},
    {"cron": {"cron": "* * * * * *"}},
    {"interval": {"intervalSeconds": 1e-6, "anchor": "0001-01-01T00:00:00Z"}},
    {"interval": {"intervalSeconds": 1e300}},
]
DATES = """query($input: ScheduleDatesInput!) { it: scheduleDates(input: $input) {
  __typename ... on ScheduleDatesPayload { hasMore dates { date } } } }"""
TABLES = "{ artifacts(first: 30) { nodes { id content { ... on TableContent { rowCount rows } } } } }"


def friendly(watch: Watch, growth_bytes: int = 50 * MB) -> None:
    """Check that other clients were answered quickly and that the server stayed small."""
    assert {*watch.statuses} == {200}
    assert watch.slowest < 2
    assert watch.growth_bytes < growth_bytes, f"grew by {watch.growth_bytes / MB:.0f} MB"


def client_of(server: Server) -> httpx.AsyncClient:
    """Return a client of a server."""
    return httpx.AsyncClient(base_url=base_of(server), timeout=60)


async def test_tables_with_very_many_rows_are_read_one_by_one(serve: Serve) -> None:
    server = await serve()
    values: list[Any] = [[{}] * (SIZE // 4), [[]] * (SIZE // 4), {"a": [0] * (SIZE // 3)}]
    async with client_of(server) as client:
        ask = Ask(client)
        run = await make_flow_run(ask)
        for data in values * 10:
            await do(ask, "createArtifact", "CreateArtifactInput", PROBLEM, flowRunId=run, type="table", data=data)
        async with watched(server) as watch:
            answer = await ask.raw(TABLES)
    found = [each["content"]["rowCount"] for each in answer["data"]["artifacts"]["nodes"]] if answer["data"] else []
    assert found or {each["extensions"]["code"] for each in answer["errors"]} == {"LIMIT_EXCEEDED"}
    friendly(watch)


async def test_schedules_that_take_too_long_delay_nobody(serve: Serve) -> None:
    server = await serve()
    async with client_of(server) as client, watched(server) as watch:
        ask = Ask(client)
        async with asyncio.timeout(50):
            answers = await asyncio.gather(
                *(ask(DATES, input={"schedule": each, "after": WHEN, "first": 1000}) for each in SCHEDULES)
            )
    assert {each["it"]["__typename"] for each in answers} <= {"ScheduleDatesPayload", "InvalidInput"}
    friendly(watch)


async def test_logs_of_many_clients_at_once_are_written_or_refused(serve: Serve) -> None:
    server = await serve()
    line = {"level": 20, "logger": "a", "message": "x" * 5_000, "timestamp": WHEN}
    async with client_of(server) as client:
        ask = Ask(client)
        run = await make_flow_run(ask)
        lines = [{**line, "flowRunId": run}] * 150
        document = f"mutation($input: WriteLogsInput!) {{ writeLogs(input: $input) {{ {PROBLEM} }} }}"
        async with watched(server) as watch:
            answers = await asyncio.gather(*(ask.raw(document, input={"logs": lines}) for _ in range(60)))
    codes = {each["extensions"]["code"] for answer in answers for each in answer.get("errors", ())}
    assert codes <= {"OVERLOADED", "TIMEOUT", "UNAVAILABLE"}
    friendly(watch, 100 * MB)


async def test_large_requests_are_parsed_a_few_at_a_time(serve: Serve) -> None:
    server = await serve()
    document = f"mutation($i: CreateFlowRunInput!) {{ it: createFlowRun(input: $i) {{ {PROBLEM} }} }}"
    async with client_of(server) as client:
        ask = Ask(client)
        given = {"flowId": await make_flow(ask), "parameters": {"a": [[]] * (SIZE // 4)}}
        async with watched(server) as watch:
            answers = await asyncio.gather(*(ask.raw(document, i=given) for _ in range(30)))
    assert {answer["data"]["it"]["__typename"] for answer in answers} == {"CreateFlowRunPayload"}
    friendly(watch, 100 * MB)


async def test_an_expensive_schema_of_parameters_delays_nobody(serve: Serve) -> None:
    server = await serve()
    schema = {"properties": {"a": {"uniqueItems": True}}, "patternProperties": {"^(a|a)*$": {"type": "array"}}}
    async with client_of(server) as client:
        ask = Ask(client)
        deployment = await make_deployment(
            ask, flowId=await make_flow(ask), parameterSchema=schema, enforceParameterSchema=True
        )
        given = {"a": [{"b": number} for number in range(50_000)], "a" * 5_000 + "!": 1}
        document = f"mutation($i: RunDeploymentInput!) {{ it: runDeployment(input: $i) {{ {PROBLEM} }} }}"
        async with watched(server) as watch:
            answers = await asyncio.gather(
                *(ask.raw(document, i={"deploymentId": deployment, "parameters": given}) for _ in range(4))
            )
    kinds = {answer["data"]["it"]["__typename"] for answer in answers if answer.get("data")}
    assert kinds <= {"RunDeploymentPayload", "InvalidInput"}
    friendly(watch)
