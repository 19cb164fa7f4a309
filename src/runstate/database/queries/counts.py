"""How many runs there are."""

from dataclasses import dataclass

import sqlalchemy as sa

from runstate.documents.states import StateType
from runstate.rows.runs import Run


@dataclass(frozen=True)
class StateCount:
    """How many runs are in states of one type and name."""

    state_type: StateType | None
    """Type of the current state; null: none yet."""
    state_name: str | None
    """Name of the current state; null: none yet."""
    count: int
    """How many runs."""


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
