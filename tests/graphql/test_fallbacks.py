"""Fallbacks of plans and of the fast path: the answer is graphql-core's, and they are counted by reason."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from typing import Any, NoReturn

import asyncpg
import pytest
import sqlalchemy as sa
from starlette.applications import Starlette
from structlog.testing import capture_logs

from runstate.app import build_app, clock
from runstate.database import Database
from runstate.graphql.context import Context
from runstate.graphql.execution.fallbacks import FallbackReason
from runstate.graphql.schema import build_schema
from runstate.graphql.types.fields import DEFINED_BY
from runstate.settings import Settings
from tests.client import Ask, asking, running
from tests.graphql.factories import make_flow, make_flow_run, store

RUNS = "{ flowRuns { nodes { name totalRunTimeSeconds estimatedRunTimeSeconds } } }"
PROPOSE = "mutation($i: [ProposeStateInput!]!) { proposeStates(inputs: $i) { __typename } }"
DELETE = "mutation($id: ID!) { deleteFlow(id: $id) { __typename } }"


def context(app: Starlette) -> Context:
    """Return the context of one operation."""
    return Context(app.state.database, clock, batcher=app.state.batcher)


@contextmanager
def listened(engine: sa.Engine, event: str, listener: Any) -> Iterator[None]:
    """Listen to an event of an engine within a block."""
    sa.event.listen(engine, event, listener)
    try:
        yield
    finally:
        sa.event.remove(engine, event, listener)


async def test_a_value_that_no_plan_serializes_is_counted(app: Starlette, database: Database) -> None:
    flow, schema = make_flow(), build_schema()
    await store(database, flow, make_flow_run(flow, total_run_time_seconds=inf))

    result = await schema.execute(RUNS, None, context(app))

    assert result.errors
    assert schema.plan_cache.fallbacks.counts.keys() == {FallbackReason.VALUE}


@pytest.mark.parametrize(
    ("variables", "reason"), [({}, FallbackReason.INPUT), ({"id": 7}, FallbackReason.INPUT), ({"id": "7"}, None)]
)
async def test_variables_that_the_fast_path_does_not_read_are_counted(
    app: Starlette, variables: dict[str, Any], reason: FallbackReason | None
) -> None:
    schema = build_schema()
    await schema.execute(DELETE, {"id": "x"}, context(app))

    await schema.execute(DELETE, variables, context(app))

    assert schema.plan_cache.fallbacks.counts == ({reason: 1} if reason else {})


async def test_an_error_of_a_resolver_is_counted(app: Starlette) -> None:
    schema, document = (
        build_schema(),
        "mutation($i: [ProposeStateInput!]!) { proposeStates(inputs: $i) { __typename } }",
    )
    await schema.execute(document, {"i": []}, context(app))

    result = await schema.execute(document, {"i": []}, context(app))

    assert result.errors
    assert schema.plan_cache.fallbacks.counts == {FallbackReason.ERROR: 1}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (asyncpg.QueryCanceledError("late"), "TIMEOUT"),
        (asyncpg.TooManyConnectionsError("many"), "UNAVAILABLE"),
        (sa.exc.TimeoutError(), "OVERLOADED"),
    ],
)
@pytest.mark.parametrize(
    ("document", "table"),
    [
        (RUNS, "flow_run"),
        ("{ flows { nodes { flowRuns { nodes { id } } } } }", "flow_run"),
        ("{ flowRuns { nodes { id flow { name } } } }", "flow"),
        ("{ flowRuns { edges { cursor node { id flow { name } } } } }", "flow"),
    ],
)
async def test_an_error_of_the_database_is_reported_after_one_statement(
    app: Starlette, database: Database, error: Exception, code: str, document: str, table: str
) -> None:
    failed: list[str] = []

    def fail(_: Any, __: Any, statement: str, *___: Any) -> None:
        if re.search(rf"FROM {table}\s", statement):
            failed.append(statement)
            raise error

    flow, schema = make_flow(), build_schema()
    await store(database, flow, make_flow_run(flow))
    with listened(app.state.database.reader.sync_engine, "before_cursor_execute", fail):
        result = await schema.execute(document, None, context(app))

    assert [(each.extensions or {})["code"] for each in result.errors or ()] == [code]
    assert len(failed) == 1
    assert not schema.plan_cache.fallbacks.counts


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_a_bug_in_a_plan_is_counted_and_logged_once_a_document(
    app: Starlette, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> NoReturn:
        raise ZeroDivisionError

    flow, schema = make_flow(), build_schema()
    field = schema._schema.type_map["FlowRun"].fields["estimatedRunTimeSeconds"]  # type: ignore[attr-defined]  # noqa: SLF001
    definition = field.extensions[DEFINED_BY]
    monkeypatch.setattr(definition, "metadata", {**definition.metadata, "computed": fail})
    await store(database, flow, make_flow_run(flow))

    with capture_logs() as logs:
        documents = (RUNS, RUNS, f"query Other {RUNS}")
        results = [await schema.execute(each, None, context(app)) for each in documents]

    assert [each.errors for each in results] == [None, None, None]
    assert schema.plan_cache.fallbacks.counts.keys() == {FallbackReason.UNEXPECTED}
    failures = [(each["operation"], type(each["exc_info"])) for each in logs if each["event"] == "plan_failed"]
    assert failures == [(None, ZeroDivisionError), ("Other", ZeroDivisionError)]


async def test_metrics_contain_fallbacks_by_reason(ask: Ask) -> None:
    for key in ("x", "x", 7):
        await ask.raw(DELETE, id=key)

    text = (await ask.client.get("/metrics")).text

    assert 'runstate_plan_fallbacks_total{reason="input"} 1.0' in text
    assert 'runstate_plan_fallbacks_total{reason="unexpected"} 0.0' in text


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_without_plans_graphql_core_executes_everything(url: str, kind: str) -> None:
    app = build_app(Settings(database_url=url, services="off", plans=False))

    async with running(app), asking(app) as ask:
        for key in ("x", "x", 7):
            assert await ask(DELETE, id=key) == {"deleteFlow": {"__typename": "NotFound"}}
        assert 'runstate_plan_fallbacks_total{reason="input"} 0.0' in (await ask.client.get("/metrics")).text
