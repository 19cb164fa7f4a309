"""The page about filters: each example is a valid filter of its type."""

import re
from pathlib import Path

import pytest
from graphql import parse, validate

from runstate.graphql.schema import build_schema

PAGE = (Path(__file__).parent.parent / "docs" / "filters.md").read_text()
SCHEMA = build_schema()._schema  # noqa: SLF001 it has no public name
LISTS = {"FlowWhere": "flows", "FlowRunWhere": "flowRuns", "TaskRunWhere": "taskRuns", "DeploymentWhere": "deployments"}


def examples() -> list[tuple[str, str]]:
    """Return the examples of the table with the connections that they filter."""
    found, asked = [], ""
    for cell in re.findall(r"^\| .+ \| `(.+)` \|$", PAGE, re.MULTILINE):
        if cell in LISTS:
            asked = LISTS[cell]
        else:
            found.append((asked, cell))
    return found


def test_every_kind_of_row_has_examples() -> None:
    assert {asked for asked, _ in examples()} == set(LISTS.values())
    assert len(examples()) > 40


@pytest.mark.parametrize(("asked", "where"), examples())
def test_an_example_is_accepted(asked: str, where: str) -> None:
    assert validate(SCHEMA, parse(f"{{ {asked}(where: {where}) {{ totalCount }} }}")) == []
