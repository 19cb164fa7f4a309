"""Text of a migration for both databases."""

from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from itertools import groupby
from textwrap import indent
from typing import Any, NamedTuple

import sqlalchemy as sa
from alembic.autogenerate import render_op_text
from alembic.autogenerate.api import AutogenContext
from alembic.operations import ops
from alembic.runtime.migration import MigrationContext
from sqlalchemy.engine import Dialect

from runstate.database.migrations import types

INDENT = "    "
IF = 'if op.get_bind().dialect.name == "{}":'
THEIRS = ("builtins", "sqlalchemy")
FROZEN = f"from {types.__name__} import {{}}"


class Step(NamedTuple):
    """A statement of a migration. `block` is the line that it is indented under; empty at the top level."""

    block: str
    text: str


class Writer:
    """Renders the changes of one database as statements."""

    def __init__(self, dialect: Dialect, metadata: sa.MetaData) -> None:
        self.metadata = metadata
        options = {"sqlalchemy_module_prefix": "sa.", "alembic_module_prefix": "op.", "render_item": self._item}
        context = MigrationContext.configure(dialect=dialect, opts={**options, "render_as_batch": True})
        self.batch = AutogenContext(context)
        self.plain = AutogenContext(context, opts={**self.batch.opts, "render_as_batch": False})

    @property
    def imports(self) -> set[str]:
        """Import lines of the types in the rendered statements."""
        return self.batch.imports | self.plain.imports

    def steps(self, changes: ops.OpContainer) -> list[Step]:
        """Return the statements, in order."""
        return [step for change in changes.ops for step in self._steps(change)]

    def _steps(self, change: ops.MigrateOperation) -> Iterator[Step]:
        if not isinstance(change, ops.ModifyTableOps):
            yield Step("", render_op_text(self.plain, change))
            return
        dropped, others, made = _split(change)
        yield from self._alone(dropped)
        yield from self._together(change.table_name, others)
        yield from self._alone(made)

    def _alone(self, changes: Iterable[ops.MigrateOperation]) -> Iterator[Step]:
        """Yield a separate statement for each change."""
        for change in changes:
            yield Step("", render_op_text(self.plain, change))

    def _together(self, table: str, changes: Iterable[ops.MigrateOperation]) -> Iterator[Step]:
        """Yield the statements that change a table in one batch, because SQLite rebuilds the table."""
        declared = self.metadata.tables.get(table)
        counts = declared is not None and declared.dialect_options["sqlite"]["autoincrement"]
        options = ', table_kwargs={"sqlite_autoincrement": True}' if counts else ""
        for change in changes:
            text = render_op_text(self.batch, ops.ModifyTableOps(table, [change])).strip()
            yield Step(f'with op.batch_alter_table("{table}"{options}) as batch_op:', text.partition("\n")[2])

    def _item(self, what: str, item: Any, context: AutogenContext) -> str | bool:
        """Return the text of a type or default with a frozen copy for migrations; False to let Alembic render it."""
        thing = item.arg if isinstance(item, sa.DefaultClause) else item
        if isinstance(thing, sa.Enum):
            return f"sa.String({thing.length})"
        name = _frozen_name(thing)
        if name is None:
            return False
        context.imports.add(FROZEN.format(name))
        return f"{name}{_arguments(name, thing)}"


def _frozen_name(thing: Any) -> str | None:
    """Return the name of the frozen copy of a type; None for types of SQLAlchemy. Raise LookupError if none exists."""
    if isinstance(thing.impl_instance if isinstance(thing, sa.TypeDecorator) else thing, sa.JSON):
        return "JSON"
    kind = type(thing)
    if kind.__module__.partition(".")[0] in THEIRS:
        return None
    if not hasattr(types, kind.__name__):
        raise LookupError(f"{types.__name__} has no {kind.__name__}: a migration needs a frozen copy of it.")
    return kind.__name__


def _arguments(name: str, thing: Any) -> str:
    if name == "JSON":
        return ""
    return f"({thing.function!r})" if name == "ServerSays" else "()"


def _split(table: ops.ModifyTableOps) -> tuple[list[ops.DropIndexOp], list[Any], list[ops.CreateIndexOp]]:
    """Return the indexes to drop, the other changes, and the indexes to create.

    Indexes are separate because a rebuild of the table would create them without their expressions.
    """
    dropped = [each for each in table.ops if isinstance(each, ops.DropIndexOp)]
    made = [each for each in table.ops if isinstance(each, ops.CreateIndexOp)]
    for each in dropped:
        each.kw = {}  # the name is enough, and without options both databases have the same statement
    return dropped, [each for each in table.ops if each not in dropped and each not in made], made


def body(sqlite: Sequence[Step], postgresql: Sequence[Step]) -> str:
    """Return the statements for both databases: shared ones once, others under a condition on the dialect."""
    parts = []
    for block, steps in groupby(_merged(sqlite, postgresql), key=lambda step: step[1].block):
        lines = _conditional(steps)
        parts.append(f"{block}\n{indent(lines, INDENT)}" if block else lines)
    return indent("\n".join(parts), INDENT).strip()


def _merged(sqlite: Sequence[Step], postgresql: Sequence[Step]) -> Iterator[tuple[str, Step]]:
    """Yield the merged steps in order, each with the name of its database; empty if both share it."""
    matcher = SequenceMatcher(None, sqlite, postgresql, autojunk=False)
    for tag, start, end, other_start, other_end in matcher.get_opcodes():
        if tag == "equal":
            yield from (("", step) for step in sqlite[start:end])
        else:
            yield from (("sqlite", step) for step in sqlite[start:end])
            yield from (("postgresql", step) for step in postgresql[other_start:other_end])


def _conditional(steps: Iterable[tuple[str, Step]]) -> str:
    """Return the statements, with those for one database under a condition."""
    parts = []
    for dialect, group in groupby(steps, key=lambda step: step[0]):
        lines = "\n".join(step.text for _, step in group)
        parts.append(f"{IF.format(dialect)}\n{indent(lines, INDENT)}" if dialect else lines)
    return "\n".join(parts)


def import_lines(writers: Iterable[Writer]) -> str:
    """Return the import lines of the statements, without those of Alembic and SQLAlchemy."""
    return "\n".join(sorted({line for writer in writers for line in writer.imports}))
