"""Statistics of runs in groups: outcomes, and distributions of run times and lateness, as far as they are requested."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from math import floor
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from runstate.database.dialects import seconds_between
from runstate.database.queries.counts import CountedTable, counted_table
from runstate.database.queries.intervals import Intervals
from runstate.documents.states import FINAL_TYPES, StateType
from runstate.rows.base import Timestamp
from runstate.rows.runs import Run

SECONDS: Final[sa.Double[float]] = sa.Double()
OUTCOMES: Final[Mapping[str, StateType]] = {
    "completed": StateType.COMPLETED,
    "failed": StateType.FAILED,
    "crashed": StateType.CRASHED,
    "cancelled": StateType.CANCELLED,
}


class RunTime(StrEnum):
    """Time of a run by which it falls into an interval."""

    EXPECTED_START = "expected_start_time"
    """Time at which it was first expected to start."""
    START = "start_time"
    """Time at which it started."""
    END = "end_time"
    """Time at which it ended."""


class Measure(StrEnum):
    """A number of seconds that each run has, or not."""

    RUN_TIME = "run_time"
    LATENESS = "lateness"

    def of(self, table: sa.FromClause, now: datetime) -> sa.ColumnElement[Any]:
        """Return the value of the rows of a table of runs."""
        return _run_time(table) if self is Measure.RUN_TIME else _lateness(table, now)


def _run_time(table: sa.FromClause) -> sa.ColumnElement[Any]:
    has_run = table.c.state_type.in_(FINAL_TYPES) & (table.c.run_count > 0)
    return sa.case((has_run, table.c.total_run_time_seconds))


def _lateness(table: sa.FromClause, now: datetime) -> sa.ColumnElement[Any]:
    present = sa.literal(now, Timestamp())
    is_due = table.c.state_type.not_in(FINAL_TYPES) & (table.c.expected_start_time <= present)
    started = sa.func.coalesce(table.c.start_time, sa.case((is_due, present)))
    # NULL for runs that have not started and are not due: they count in no aggregate.
    late = seconds_between(table.c.expected_start_time, started)
    return sa.case((late < 0, 0.0), else_=late)


class Distribution(NamedTuple):
    """The requested aggregates of a measure."""

    measure: Measure
    parts: frozenset[str]
    """Names of aggregates: `count`, `mean`, `min`, `max`."""
    quantiles: tuple[float, ...] = ()
    """Shares from 0 to 1."""


@dataclass(frozen=True)
class StatisticsQuery:
    """A query for statistics. `groups` are columns of the counted table; `outcomes` are keys of `OUTCOMES`."""

    run: type[Run]
    where: sa.ColumnElement[bool]
    groups: Sequence[str]
    by: RunTime
    now: datetime
    intervals: Intervals | None = None
    outcomes: Collection[str] = ()
    distributions: Sequence[Distribution] = ()
    names: list[Any] = field(default_factory=list)
    """The names of the columns of the statement."""

    def statement(self, most: int) -> sa.Select[Any]:
        """Return the statement for the largest groups. Each row has the values of the columns in `names`."""
        # Materialized: the group and the measures of a run are computed once, although ranks and aggregates use them.
        runs = self._runs(counted_table(self.run)).cte("runs").prefix_with("MATERIALIZED")
        groups: list[sa.ColumnElement[Any]] = [column for column in runs.c if str(column.key).startswith("group_")]
        source = self._ranked(runs, groups)
        values = {"count": sa.func.count()} | self._outcomes(source)
        for each in self.distributions:
            values |= _aggregates(each, source)
        keys = [source.c[str(each.key)] for each in groups]
        self.names[:] = [*self.groups, *(["place"] if self.intervals else []), *values]
        asked = sa.select(*keys, *values.values()).select_from(source)
        return asked.group_by(*keys).order_by(values["count"].desc(), *keys).limit(most) if keys else asked

    def _runs(self, counted: CountedTable) -> sa.Select[Any]:
        """Select the runs with the columns of their group and the values of the measures."""
        table, time = counted.table, counted.table.c[self.by.value]
        keys = [counted.columns[name] for name in self.groups]
        if self.intervals:
            keys.append(self.intervals.place(time))
        columns: list[sa.ColumnElement[Any]] = [key.label(f"group_{place}") for place, key in enumerate(keys)]
        columns += [table.c.state_type] if self.outcomes else []
        columns += [each.measure.of(table, self.now).label(each.measure.value) for each in self.distributions]
        conditions = [self.where, *([self.intervals.contain(time)] if self.intervals else [])]
        # A statement without columns counts rows as well.
        selected = columns or [sa.literal(1).label("one")]
        return sa.select(*selected).select_from(counted.source(self.groups)).where(*conditions)

    def _ranked(self, runs: sa.FromClause, groups: Sequence[sa.ColumnElement[Any]]) -> sa.FromClause:
        """Return the runs with the rank of each measure in the group, and the number of its values, for quantiles."""
        ranks: list[sa.ColumnElement[Any]] = []
        for each in self.distributions:
            if each.quantiles:
                ranks += _ranks(each.measure.value, runs, groups)
        return sa.select(*runs.c, *ranks).subquery("ranked") if ranks else runs

    def _outcomes(self, runs: sa.FromClause) -> dict[Any, sa.ColumnElement[Any]]:
        return {name: sa.func.count(sa.case((runs.c.state_type == OUTCOMES[name], 1))) for name in self.outcomes}


def _ranks(name: str, runs: sa.FromClause, groups: Sequence[sa.ColumnElement[Any]]) -> Iterator[sa.ColumnElement[Any]]:
    value, group = runs.c[name], list(groups) or None
    yield sa.func.row_number().over(partition_by=group, order_by=value.asc().nulls_last()).label(f"{name}_rank")
    # By ranks, because SQLite has no function for quantiles; both databases then give equal numbers.
    yield sa.func.count(value).over(partition_by=group).label(f"{name}_number")


def _aggregates(asked: Distribution, runs: sa.FromClause) -> dict[Any, sa.ColumnElement[Any]]:
    name = asked.measure.value
    value = runs.c[name]
    known: dict[str, Any] = {"count": sa.func.count, "mean": sa.func.avg, "min": sa.func.min, "max": sa.func.max}
    found: dict[Any, Any] = {(name, part): known[part](value) for part in sorted(asked.parts)}
    for share in asked.quantiles:
        rank, place = runs.c[f"{name}_rank"], sa.literal(share, SECONDS) * (runs.c[f"{name}_number"] - 1)
        below, above = (rank <= place + 1) & (rank > place), (rank >= place + 1) & (rank < place + 2)
        found[name, share, "below"] = sa.func.max(sa.case((below, value)))
        found[name, share, "above"] = sa.func.max(sa.case((above, value)))
        found[name, share, "number"] = sa.func.max(runs.c[f"{name}_number"])
    return found


def quantile(found: Mapping[Any, Any], measure: Measure, share: float) -> float | None:
    """Return a quantile of a row of the statement: between two values, in proportion to the distance from them."""
    below, above, number = (found[measure.value, share, part] for part in ("below", "above", "number"))
    if not number:
        return None
    place = share * (number - 1)
    between: float = below + (place - floor(place)) * (above - below)
    return between
