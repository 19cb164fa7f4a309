"""Problems that violated constraints become."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from uuid_utils.compat import uuid7

from runstate.core.commands import crud
from runstate.core.context import CommandContext
from runstate.database import Database
from runstate.errors import InUse, NotFound
from runstate.rows import Base
from runstate.rows.variables import Variable


@pytest.fixture
async def users(database: Database) -> AsyncIterator[sa.Table]:
    """A table that refers to variables and keeps them from being deleted: no table of the server does."""
    table = sa.Table(
        "user_of_variables",
        Base.metadata,
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("variable_id", sa.ForeignKey("variable.id", ondelete="RESTRICT"), nullable=False),
    )
    async with database.writer.begin() as connection:
        await connection.run_sync(table.create)
    yield table
    Base.metadata.remove(table)


async def test_a_row_that_others_refer_to_is_in_use_and_stays(database: Database, users: sa.Table) -> None:
    context = CommandContext(database, lambda: datetime.now(UTC), uuid7, lambda: 0.5)
    columns = crud.fresh(context) | {"name": "limit", "value": 3, "tags": []}
    variable, user = columns["id"], uuid7()
    async with database.write() as transaction:
        await crud.insert(transaction.connection, Variable, columns)
        await transaction.connection.execute(users.insert().values(id=user, variable_id=variable))

    with pytest.raises(InUse) as raised:
        await crud.delete(Variable)(context, variable)

    assert raised.value.used_by == [str(user)]
    async with database.write() as transaction:
        await transaction.connection.execute(users.delete())
    await crud.delete(Variable)(context, variable)
    with pytest.raises(NotFound):
        await crud.delete(Variable)(context, variable)
