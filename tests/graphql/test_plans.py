"""Query plans of frequent operations on PostgreSQL: they use an index and never scan a large table."""

import random
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.applications import Starlette

from runstate.database import Database
from runstate.database.queries.tallies import recount
from runstate.documents.states import StateType
from runstate.rows import FlowRun, TaskRun
from tests.client import Ask
from tests.graphql.factories import at, make_flow, make_flow_run, make_task_run

MANY = 4000
QUERIES = {
    "a page of a state by start time": """{ taskRuns(where: {stateType: {eq: COMPLETED}},
      orderBy: [{startTime: DESC}], first: 20) { nodes { id name } } }""",
    "a page by start time, the other way": "{ taskRuns(orderBy: [{startTime: ASC}], first: 20) { nodes { id } } }",
    "a page by end time": "{ taskRuns(orderBy: [{endTime: DESC}], first: 20) { nodes { id } } }",
    "a page by name": "{ taskRuns(orderBy: [{name: ASC}], first: 20) { nodes { id } } }",
    "a count by tag": '{ taskRunCount(where: {stateType: {in: [COMPLETED, FAILED]}, tags: {any: ["rare"]}}) }',
    "a history": """{ taskRunHistory(since: "2026-01-01T12:00:00Z", until: "2026-01-01T12:01:00Z",
      intervalSeconds: 10) { start } }""",
    "counts by state": "{ taskRunCountsByState { count } flowRunCountsByState { count } taskRunCount }",
}


async def fill(database: Database) -> None:
    """Insert so many task runs that indexes pay off."""
    flow, chance = make_flow(), random.Random(3)
    run = make_flow_run(flow)
    tasks = [
        make_task_run(
            run,
            name=f"task {number}",
            tags=["rare"] if number % 100 == 0 else ["usual"],
            state_type=chance.choice([StateType.COMPLETED, StateType.FAILED, StateType.RUNNING]),
            state_name="Some",
            expected_start_time=at(number),
            start_time=at(number),
            end_time=at(number + 1),
        )
        for number in range(MANY)
    ]
    async with database.write() as transaction:
        for rows in ([flow], [run], tasks):
            table: Any = type(rows[0]).__table__
            await transaction.connection.execute(sa.insert(table), [vars(each) for each in rows])
        await recount(transaction.connection)
        if not database.is_sqlite:  # no server runs ANALYZE on SQLite
            await transaction.connection.execute(sa.text("ANALYZE"))


@pytest.mark.parametrize("kind", ["postgresql"])
async def test_no_large_table_is_scanned(app: Starlette, ask: Ask, database: Database) -> None:
    await fill(database)

    for what, document in QUERIES.items():
        asked = await statements(app, ask, document)
        assert asked or what == "counts by state"
        for statement, parameters in asked:
            plan = await explained(app.state.database, f"EXPLAIN {statement}", parameters)
            for table in (TaskRun, FlowRun):
                assert f"Seq Scan on {table.__tablename__} " not in plan, (what, plan)


SEARCHED = {
    QUERIES["a count by tag"]: "SEARCH task_run USING INDEX ix_task_run_tags_list (tags=?)",
    "{ flowRuns(first: 3) { nodes { taskRuns { nodes { id } } } } }": "SEARCH task_run USING INDEX",
    "{ taskRuns(first: 3) { nodes { flowRun { name } } } }": "SEARCH flow_run USING INDEX sqlite_autoindex_flow_run_1",
}


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_sqlite_finds_tags_and_children_by_an_index(app: Starlette, ask: Ask, database: Database) -> None:
    await fill(database)

    for document, found in SEARCHED.items():
        statement, parameters = (await statements(app, ask, document))[-1]
        plan = await explained(app.state.database, f"EXPLAIN QUERY PLAN {statement}", parameters)
        assert found in plan, plan


async def statements(app: Starlette, ask: Ask, document: str) -> list[tuple[str, Any]]:
    """Return the statements on tables of runs that answer a document."""
    asked: list[tuple[str, Any]] = []

    def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        if " FROM " in statement.replace("\n", " ") and "_run" in statement + str(parameters):
            asked.append((statement, parameters))

    reader = app.state.database.reader.sync_engine
    sa.event.listen(reader, "before_cursor_execute", note)
    await ask(document)
    sa.event.remove(reader, "before_cursor_execute", note)
    return asked


async def explained(database: Database, statement: str, parameters: Any) -> str:
    """Return the plan of a statement."""
    async with database.read() as connection:
        found = await connection.exec_driver_sql(statement, parameters)
        return "\n".join(str(line[-1]) for line in found)
