"""What tests of GraphQL ask for besides."""

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.applications import Starlette


@pytest.fixture
def read(app: Starlette) -> Iterator[list[str]]:
    """The statements that the application reads rows with; the log, which it watches all the time, does not count."""
    statements: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        if " FROM " in " ".join(statement.split()) and "transition" not in statement and "snapshot" not in statement:
            statements.append(statement)

    reader = app.state.database.reader.sync_engine
    sa.event.listen(reader, "before_cursor_execute", note)
    yield statements
    sa.event.remove(reader, "before_cursor_execute", note)
