"""How many runs there are."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from runstate.documents.states import StateType
from runstate.rows.runs import FlowRun, Run


@dataclass(frozen=True)
class StateCount:
    """How many runs are in states of one type and name."""

    state_type: StateType | None
    """Type of the current state; null: none yet."""
    state_name: str | None
    """Name of the current state; null: none yet."""
    count: int
    """How many runs."""


@dataclass(frozen=True)
class RunCount:
    """How many flow runs have the same in what they are grouped by; the rest is null."""

    state_type: StateType | None
    """Type of the current state."""
    state_name: str | None
    """Name of the current state."""
    flow_id: UUID | None
    """Id of the flow."""
    deployment_id: UUID | None
    """Id of the deployment."""
    count: int
    """How many flow runs."""


def count(run: type[Run], where: sa.ColumnElement[bool]) -> sa.Select[int]:
    """How many runs meet a condition."""
    return sa.select(sa.func.count()).select_from(run.__table__).where(where)


def counts_by_state(run: type[Run], where: sa.ColumnElement[bool]) -> sa.Select[StateType | None, str | None, int]:
    """The columns of a `StateCount` for each type and name that runs are in, most runs first."""
    columns = run.__table__.c
    counted = sa.func.count().label("count")
    return (
        sa.select(columns.state_type, columns.state_name, counted)
        .where(where)
        .group_by(columns.state_type, columns.state_name)
        .order_by(counted.desc(), columns.state_type, columns.state_name)
    )


def counts_by(names: Collection[str], where: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """The columns of a `RunCount` for each group of flow runs that have the same in these columns, most runs first."""
    columns = FlowRun.__table__.c
    known = [each.name for each in fields(RunCount)[:-1]]
    asked = [columns[name] for name in known if name in names]
    counted = sa.func.count().label("count")
    return (
        sa.select(*(columns[name] if name in names else sa.null().label(name) for name in known), counted)
        .select_from(FlowRun)
        .where(where)
        .group_by(*asked)
        .order_by(counted.desc(), *asked)
    )


def counts_in_groups(run: type[Run], by: Sequence[str], where: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """Some of the columns that runs are added up by, and how many runs that meet a condition have the same in them."""
    table = run.__table__
    home = table if "flow_id" in table.c else FlowRun.__table__
    columns = [(home if name in ("flow_id", "deployment_id") else table).c[name] for name in by]
    source = table if home is table else table.outerjoin(home, home.c.id == table.c.flow_run_id)
    counted = sa.select(*columns, sa.func.count().label("count")).select_from(source)
    return counted.where(where).group_by(*columns)
