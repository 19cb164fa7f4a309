"""Numbers of rows that meet a condition, read from tallies instead of the rows if the condition allows it."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from runstate.database.queries.counts import TALLIES, CountedTable, counted_table
from runstate.graphql.types.conditions import Clause, is_set, negated
from runstate.graphql.types.filters import Depth, Where, refers
from runstate.rows import FlowRun, Row, TaskRun

TALLIED_CONDITIONS: Final[dict[type[Row], frozenset[str]]] = {
    FlowRun: frozenset({"flow_id", "deployment_id", "flow", "deployment", "state_type"}),
    TaskRun: frozenset({"flow_run", "state_type"}),
}
"""Members of a condition that tallies can answer. State names cannot be: some are tallied together."""
TALLIED_FLOW_RUN_CONDITIONS: Final = frozenset({"flow_id", "deployment_id", "flow", "deployment"})
"""The same, for the condition on the flow run of task runs."""


class NotTallied(Exception):
    """Tallies cannot answer the condition."""


class CountQuery(NamedTuple):
    """A table to count in, and the condition that rows meet there."""

    counted: CountedTable
    clause: Clause

    def counts(self, groups: Sequence[str], *conditions: Clause) -> sa.Select[Any]:
        """Return the statement for the columns of each group and its `count`; without groups for one `count`."""
        return self.counted.counts(groups, self.clause, *conditions)

    def largest(self, groups: Sequence[str], limit: int | None = None) -> sa.Select[Any]:
        """Return the same statement, largest groups first."""
        columns = [self.counted.columns[name] for name in groups]
        # The columns decide between groups of equal size, so that answers are repeatable.
        return self.counts(groups).order_by(sa.text("count DESC"), *columns).limit(limit)


def count_query(
    row: type[Row], where: Where[Any] | None, groups: Sequence[str] = (), *, tallied: bool = True
) -> CountQuery:
    """Return the query that counts rows that meet a condition, in groups; not by tallies unless `tallied`."""
    tallies = TALLIES.get(row) if tallied else None
    if tallies and tallies.columns.keys() >= set(groups):
        # The rows themselves can answer every condition.
        with suppress(NotTallied):
            return CountQuery(tallies, _tallied(where, tallies.table, TALLIED_CONDITIONS[row], Depth()))
    counted = counted_table(row)
    return CountQuery(counted, where.clause(counted.table) if where else sa.true())


def _tallied(where: Where[Any] | None, table: sa.FromClause, known: frozenset[str], depth: Depth) -> Clause:
    if where is None:
        return sa.true()
    depth.enter()
    members = {name: value for name, value in vars(where).items() if is_set(value)}
    parts = [part for name, value in members.items() for part in _parts(where, name, value, table, known, depth)]
    depth.leave()
    return sa.and_(sa.true(), *parts)


def _parts(
    where: Where[Any], name: str, value: Any, table: sa.FromClause, known: frozenset[str], depth: Depth
) -> Iterator[Clause]:
    depth.count()
    if name in ("and_", "or_"):
        inner = [_tallied(each, table, known, depth) for each in value]
        yield sa.and_(sa.true(), *inner) if name == "and_" else sa.or_(sa.false(), *inner)
    elif name == "not_":
        yield negated(_tallied(value, table, known, depth))
    elif name not in known:
        raise NotTallied
    elif name == "flow_run":
        # Task runs without a flow run have no flow.
        yield table.c.flow_id.is_not(None)
        yield _tallied(value, table, TALLIED_FLOW_RUN_CONDITIONS, depth)
    elif name in where.reference_fields:
        yield refers(table, where.reference_fields[name], value, depth)
    else:
        yield from value.clauses(table.c[name])
