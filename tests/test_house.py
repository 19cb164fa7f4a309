"""Conventions of the code. The direction of imports is checked by import-linter: `make check`."""

import ast
import pkgutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from runstate.core import policies, rules
from runstate.core.proposal import Rule
from runstate.rows import Base, row_classes

ROOT = Path(__file__).parent.parent
COLUMNS = [column for table in Base.metadata.sorted_tables for column in table.columns]
TABLES = row_classes()
SOURCES = sorted(file for folder in ("src", "tests", "tools", "benchmarks") for file in (ROOT / folder).rglob("*.py"))


def declared_rules() -> dict[str, Rule[Any]]:
    """Return every rule by its module and name."""
    modules = [import_module(f"{rules.__name__}.{each.name}") for each in pkgutil.iter_modules(rules.__path__)]
    return {
        f"{module.__name__.rpartition('.')[2]}.{name}": each
        for module in modules
        for name, each in vars(module).items()
        if isinstance(each, Rule)
    }


def declared_policies() -> dict[str, tuple[Rule[Any], ...]]:
    """Return every policy by name."""
    return {name: each for name, each in vars(policies).items() if name.isupper() and isinstance(each, tuple)}


@pytest.mark.parametrize("name", declared_rules())
def test_a_rule_has_a_sentence_as_docstring(name: str) -> None:
    rule = declared_rules()[name]

    assert rule.__doc__
    assert rule.__doc__.endswith(".")
    assert rule.name == name.partition(".")[2]


@pytest.mark.parametrize("name", declared_rules())
def test_a_rule_is_part_of_a_policy(name: str) -> None:
    assert any(declared_rules()[name] in policy for policy in declared_policies().values())


@pytest.mark.parametrize("name", declared_policies())
def test_a_policy_contains_each_rule_once(name: str) -> None:
    policy = declared_policies()[name]

    assert all(isinstance(each, Rule) for each in policy)
    assert len(set(policy)) == len(policy)


def test_rule_names_are_unique() -> None:
    names = [rule.name for rule in declared_rules().values()]

    assert names
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("column", COLUMNS, ids=str)
def test_a_column_is_documented(column: sa.Column[Any]) -> None:
    assert column.doc
    assert column.doc.endswith(".")


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.__name__)
def test_tables_and_relationships_are_documented(table: type[Base]) -> None:
    assert table.__doc__
    assert [each.key for each in sa.inspect(table).relationships if not each.doc] == []


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_are_at_the_top_of_a_module(file: Path) -> None:
    functions = [
        node
        for node in ast.walk(ast.parse(file.read_bytes()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    inside = [
        node.lineno
        for function in functions
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert inside == []


def test_no_module_has_a_name_for_anything() -> None:
    drawers = {"utils", "util", "helpers", "helper", "common", "misc"}

    assert [file for file in SOURCES if drawers & {file.stem, *file.relative_to(ROOT).parts}] == []
