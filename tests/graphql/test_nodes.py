"""Objects of any type by id: as few statements as one object of a known type, independent of the number of tables."""

from typing import Any
from uuid import UUID

import orjson
import pytest
import sqlalchemy as sa

from runstate.database import Database
from runstate.graphql.context import Context
from runstate.graphql.schema import build_schema
from runstate.graphql.types.scalars import dumped
from runstate.rows import Flow
from tests.graphql.factories import NOON, make_flow, make_flow_run, make_limit, make_task_run, store

SCHEMA = build_schema()
UNKNOWN = str(UUID(int=1))


async def execute(database: Database, document: str, **variables: Any) -> tuple[Any, int]:
    """Return the data of an answer, and the number of statements that it took."""
    context = Context(database, lambda: NOON)
    result = await SCHEMA.execute(document, variables, context)
    assert not result.errors
    return orjson.loads(dumped(result.data)), context.statements


@pytest.mark.parametrize(
    ("selection", "found", "statements"),
    [
        ("id", {}, 1),
        ("__typename id", {"__typename": "FlowRun"}, 1),
        ("... on FlowRun { name }", {"name": "run"}, 1),
        ("id ...f", {"name": "run"}, 1),
        ("... on Node { id ... on FlowRun { name } }", {"name": "run"}, 1),
        ("... on Run { name }", {"name": "run"}, 2),
        ("... on Flow { name } ... on FlowRun { name }", {"name": "run"}, 2),
        ("__typename ... on Flow { name }", {"__typename": "FlowRun"}, 3),
    ],
)
async def test_a_node_is_found_regardless_of_the_expected_type(
    database: Database, selection: str, found: dict[str, str], statements: int
) -> None:
    flow = make_flow()
    run = make_flow_run(flow)
    await store(database, flow, run)
    fragment = "fragment f on FlowRun { name }" if "...f" in selection else ""
    document = f"query($id: ID!) {{ node(id: $id) {{ {selection} }} }} {fragment}"

    data, taken = await execute(database, document, id=str(run.id))

    ids = {"id": str(run.id)} if "id" in selection.split() else {}
    assert data == {"node": {**ids, **found}}
    assert taken == statements
    assert (await execute(database, document, id=UNKNOWN))[0] == {"node": None}
    assert await execute(database, document, id="malformed") == ({"node": None}, 0)


async def test_nodes_are_in_the_order_of_their_ids(database: Database) -> None:
    flow, limit = make_flow(), make_limit()
    run = make_flow_run(flow)
    task = make_task_run(run)
    await store(database, flow, limit, run, task)
    ids = [str(run.id), UNKNOWN, "malformed", str(flow.id), str(limit.id), str(run.id), str(task.id)]
    names = ["FlowRun", None, None, "Flow", "ConcurrencyLimit", "FlowRun", "TaskRun"]

    for selection, statements in (("", 1), ("... on Flow { name }", 5), ("... on Run { name }", 5)):
        document = f"query($ids: [ID!]!) {{ nodes(ids: $ids) {{ id __typename {selection} }} }}"
        data, taken = await execute(database, document, ids=ids)
        assert [each and each["__typename"] for each in data["nodes"]] == names
        assert [each["id"] for each in data["nodes"] if each] == [
            id_ for id_, name in zip(ids, names, strict=True) if name
        ]
        assert taken == statements


async def test_the_type_of_a_deleted_or_changed_node_is_not_cached(database: Database) -> None:
    flow = make_flow()
    await store(database, flow)
    document = "query($id: ID!) { node(id: $id) { __typename ... on Flow { name } } }"
    assert (await execute(database, document, id=str(flow.id)))[0] == {"node": {"__typename": "Flow", "name": "etl"}}

    async with database.write() as transaction:
        await transaction.connection.execute(sa.delete(Flow))
    assert (await execute(database, document, id=str(flow.id)))[0] == {"node": None}

    await store(database, make_limit(id=flow.id))
    assert (await execute(database, document, id=str(flow.id)))[0] == {"node": {"__typename": "ConcurrencyLimit"}}


async def test_several_nodes_of_an_operation_are_loaded_together(database: Database) -> None:
    flow = make_flow()
    run = make_flow_run(flow)
    await store(database, flow, run)

    document = f'{{ a: node(id: "{flow.id}") {{ __typename }} b: node(id: "{run.id}") {{ __typename }} }}'

    assert await execute(database, document) == ({"a": {"__typename": "Flow"}, "b": {"__typename": "FlowRun"}}, 1)
