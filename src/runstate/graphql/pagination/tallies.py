"""Questions about numbers of runs that can be answered from what was added up, however many runs there are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from runstate.database.dialects import NUMBER
from runstate.database.queries.tallies import tallied
from runstate.documents.states import RunKind
from runstate.graphql.types.comparisons import Clause, is_set, negated
from runstate.graphql.types.filters import Depth, Where, refers
from runstate.rows import FlowRun, Row, TaskRun

OWN: Final[dict[type[Row], frozenset[str]]] = {
    FlowRun: frozenset({"flow_id", "deployment_id", "flow", "deployment", "state_type"}),
    TaskRun: frozenset({"flow_run", "state_type"}),
}
"""What a condition may look at; state names are left out, since not every one of them is counted by itself."""
HOME: Final = frozenset({"flow_id", "deployment_id", "flow", "deployment"})
"""What it may look at of the flow run of task runs."""
PARENTS: Final[dict[type[Row], frozenset[str | None]]] = {
    FlowRun: frozenset({None, "flow_id", "deployment_id"}),
    TaskRun: frozenset({None}),
}


class NotTallied(Exception):
    """The condition looks at something else."""


@dataclass(frozen=True)
class TallyQuery:
    """Numbers of runs that meet a condition."""

    table: sa.FromClause
    clause: Clause

    def counted(self, by: Sequence[str], *more: Clause) -> sa.Select[Any]:
        """These columns, and how many runs have the same values in them."""
        columns = [self.table.c[name] for name in by]
        number = sa.cast(sa.func.sum(self.table.c.number), NUMBER).label("count")
        asked = sa.select(*columns, number).where(self.clause, *more)
        return asked.group_by(*columns).having(number != 0) if columns else asked


def sums(row: type[Row], where: Where[Any] | None, parent: str | None = None) -> TallyQuery | None:
    """Where the runs that meet a condition are added up; null: they have to be counted."""
    if parent not in PARENTS.get(row, ()):
        return None
    table = tallied(RunKind.FLOW_RUN if row is FlowRun else RunKind.TASK_RUN)
    try:
        return TallyQuery(table, _clause(where, table, OWN[row], Depth()) if where else sa.true())
    except NotTallied:
        return None


def _clause(where: Where[Any], table: sa.FromClause, known: frozenset[str], depth: Depth) -> Clause:
    depth.enter()
    asked_for = {name: value for name, value in vars(where).items() if is_set(value)}
    parts = [part for name, value in asked_for.items() for part in _parts(where, name, value, table, known, depth)]
    depth.leave()
    return sa.and_(sa.true(), *parts)


def _parts(
    where: Where[Any], name: str, value: Any, table: sa.FromClause, known: frozenset[str], depth: Depth
) -> Iterator[Clause]:
    depth.count()
    if name in ("and_", "or_"):
        inner = [_clause(each, table, known, depth) for each in value]
        yield sa.and_(sa.true(), *inner) if name == "and_" else sa.or_(sa.false(), *inner)
    elif name == "not_":
        yield negated(_clause(value, table, known, depth))
    elif name not in known:
        raise NotTallied
    elif name == "flow_run":
        yield table.c.flow_id.is_not(None)
        yield _clause(value, table, HOME, depth)
    elif name in where.reference_fields:
        yield refers(table, where.reference_fields[name], value, depth)
    else:
        yield from value.clauses(table.c[name])
