"""Payloads of the events about objects, which every client of events reads."""

from typing import Any

import pytest

from runstate.core.commands.announcements import payload_of
from runstate.core.evaluation.definitions import TRIGGER
from runstate.database.bulk import table_of
from runstate.rows import Row, row_classes
from runstate.rows.base import PRIVATE, is_marked

ANNOUNCED = [row for row in row_classes() if issubclass(row, Row) and row.__announced__]
GIVEN: dict[str, Any] = {
    "trigger": TRIGGER.validate_python({"kind": "event", "posture": "REACTIVE", "expect": ["a"]}),
    "actions": [],
    "actions_on_trigger": [],
    "actions_on_resolve": [],
}
"""Values of columns that payloads convert."""


def names(value: Any) -> set[str]:
    """Return all names in a value: keys and texts."""
    if isinstance(value, dict):
        return set(value).union(*map(names, value.values()))
    return set().union(*map(names, value)) if isinstance(value, list) else {value} if isinstance(value, str) else set()


@pytest.mark.parametrize("row", ANNOUNCED)
@pytest.mark.parametrize("what", ["created", "updated", "deleted"])
def test_a_payload_names_no_private_column(row: type[Row], what: str) -> None:
    columns = table_of(row).c
    made = row.of(dict.fromkeys(columns.keys()) | GIVEN)
    private = {column.key for column in columns if is_marked(column, PRIVATE)}

    assert names(payload_of(made, what, columns.keys())) & private == set()
