"""Statistics of runs: outcomes, and distributions of run times and lateness, in groups and over time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, NamedTuple, cast

import sqlalchemy as sa
import strawberry
from graphql import FieldNode, value_from_ast_untyped
from strawberry import UNSET

from runstate.database.queries import statistics
from runstate.database.queries.counts import RUN_KINDS
from runstate.database.queries.intervals import Intervals
from runstate.database.queries.statistics import OUTCOMES, Measure, RunTime, StatisticsQuery
from runstate.documents.intervals import Interval
from runstate.errors import BadUserInput, LimitExceeded
from runstate.graphql.context import Info
from runstate.graphql.families.run_counts import (
    RunGroup,
    RunGrouping,
    WhichFlowRuns,
    WhichTaskRuns,
    clause_of,
    columns_of,
)
from runstate.graphql.pagination.selection import selected
from runstate.graphql.pagination.sizes import checked_size
from runstate.graphql.published import FlowRun, Run, TaskRun
from runstate.graphql.types.derive import register_type
from runstate.graphql.types.fields import field, input_type, object_type, query, with_options
from runstate.graphql.types.inputs import Input
from runstate.rows.base import Timestamp

DEFAULT_GROUPS: Final = 500
MOST_GROUPS: Final = 2_000
MOST_QUANTILES: Final = 20
NO_GROUPS: Final[Sequence[RunGrouping]] = ()
PARTS: Final = frozenset({"count", "mean", "min", "max"})

register_type(RunTime)


@input_type(one_of=True)
class TimeInput:
    """An instant, or a time relative to the present."""

    at: datetime | None = strawberry.field(default=UNSET, description="This instant.")
    seconds_ago: float | None = strawberry.field(default=UNSET, description="Seconds before the present.")


GroupBy = Annotated[
    list[RunGrouping],
    strawberry.argument(
        description="Columns to group by; by default none. A run with several tags is in the group of each of them."
    ),
]
Units = Annotated[Input[Interval] | None, strawberry.argument(description="Intervals to group by; they need `since`.")]
Since = Annotated[TimeInput | None, strawberry.argument(description="Only runs whose time is this or later.")]
Until = Annotated[
    TimeInput | None,
    strawberry.argument(description="Only runs whose time is earlier; with `interval`, now by default."),
]
By = Annotated[RunTime, strawberry.argument(description="Time of a run that `since`, `until` and intervals are about.")]
First = Annotated[
    int, strawberry.argument(description=f"Maximum number of groups, from 1 to {MOST_GROUPS}; the largest ones.")
]


Share = strawberry.argument(description="Share of the runs, from 0 to 1.")


@object_type
class Distribution:
    """The distribution of a number of seconds over the runs of a group that have a value."""

    quantiles: strawberry.Private[Mapping[float, float | None]]
    count: int = strawberry.field(description="Number of runs with a value.")
    mean: float | None = strawberry.field(description="Mean; null without values.")
    min: float | None = strawberry.field(description="Smallest value; null without values.")
    max: float | None = strawberry.field(description="Largest value; null without values.")

    @field
    def quantile(self, at: Annotated[float, Share]) -> float | None:
        """The value that this share of the runs does not exceed, interpolated. Null without values."""
        return self.quantiles[at]


@object_type
class RunStatistics(RunGroup):
    """Statistics of the runs in a group. A column is null if the runs have no value in it or are not grouped by it."""

    start: datetime | None = strawberry.field(description="Start of the interval; null without intervals.")
    end: datetime | None = strawberry.field(description="End of the interval; null without intervals.")
    completed: int = strawberry.field(description="Number of COMPLETED runs.")
    failed: int = strawberry.field(description="Number of FAILED runs.")
    crashed: int = strawberry.field(description="Number of CRASHED runs.")
    cancelled: int = strawberry.field(description="Number of CANCELLED runs.")
    success_rate: float | None = strawberry.field(
        description="Share of COMPLETED runs among those that are COMPLETED, FAILED or CRASHED; null without such runs."
    )
    run_time_seconds: Distribution = strawberry.field(
        description="Seconds in RUNNING of the runs that have run and ended."
    )
    lateness_seconds: Distribution = strawberry.field(
        description="Seconds between the expected start and the start, or the present if a run is due; at least 0."
    )


MEASURES: Final = {"runTimeSeconds": Measure.RUN_TIME, "latenessSeconds": Measure.LATENESS}
"""Fields of `RunStatistics` with a distribution."""


@dataclass(frozen=True, slots=True)
class Options:
    """Arguments of the statistics of any runs."""

    where: Any = UNSET
    group_by: GroupBy = NO_GROUPS  # type: ignore[assignment]
    interval: Units = UNSET
    since: Since = UNSET
    until: Until = UNSET
    by: By = RunTime.EXPECTED_START
    first: First = DEFAULT_GROUPS


@strawberry.type
class Query:
    """Statistics of runs."""

    @query
    @with_options(Options, where=WhichFlowRuns)
    async def flow_run_statistics(self, info: Info, options: Options) -> list[RunStatistics]:
        """Statistics of flow runs in each group and interval that has runs, in the order of intervals."""
        return await _statistics(info, FlowRun, options)

    @query
    @with_options(Options, where=WhichTaskRuns)
    async def task_run_statistics(self, info: Info, options: Options) -> list[RunStatistics]:
        """Statistics of task runs in each group and interval that has runs, in the order of intervals."""
        return await _statistics(info, TaskRun, options)


class Times(NamedTuple):
    """The time span of the runs, and intervals in it."""

    since: datetime | None
    until: datetime | None
    intervals: Intervals | None

    def clauses(self, time: sa.ColumnElement[Any]) -> Iterator[sa.ColumnElement[bool]]:
        """Yield the conditions on the time of a run."""
        if self.since is not None:
            yield time >= sa.literal(self.since, Timestamp())
        if self.until is not None:
            yield time < sa.literal(self.until, Timestamp())


def _times(info: Info, interval: Any, since: Any, until: Any) -> Times:
    start, end = (_instant(info, each) if each else None for each in (since, until))
    if not interval:
        return Times(start, end, None)
    if start is None:
        raise BadUserInput("`interval` needs `since`: the start of the first interval.")
    intervals = Intervals.over(start, end or info.context.now, interval.checked())
    # The first interval of the calendar is whole, although it may start before `since`.
    return Times(None, None, intervals)


def _instant(info: Info, given: TimeInput) -> datetime:
    if given.at:
        return given.at
    try:
        return info.context.now - timedelta(seconds=given.seconds_ago or 0)
    except OverflowError as error:
        raise BadUserInput("`secondsAgo` reaches beyond the years 1 to 9999.") from error


async def _statistics(info: Info, run: type[Run], options: Options) -> list[RunStatistics]:
    times, time = _times(info, options.interval, options.since, options.until), run.__table__.c[options.by.value]
    wanted = _Selected(info)
    asked = StatisticsQuery(
        run=run,
        where=sa.and_(clause_of(run, options.where), *times.clauses(time)),
        groups=columns_of(run, options.group_by),
        by=options.by,
        now=info.context.now,
        intervals=times.intervals,
        outcomes=wanted.outcomes,
        distributions=wanted.distributions,
    )
    rows = await info.context.fetch(asked.statement(checked_size(options.first, MOST_GROUPS)))
    found = [_of_group(run, asked, dict(zip(asked.names, row, strict=True))) for row in rows]
    return sorted(found, key=lambda each: each.start) if times.intervals else found  # type: ignore[arg-type,return-value]


class _Selected:
    """The statistics that a selection names. Directives are ignored, so more than necessary may be computed."""

    def __init__(self, info: Info) -> None:
        self.raw = info._raw_info  # noqa: SLF001
        fields = list(selected(self.raw.field_nodes, self.raw.fragments))
        names = {each.name.value for each in fields}
        self.outcomes = [name for name in OUTCOMES if name in names or "successRate" in names]
        nodes = {measure: [each for each in fields if MEASURES.get(each.name.value) is measure] for measure in Measure}
        self.distributions = [self._distribution(measure, found) for measure, found in nodes.items() if found]

    def _distribution(self, measure: Measure, nodes: list[FieldNode]) -> statistics.Distribution:
        inner = list(selected(nodes, self.raw.fragments))
        parts = PARTS.intersection(each.name.value for each in inner)
        shares = {self._share(each) for each in inner if each.name.value == "quantile"}
        if len(shares) > MOST_QUANTILES:
            raise LimitExceeded("quantiles", MOST_QUANTILES, len(shares))
        return statistics.Distribution(measure, parts, tuple(sorted(shares)))

    def _share(self, node: FieldNode) -> float:
        # `at` is the only argument, and the document is valid. Strawberry passes the values of variables as a dict.
        (given,) = node.arguments or ()
        at = value_from_ast_untyped(given.value, cast("Any", self.raw.variable_values))
        # A nullable variable with a default can be null, and an integer can be too large for a float.
        if at is None or not 0 <= at <= 1:
            raise BadUserInput("`at` of a quantile must be from 0 to 1.")
        return float(at)


def _of_group(run: type[Run], asked: StatisticsQuery, found: dict[Any, Any]) -> RunStatistics:
    edges, place = (asked.intervals.edges, found["place"]) if asked.intervals else ((None, None), 0)
    completed, failed, crashed = (found.get(name, 0) for name in ("completed", "failed", "crashed"))
    ended = completed + failed + crashed
    return RunStatistics(
        run_kind=RUN_KINDS[run],
        count=found["count"],
        start=edges[place],
        end=edges[place + 1],
        completed=completed,
        failed=failed,
        crashed=crashed,
        cancelled=found.get("cancelled", 0),
        success_rate=completed / ended if ended else None,
        run_time_seconds=_distribution(asked, Measure.RUN_TIME, found),
        lateness_seconds=_distribution(asked, Measure.LATENESS, found),
        **{name: found[name] for name in asked.groups},
    )


def _distribution(asked: StatisticsQuery, measure: Measure, found: dict[Any, Any]) -> Distribution:
    shares = next((each.quantiles for each in asked.distributions if each.measure is measure), ())
    return Distribution(
        quantiles={share: statistics.quantile(found, measure, share) for share in shares},
        count=found.get((measure.value, "count"), 0),
        mean=_number(found.get((measure.value, "mean"))),
        min=_number(found.get((measure.value, "min"))),
        max=_number(found.get((measure.value, "max"))),
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
