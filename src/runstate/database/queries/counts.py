"""Numbers of rows by group: the tables whose rows are counted, and the columns that they can be grouped by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from runstate.database.dialects import NUMBER, items
from runstate.database.queries.tallies import tallied
from runstate.documents.states import RunKind, StateType
from runstate.rows import FlowRun, FlowRunState, Row, Run, State, TaskRun, TaskRunState

RUN_KINDS: Final[Mapping[type[Row], RunKind]] = {FlowRun: RunKind.FLOW_RUN, TaskRun: RunKind.TASK_RUN}
OF_FLOW_RUN: Final = ("flow_id", "deployment_id", "work_queue_name")
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


class Joined(NamedTuple):
    """A table beside the counted one, and the condition on its rows."""

    table: sa.FromClause
    condition: sa.ColumnElement[bool]


@dataclass(frozen=True)
class CountedTable:
    """A table whose rows are counted."""

    table: sa.FromClause
    """Table to which conditions apply."""
    columns: Mapping[str, sa.ColumnElement[Any]]
    """Columns that rows can be grouped by."""
    number: sa.ColumnElement[int]
    """Number of rows in a group."""
    joined: Sequence[Joined] = ()
    """Tables that some of the columns belong to."""

    def counts(self, groups: Sequence[str], *conditions: sa.ColumnElement[bool]) -> sa.Select[Any]:
        """Return the statement that selects the columns of each group and its `count`; one `count` without groups."""
        columns = [self.columns[name] for name in groups]
        number = self.number.label("count")
        statement = sa.select(*columns, number).select_from(self.source(groups)).where(*conditions)
        # The tallies of a group that all its runs have left add up to 0.
        return statement.group_by(*columns).having(self.number != 0) if columns else statement

    def source(self, groups: Sequence[str]) -> sa.FromClause:
        """Return the table with those that the columns of groups belong to."""
        needed: set[Any] = {self.columns[name].table for name in groups}
        source = self.table
        # A join costs time, so it is made only for columns that need it.
        for each in self.joined:
            source = source.outerjoin(each.table, each.condition) if each.table in needed else source
        return source


def _named(columns: Any) -> dict[str, sa.ColumnElement[Any]]:
    return {column.key: column for column in columns}


def _runs(run: type[Run], state: type[State], *joined: Joined) -> CountedTable:
    """Return the table of runs, which are counted once for each of their tags if they are grouped by tag."""
    table, tags = run.__table__, items(run.__table__.c.tags, "tagged")
    columns = _named(table.c) | {"tag": tags.c.value, "actor": state.__table__.c.actor}
    for each in joined:
        columns |= {name: each.table.c[name] for name in OF_FLOW_RUN}
    own = Joined(tags, sa.true()), Joined(state.__table__, state.__table__.c.id == table.c.state_id)
    return CountedTable(table, columns, sa.func.count(), (*joined, *own))


def _tallies(kind: RunKind) -> CountedTable:
    table = tallied(kind)
    columns = {name: table.c[name] for name in ("flow_id", "deployment_id", "state_type", "state_name")}
    # PostgreSQL adds bigint values up to a numeric value.
    number = sa.func.coalesce(sa.func.sum(table.c.number), 0)
    return CountedTable(table, columns, sa.cast(number, NUMBER))


TALLIES: Final[Mapping[type[Row], CountedTable]] = {row: _tallies(kind) for row, kind in RUN_KINDS.items()}
"""Tables of tallies by the row class that they count."""
COUNTED: Final[Mapping[type[Row], CountedTable]] = {
    FlowRun: _runs(FlowRun, FlowRunState),
    TaskRun: _runs(TaskRun, TaskRunState, Joined(FlowRun.__table__, FlowRun.__table__.c.id == TaskRun.flow_run_id)),
}
"""Tables whose rows can also be grouped by columns of other tables, by row class."""


def counted_table(row: type[Row]) -> CountedTable:
    """Return the table of a row class, to count its rows without tallies."""
    return COUNTED.get(row) or CountedTable(row.__table__, _named(row.__table__.c), sa.func.count())
