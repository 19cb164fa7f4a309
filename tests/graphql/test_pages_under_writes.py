"""Pages during writes and deletions: rows that exist throughout appear once, in every order."""

import random
from collections.abc import Sequence
from typing import Any, cast

import pytest
import sqlalchemy as sa

from runstate.database import Database
from runstate.database.driver import fetch_as_given
from runstate.graphql.pagination.keyset import PageArguments, PageQuery
from runstate.graphql.types.input_values import made
from runstate.graphql.types.orders import Direction, OrderBy
from runstate.rows import FlowRun
from tests.client import Ask
from tests.graphql.factories import at, make_flow, make_flow_run, store

PAGE = """query($orderBy: [FlowRunOrderBy!], $first: Int, $after: String, $last: Int, $before: String) {
  flowRuns(orderBy: $orderBy, first: $first, after: $after, last: $last, before: $before) {
    nodes { id } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }"""


@pytest.mark.parametrize("seed", range(6))
async def test_rows_that_exist_throughout_appear_once(database: Database, ask: Ask, seed: int) -> None:
    chance, flow = random.Random(seed), make_flow()

    def a_run() -> FlowRun:
        times = {name: chance.choice([None, at(1), at(2), at(3)]) for name in ("start_time", "end_time")}
        return make_flow_run(flow, name=chance.choice("abc"), **times)

    order = [{name: chance.choice(["ASC", "DESC"])} for name in chance.sample(["startTime", "endTime", "name"], k=2)]
    stays, goes = [a_run() for _ in range(15)], [a_run() for _ in range(8)]
    await store(database, flow, *stays, *goes)
    backwards, found, cursor, more = seed % 2 == 1, [], None, True
    while more:
        size = chance.randrange(1, 5)
        asked = {"last": size, "before": cursor} if backwards else {"first": size, "after": cursor}
        page = (await ask(PAGE, orderBy=order, **asked))["flowRuns"]
        info = page["pageInfo"]
        found += [each["id"] for each in page["nodes"]]
        cursor = info["startCursor" if backwards else "endCursor"]
        more = info["hasPreviousPage" if backwards else "hasNextPage"] and cursor is not None
        await store(database, a_run())
        if goes:
            async with database.write() as transaction:
                await transaction.connection.execute(sa.delete(FlowRun).where(FlowRun.id == goes.pop().id))

    assert len(found) == len(set(found))
    assert {str(run.id) for run in stays} <= set(found)


@pytest.mark.parametrize("direction", [{"first": 3}, {"last": 3}])
async def test_a_run_that_starts_during_a_page_is_on_it_once(database: Database, direction: dict[str, int]) -> None:
    flow = make_flow()
    runs = [make_flow_run(flow, start_time=None if number % 2 else at(number)) for number in range(4)]
    await store(database, flow, *runs)
    start = sa.update(FlowRun).where(FlowRun.id == runs[1].id).values(start_time=at(9))
    read: list[Any] = []

    async def read_and_start(statement: sa.Executable) -> Sequence[Any]:
        async with database.read() as connection:
            read.append(await fetch_as_given(connection, statement))
        async with database.write() as transaction:
            await transaction.connection.execute(start)
        return cast("Sequence[Any]", read[-1])

    order: Any = made(OrderBy, {"start_time": Direction.ASC})
    arguments: PageArguments[FlowRun] = PageArguments(order_by=[order], **direction)  # type: ignore[arg-type]
    query = PageQuery(FlowRun, arguments, frozenset({"id"}), database.reader.dialect)
    (page,) = await query.pages(read_and_start, [None])

    ids = page.rows.values_of("id")
    assert len(set(ids)) == len(ids) == 3
    assert page.has_more
    assert len(read) == 2
