"""Pages of rows by offset: the bodies of list requests, and their statements."""

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, NamedTuple

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field, create_model

from runstate.prefect.filters import OF_ROWS, Clause, Column, Condition, Table
from runstate.rows import (
    Artifact,
    ArtifactCollection,
    Automation,
    BlockDocument,
    BlockSchema,
    BlockType,
    Deployment,
    Flow,
    FlowRun,
    Log,
    Row,
    TaskRun,
    Worker,
    WorkPool,
    WorkQueue,
)
from runstate.rows.variables import Variable

LARGEST: Final = 200
"""Largest number of rows on a page, and the default."""

Way = tuple[type[Row], ...]
"""The rows that lead from a row to others, each with a key between it and the one before."""

QUEUES: Final = {"work_pools": (WorkQueue, WorkPool), "work_pool_queues": (WorkQueue,)}
OVER_RUNS: Final = {
    "flows": (FlowRun, Flow),
    "flow_runs": (FlowRun,),
    "deployments": (FlowRun, Deployment),
    "task_runs": (TaskRun,),
}


class Family(NamedTuple):
    """A kind of row that is listed."""

    row: type[Row]
    own: str
    """Name of its own filter in the body."""
    sorts: str = ""
    """Names of its orders, the default first."""
    others: Mapping[str, Way] = {}
    """Further filters in the body, each with the way to its rows."""


FAMILIES: Final = (
    Family(
        FlowRun,
        "flow_runs",
        "ID_DESC START_TIME_ASC START_TIME_DESC EXPECTED_START_TIME_ASC EXPECTED_START_TIME_DESC NAME_ASC NAME_DESC "
        "NEXT_SCHEDULED_START_TIME_ASC END_TIME_DESC",
        {"flows": (Flow,), "task_runs": (TaskRun,), "deployments": (Deployment,), **QUEUES},
    ),
    Family(
        TaskRun,
        "task_runs",
        "ID_DESC EXPECTED_START_TIME_ASC EXPECTED_START_TIME_DESC NAME_ASC NAME_DESC NEXT_SCHEDULED_START_TIME_ASC "
        "END_TIME_DESC",
        {
            **{name: way for name, way in OVER_RUNS.items() if name != "task_runs"},
            **{name: (FlowRun, *way) for name, way in QUEUES.items()},
        },
    ),
    Family(
        Flow,
        "flows",
        "NAME_ASC NAME_DESC CREATED_DESC UPDATED_DESC",
        {
            "flow_runs": (FlowRun,),
            "task_runs": (FlowRun, TaskRun),
            "deployments": (Deployment,),
            "work_pools": (Deployment, WorkQueue, WorkPool),
        },
    ),
    Family(
        Deployment,
        "deployments",
        "NAME_ASC NAME_DESC CREATED_DESC UPDATED_DESC",
        {"flows": (Flow,), "flow_runs": (FlowRun,), "task_runs": (FlowRun, TaskRun), **QUEUES},
    ),
    Family(Log, "logs", "TIMESTAMP_ASC TIMESTAMP_DESC"),
    Family(Artifact, "artifacts", "ID_DESC CREATED_DESC UPDATED_DESC KEY_DESC KEY_ASC", OVER_RUNS),
    Family(ArtifactCollection, "artifacts", "ID_DESC CREATED_DESC UPDATED_DESC KEY_DESC KEY_ASC", OVER_RUNS),
    Family(Variable, "variables", "NAME_ASC NAME_DESC CREATED_DESC UPDATED_DESC"),
    Family(Automation, "automations", "NAME_ASC NAME_DESC CREATED_DESC UPDATED_DESC"),
    Family(BlockType, "block_types", "NAME_ASC", {"block_schemas": (BlockSchema,)}),
    Family(BlockSchema, "block_schemas", "CREATED_DESC"),
    Family(
        BlockDocument,
        "block_documents",
        "NAME_ASC NAME_DESC BLOCK_TYPE_AND_NAME_ASC",
        {"block_types": (BlockType,), "block_schemas": (BlockSchema,)},
    ),
    Family(WorkPool, "work_pools", "NAME_ASC"),
    Family(WorkQueue, "work_queues", "PRIORITY_ASC"),
    Family(Worker, "workers", "LAST_HEARTBEAT_TIME_DESC"),
)


def _started(table: Table) -> Column:
    """Return the time at which a run started, or is expected to."""
    return sa.func.coalesce(table.c.start_time, table.c.expected_start_time)


COLUMNS: Final[dict[tuple[type[Row], str], Callable[[Table], list[Column]]]] = {
    (FlowRun, "start_time"): lambda table: [_started(table)],
    (BlockDocument, "block_type_and_name"): lambda table: [table.c.block_type_name, table.c.name],
}
"""Expressions to sort by that are no columns of the row."""


class Page(BaseModel):
    """The body of a request for rows: filters, order, size and offset. Null counts as omitted."""

    model_config = ConfigDict(frozen=True)

    sort: Any = None
    limit: int | None = Field(default=None, ge=0, le=LARGEST)
    offset: int | None = Field(default=None, ge=0, lt=2**31)


def _body(family: Family) -> type[Page]:
    found = {family.own: OF_ROWS[family.row]} | {name: OF_ROWS[way[-1]] for name, way in family.others.items()}
    fields: dict[str, Any] = {name: (kind | None, None) for name, kind in found.items()}
    fields["sort"] = (Literal[*family.sorts.split()] | None, None)
    return create_model(f"{family.row.__name__}Page", __base__=Page, __module__=__name__, **fields)


BY_ROW: Final = {family.row: family for family in FAMILIES}
BODIES: Final[dict[type[Row], type[Page]]] = {family.row: _body(family) for family in FAMILIES}
"""The body of the list of each kind of row."""


def conditions(row: type[Row], body: Page) -> list[Clause]:
    """Return the conditions of all filters in a body on the table of a row."""
    family, table = BY_ROW[row], row.__table__
    ways: Mapping[str, Way] = {family.own: ()} | dict(family.others)
    given = {name: condition for name in ways if (condition := getattr(body, name, None)) is not None}
    found = (_beyond(table, ways[name], condition) for name, condition in given.items())
    return [clause for clause in found if clause is not None]


def _beyond(table: Table, way: Way, condition: Condition) -> Clause | None:
    """Return the condition that a row leads to one that meets a condition; None without one."""
    if not way:
        return condition.clause(table)
    target, *further = way
    other = target.__table__.alias()
    clause = _beyond(other, tuple(further), condition)
    if clause is None:
        return None
    key = _key(table, target)
    if key is not None:
        # A few rows that are looked up once: an index on the key then serves the list.
        return table.c[key].in_(sa.select(other.c.id).where(clause))
    back = _key(other, _row_of(table))
    # EXISTS, because a row can lead to very many others, of which one is enough.
    return sa.select(sa.literal(1)).where(other.c[str(back)] == table.c.id, clause).correlate(table).exists()


def _row_of(table: Table) -> type[Row]:
    # The table of an alias is its element.
    return next(row for row in BY_ROW if row.__table__ is getattr(table, "element", table))


def _key(table: Table, target: type[Row]) -> str | None:
    """Return the column of a table that refers to a row by its id, or None."""
    name = f"{target.__tablename__}_id"
    return name if name in table.c else None


def order(row: type[Row], sort: str | None) -> list[Column]:
    """Return what rows are sorted by: an order of the client, then the id. Nulls come last."""
    table, name = row.__table__, sort or BY_ROW[row].sorts.split()[0]
    key, _, direction = name.lower().rpartition("_")
    known = COLUMNS.get((row, key))
    expressions = known(table) if known else [table.c[key]]
    # The id makes the order complete, so that pages neither repeat nor omit rows with equal keys.
    keys = [*expressions, table.c.id] if key != "id" else expressions
    return [_directed(each, descending=direction == "desc") for each in keys]


def _directed(column: Column, *, descending: bool) -> Column:
    directed = column.desc() if descending else column.asc()
    # By default, SQLite takes nulls as the smallest values and PostgreSQL as the largest.
    return directed.nulls_last() if getattr(column, "nullable", True) else directed


def page(row: type[Row], body: Page, *further: Clause) -> sa.Select[Any]:
    """Return the statement for a page of rows."""
    limit = LARGEST if body.limit is None else body.limit
    chosen = sa.select(*row.__table__.c).where(*conditions(row, body), *further)
    return chosen.order_by(*order(row, body.sort)).limit(limit).offset(body.offset or 0)


def count(row: type[Row], body: Page, *further: Clause) -> sa.Select[Any]:
    """Return the statement that counts rows."""
    return sa.select(sa.func.count()).select_from(row.__table__).where(*conditions(row, body), *further)
