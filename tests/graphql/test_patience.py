"""Timeouts: an operation that takes too long is ended with an error."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import sqlalchemy as sa
from starlette.applications import Starlette

from runstate.app import build_app
from runstate.database import Database
from runstate.settings import Settings
from tests.client import asking, running
from tests.graphql.factories import make_flow, make_flow_run, store

RUNAWAY = """{ flowRuns(where: {not: {not: {flow: {flowRuns: {some: {not: {not: {flow: {flowRuns: {some:
  {not: {name: {contains: "run"}}}}}}}}}}}}}) { nodes { id } } }"""


@asynccontextmanager
async def kept_waiting(database: Database) -> AsyncIterator[None]:
    """Block reads of flow runs on PostgreSQL, whose planner avoids most expensive conditions."""
    async with database.write() as transaction:
        if not database.is_sqlite:
            await transaction.connection.execute(sa.text("LOCK TABLE flow_run"))
        yield


@pytest.mark.parametrize("setting", ["statement_timeout_seconds", "operation_timeout_seconds"])
async def test_a_query_ends_at_the_timeout_and_the_next_one_is_executed(
    url: str, database: Database, setting: str
) -> None:
    flow = make_flow()
    await store(database, flow, *(make_flow_run(flow, name=f"run {number}") for number in range(150)))
    app: Starlette = build_app(Settings.model_validate({"database_url": url, "services": "off", setting: 0.2}))
    async with running(app), asking(app) as ask:
        async with kept_waiting(database):
            (error,) = (await ask.raw(RUNAWAY))["errors"]
        assert error["extensions"]["code"] == "TIMEOUT"
        assert await ask("{ flowRunCount }") == {"flowRunCount": 150}


@pytest.mark.parametrize("accept", ["application/json", "application/graphql-response+json"])
async def test_a_mutation_that_times_out_is_answered_with_null_data(url: str, database: Database, accept: str) -> None:
    settings = {"database_url": url, "services": "off", "operation_timeout_seconds": 0.2}
    app: Starlette = build_app(Settings.model_validate(settings))
    document = 'mutation { createFlow(input: { name: "etl" }) { __typename } }'
    async with running(app), asking(app) as ask, database.write() as transaction:
        if not database.is_sqlite:
            await transaction.connection.execute(sa.text("LOCK TABLE flow"))
        await transaction.connection.execute(sa.text("SELECT 1"))
        reply = await ask.client.post("/graphql", json={"query": document}, headers={"Accept": accept})

    assert (reply.status_code, reply.json()["data"]) == (200, None)
    assert [error["extensions"]["code"] for error in reply.json()["errors"]] == ["TIMEOUT"]
