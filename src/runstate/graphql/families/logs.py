"""Logs: log, logs, loggers, logCursor, writeLogs, deleteLogs, and the subscription logs."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any, Final

import sqlalchemy as sa
import strawberry
from strawberry import UNSET
from strawberry.utils.str_converters import to_camel_case

from runstate.core.commands import logs as commands
from runstate.database.bulk import table_of
from runstate.database.dialects import among_selected
from runstate.database.queries.trees import tree_of
from runstate.documents.access import Scope
from runstate.documents.logs import LogLine, WriteLogs
from runstate.errors import BadUserInput, InvalidInput, NotFound
from runstate.feed import Feed, Hub, LinePart, Wanted, follow_lines
from runstate.graphql.context import Context, Info
from runstate.graphql.families.family import Family, by_id
from runstate.graphql.families.mutations import mutation
from runstate.graphql.pagination.connection import rows_of
from runstate.graphql.published import Log
from runstate.graphql.types.conditions import Clause, as_uuid, is_set
from runstate.graphql.types.derive import computes
from runstate.graphql.types.fields import field, input_type, object_type, query, subscription
from runstate.graphql.types.filters import Extra, Where
from runstate.graphql.types.inputs import Input, register_input

TABLE: Final = table_of(Log)
MOST_LOGGERS: Final = 1_000
LONGEST_TAIL: Final = 1_000
NAMES: Final = {50: "CRITICAL", 40: "ERROR", 30: "WARNING", 20: "INFO", 10: "DEBUG"}
IN_TREE: Final = "Only lines of this flow run, of its task runs, and of its subflow runs at any depth."

register_input(LogLine, name="LogInput")


def _in_tree(table: sa.FromClause, root: str) -> Clause:
    known = as_uuid(root)
    return sa.false() if known is None else among_selected(table.c.flow_run_id, tree_of(known))


FAMILY = Family(
    Log,
    {
        "log": by_id(Log),
        "logs": rows_of(
            Log,
            "All lines that meet a condition; oldest first by default.",
            tree=Extra(strawberry.ID, IN_TREE, _in_tree),
        ),
    },
    {},
)


@computes(Log, needs={"level"})
def level_name(root: Log, _: Context) -> str:
    """The name of the level, or of the next lower level that has a name: DEBUG, INFO, WARNING, ERROR or CRITICAL.

    NOTSET below 10.
    """
    return next((name for level, name in NAMES.items() if root.level >= level), "NOTSET")


@object_type
class RefusedLog:
    """A line that was not written."""

    index: int = strawberry.field(description="Position of the line in the input, from 0.")
    path: list[str] = strawberry.field(description="Path of the invalid value in the line.")
    message: str = strawberry.field(description="Explanation for people.")


@object_type
class WriteLogsPayload:
    """The result of writing lines."""

    written: int = strawberry.field(description="Number of lines written.")
    refused: list[RefusedLog] = strawberry.field(description="Lines that were not written.")

    @field
    async def cursor(self, info: Info) -> str:
        """A cursor behind the written lines, for the subscription `logs`."""
        return await _hub(info).end_cursor()


@object_type
class LogBatch:
    """Lines, and the cursor after them."""

    cursor: str = strawberry.field(description="Cursor to continue after this batch, on any server.")
    logs: list[Log] = strawberry.field(description="At most 500 after the first batch; empty as a heartbeat.")
    shared: strawberry.Private[Any] = None
    """Equal for batches whose fields are all equal, of subscriptions with equal arguments."""


LogWhere: Any = Where.__class_getitem__(Log)


@input_type()
class DeleteLogsInput:
    """The lines to delete."""

    where: LogWhere = strawberry.field(description="A condition on the lines, with at least one member.")
    dry_run: bool = strawberry.field(default=False, description="True to count the lines only.")


@object_type
class DeleteLogsPayload:
    """A deletion of lines."""

    count: int = strawberry.field(description="Number of lines that were deleted, or that would be.")


Which = Annotated[LogWhere | None, strawberry.argument(description="A condition; by default all lines.")]
Tree = Annotated[strawberry.ID | None, strawberry.argument(description=IN_TREE)]
After = Annotated[str | None, strawberry.argument(description="Only lines after this cursor; by default new ones.")]
Tail = Annotated[
    int,
    strawberry.argument(
        description=f"Number of existing lines that are sent first, at most {LONGEST_TAIL:,}. Excludes `after`."
    ),
]
UntilFinal = Annotated[
    bool,
    strawberry.argument(description="True to complete once the flow run `tree` has ended and its lines were sent."),
]
New = Annotated[Input[WriteLogs], strawberry.argument(description="The lines.")]
Old = Annotated[DeleteLogsInput, strawberry.argument(description="The lines to delete.")]


@strawberry.type
class Query:
    """Names of loggers, and the position in the log."""

    @query
    async def loggers(self, info: Info, where: Which = UNSET) -> list[str]:
        """The names of the loggers of lines, in alphabetical order, at most 1,000."""
        names = sa.select(TABLE.c.logger).distinct().order_by(TABLE.c.logger).limit(MOST_LOGGERS)
        clause = where.clause(TABLE) if where else sa.true()
        return [name for (name,) in await info.context.fetch(names.where(clause))]

    @query
    async def log_cursor(self, info: Info) -> str:
        """The cursor at the end of the logs. To miss no line, query it before `logs`, and subscribe with it."""
        return await _hub(info).end_cursor()


@strawberry.type
class Mutation:
    """Writing lines in bulk, and deleting them."""

    @mutation(Scope.PROPOSE, InvalidInput)
    async def write_logs(self, info: Info, input: New) -> WriteLogsPayload:
        """Write up to 1,000 lines, in order and in one transaction.

        Lines that cannot be stored are refused one by one; the others are written. Lines may name runs that do not
        exist yet.
        """
        result = await commands.write_logs(info.context.commands, input.checked())
        refused = [
            RefusedLog(index=each.place, path=[to_camel_case(each.path)], message=each.message)
            for each in result.refused
        ]
        return WriteLogsPayload(written=result.written, refused=refused)

    @mutation(Scope.ADMIN, InvalidInput)
    async def delete_logs(self, info: Info, input: Old) -> DeleteLogsPayload:
        """Delete the lines that meet a condition, or count them. Large deletions take several transactions."""
        # An empty condition is more often a forgotten variable than the wish to delete everything.
        if not any(map(is_set, vars(input.where).values())):
            raise InvalidInput("`where` has no condition, so it would delete all logs. Add one.", ["where"])
        clause = input.where.clause(TABLE)
        if input.dry_run:
            ((count,),) = await info.context.fetch(sa.select(sa.func.count()).select_from(TABLE).where(clause))
            return DeleteLogsPayload(count=count)
        return DeleteLogsPayload(count=await commands.delete_logs(info.context.commands, clause))


@strawberry.type
class Subscription:
    """New lines."""

    @subscription
    async def logs(
        self,
        info: Info,
        where: Which = UNSET,
        tree: Tree = UNSET,
        after: After = UNSET,
        tail: Tail = 0,
        *,
        until_final: UntilFinal = False,
    ) -> AsyncGenerator[LogBatch, None]:
        """Committed lines that match, each exactly once along a chain of cursors, in the order of their writers.

        By default only new lines are sent; with `after`, first those since the cursor; with `tail`, first the last
        existing ones, in the order of `logs`. The first batch is sent at once and may be empty. Without lines, an empty
        batch is sent at least every 30 seconds, so that cursors stay valid.
        """
        parts = await follow_lines(_feed(info), _wanted(where, tree, until_final=until_final), *_start(after, tail))
        return _batches(info, parts)


def _feed(info: Info) -> Feed:
    feed: Feed = info.context.feed
    return feed


def _hub(info: Info) -> Hub[Any]:
    return _feed(info).logs


def _wanted(where: Any, tree: str | None, *, until_final: bool) -> Wanted:
    if until_final and not is_set(tree):
        raise BadUserInput("`untilFinal` requires `tree`.")
    root = as_uuid(tree) if is_set(tree) and tree else None
    if is_set(tree) and root is None:
        raise NotFound(tree)
    return Wanted(root=root, where=where.clause(TABLE) if is_set(where) else None, until_final=until_final)


def _start(after: str | None, tail: int) -> tuple[str | None, int]:
    if not 0 <= tail <= LONGEST_TAIL:
        raise BadUserInput(f"`tail` must be between 0 and {LONGEST_TAIL}.")
    if is_set(after) and tail:
        raise BadUserInput("`after` and `tail` exclude each other. Send one of them.")
    return (after if is_set(after) else None), tail


async def _batches(info: Info, parts: AsyncGenerator[LinePart, None]) -> AsyncGenerator[LogBatch, None]:
    encode = partial(_hub(info).reader.encode)
    async with aclosing(parts):
        async for part in parts:
            info.context.forget()
            cursor, lines = encode(part.cursor), part.lines
            shared = cursor, len(lines), *(line.id for line in lines[:1] + lines[-1:])
            yield LogBatch(cursor=cursor, logs=lines, shared=shared)
