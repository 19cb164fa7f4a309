"""Comparison of a database with the declared tables."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import sqlalchemy as sa
from alembic.autogenerate import produce_migrations
from alembic.operations import ops
from alembic.runtime.migration import MigrationContext

from runstate.database.migrations import types

Kinds = Mapping[tuple[str, str], sa.types.TypeEngine[Any]]
"""Types of columns by table name and column name."""

PLUGINS = ("alembic.autogenerate.*", "alembic.ext.checkconstraint_byname")
"""Plugins that compare columns, indexes, unique and foreign keys, and the names of check constraints."""
COUNTER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""Type of a generated number. On SQLite only columns of type INTEGER are generated."""


class Changes(NamedTuple):
    """The changes from the tables of a database to the declared tables, and the reverse changes."""

    there: ops.OpContainer
    back: ops.OpContainer


def changes(connection: sa.Connection, metadata: sa.MetaData) -> Changes:
    """Return the changes from the tables of a database to the declared tables."""
    options = {"compare_type": True, "include_object": _meant(connection), "autogenerate_plugins": PLUGINS}
    context = MigrationContext.configure(connection, opts=options)
    with _unknown_types():
        script = produce_migrations(context, metadata)
    return Changes(script.upgrade_ops or ops.UpgradeOps(), script.downgrade_ops or ops.DowngradeOps())


def _meant(connection: sa.Connection) -> Any:
    """Return a predicate for items that exist on this database; `ddl_if` can restrict an item to the other one.

    Indexes on expressions are written by hand and not compared.
    """

    def is_meant(thing: sa.schema.SchemaItem, *_: Any) -> bool:
        if isinstance(thing, sa.Index) and not all(isinstance(each, sa.Column) for each in thing.expressions):
            return False
        condition = getattr(thing, "_ddl_if", None)
        return condition is None or condition.dialect == connection.dialect.name

    return is_meant


@contextmanager
def _unknown_types() -> Iterator[None]:
    """Ignore the warning that SQLAlchemy does not know xid8, PostgreSQL's type of transaction ids."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Did not recognize type 'xid8'", sa.exc.SAWarning)
        yield


def columns(connection: sa.Connection) -> Kinds:
    """Return the types of all columns as the database reports them."""
    with _unknown_types():
        found = sa.inspect(connection).get_multi_columns()
    return {(table, column["name"]): column["type"] for (_, table), held in found.items() for column in held}


def frozen(sqlite: Kinds, postgresql: Kinds) -> Kinds:
    """Return the types that migrations use for the columns of both databases.

    They are derived from PostgreSQL, which distinguishes instants, ids and JSON; SQLite has only numbers and texts.
    """
    return {place: _frozen(sqlite.get(place), kind) for place, kind in postgresql.items()}


def _frozen(on_sqlite: Any, on_postgresql: sa.types.TypeEngine[Any]) -> sa.types.TypeEngine[Any]:
    if isinstance(on_postgresql, sa.types.NullType):
        return types.Xid8()
    if isinstance(on_postgresql, sa.JSON):
        return types.JSON
    if isinstance(on_postgresql, sa.DateTime):
        return types.Timestamp()
    if isinstance(on_postgresql, sa.BigInteger) and type(on_sqlite) is sa.INTEGER:
        return COUNTER
    return on_postgresql.as_generic()


def describe_alike(sqlite: Changes, postgresql: Changes, kinds: Kinds) -> None:
    """Replace reported types and options by those of migrations, so that equal changes of both databases are equal."""
    _name_kinds(sqlite, kinds)
    _name_kinds(postgresql, kinds)
    indexes = _indexes(postgresql.back)
    for name, index in _indexes(sqlite.back).items():
        if name in indexes:
            index.kw = indexes[name].kw = {**index.kw, **indexes[name].kw}


def _indexes(container: ops.OpContainer) -> dict[str | None, ops.CreateIndexOp]:
    return {each.index_name: each for each in _all(container) if isinstance(each, ops.CreateIndexOp)}


def _name_kinds(found: Changes, kinds: Kinds) -> None:
    """Replace the reported types of existing columns by the types that migrations use."""
    for change in _all(found.there):
        if isinstance(change, ops.AlterColumnOp):
            change.existing_type = kinds[change.table_name, change.column_name]
    for change in _all(found.back):
        _name_kinds_of_old(change, kinds)


def _name_kinds_of_old(change: ops.MigrateOperation, kinds: Kinds) -> None:
    match change:
        case ops.AlterColumnOp(modify_type=None):
            change.existing_type = kinds[change.table_name, change.column_name]
        case ops.AlterColumnOp():
            change.modify_type = kinds[change.table_name, change.column_name]
        case ops.AddColumnOp():
            _name_kind(change.table_name, change.column, kinds)
        case ops.CreateTableOp():
            change.columns = [_described(change.table_name, each, kinds) for each in change.columns]
        case ops.CreateUniqueConstraintOp():
            change.kw = {}


def _described(table: str, item: Any, kinds: Kinds) -> Any:
    """Return a column or constraint in the form of migrations, without the options that PostgreSQL always reports."""
    if isinstance(item, sa.UniqueConstraint):
        return sa.UniqueConstraint(*(column.name for column in item.columns), name=item.name)
    if isinstance(item, sa.Column):
        _name_kind(table, item, kinds)
    return item


def _name_kind(table: str, column: sa.Column[Any], kinds: Kinds) -> None:
    """Set the type of a column; the type then decides whether numbers are generated."""
    column.type = kinds[table, column.name]
    column.autoincrement = "auto"


def _all(change: ops.MigrateOperation) -> Iterator[ops.MigrateOperation]:
    """Yield all changes, including those that are grouped by table."""
    if isinstance(change, ops.OpContainer):
        for each in change.ops:
            yield from _all(each)
    else:
        yield change
