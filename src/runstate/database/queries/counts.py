"""Numbers of rows by group: the tables whose rows are counted, and the columns that they can be grouped by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from runstate.database.dialects import NUMBER
from runstate.database.queries.tallies import tallied
from runstate.documents.states import RunKind, StateType
from runstate.rows import FlowRun, Row, TaskRun

RUN_KINDS: Final[Mapping[type[Row], RunKind]] = {FlowRun: RunKind.FLOW_RUN, TaskRun: RunKind.TASK_RUN}
OF_FLOW_RUN: Final = ("flow_id", "deployment_id")
"""Columns that task runs are grouped by and that their flow run has."""


@dataclass(frozen=True)
class StateCount:
    """Number of runs in states of one type and name."""

    state_type: StateType | None
    """Type of the current state; null if the run has not entered a state yet."""
    state_name: str | None
    """Name of the current state; null if the run has not entered a state yet."""
    count: int
    """Number of runs."""


@dataclass(frozen=True)
class CountedTable:
    """A table whose rows are counted."""

    table: sa.FromClause
    """Table to which conditions apply."""
    columns: Mapping[str, sa.ColumnElement[Any]]
    """Columns that rows can be grouped by."""
    number: sa.ColumnElement[int]
    """Number of rows in a group."""
    joined: sa.FromClause | None = None
    """The table joined with those that have the other columns; None if it has all of them."""

    def counts(self, groups: Sequence[str], *conditions: sa.ColumnElement[bool]) -> sa.Select[Any]:
        """Return the statement that selects the columns of each group and its `count`; one `count` without groups."""
        columns = [self.columns[name] for name in groups]
        number = self.number.label("count")
        statement = sa.select(*columns, number).select_from(self._source(columns)).where(*conditions)
        # The tallies of a group that all its runs have left add up to 0.
        return statement.group_by(*columns).having(self.number != 0) if columns else statement

    def _source(self, columns: Sequence[Any]) -> sa.FromClause:
        # The join costs time, so it is made only for columns that need it.
        if self.joined is None or all(column.table is self.table for column in columns):
            return self.table
        return self.joined


def _named(columns: Any) -> dict[str, sa.ColumnElement[Any]]:
    return {column.key: column for column in columns}


def _task_runs() -> CountedTable:
    task_run, flow_run = TaskRun.__table__, FlowRun.__table__
    columns = _named(task_run.c) | {name: flow_run.c[name] for name in OF_FLOW_RUN}
    # Task runs without a flow run are counted, too.
    joined = task_run.outerjoin(flow_run, flow_run.c.id == task_run.c.flow_run_id)
    return CountedTable(task_run, columns, sa.func.count(), joined)


def _tallies(kind: RunKind) -> CountedTable:
    table = tallied(kind)
    columns = {name: table.c[name] for name in (*OF_FLOW_RUN, "state_type", "state_name")}
    # PostgreSQL adds bigint values up to a numeric value.
    number = sa.func.coalesce(sa.func.sum(table.c.number), 0)
    return CountedTable(table, columns, sa.cast(number, NUMBER))


TALLIES: Final[Mapping[type[Row], CountedTable]] = {row: _tallies(kind) for row, kind in RUN_KINDS.items()}
"""Tables of tallies by the row class that they count."""
JOINED: Final[Mapping[type[Row], CountedTable]] = {TaskRun: _task_runs()}
"""Tables whose rows can also be grouped by columns of other tables, by row class."""


def counted_table(row: type[Row]) -> CountedTable:
    """Return the table of a row class, to count its rows without tallies."""
    return JOINED.get(row) or CountedTable(row.__table__, _named(row.__table__.c), sa.func.count())
