"""The schema: the file equals the code, keeps its promises to clients, and is documented."""

import shutil
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from graphql import (
    GraphQLArgument,
    GraphQLEnumType,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLUnionType,
    build_schema,
    find_breaking_changes,
    is_composite_type,
    is_required_argument,
    is_required_input_field,
    is_type_sub_type_of,
    validate_schema,
)

from runstate.errors import RunstateError
from runstate.graphql import schema as ours
from runstate.graphql.errors import Code
from runstate.graphql.types.derive import definition_of, has_field, members, references, tables
from runstate.graphql.types.input_values import DEFINITION
from runstate.rows import Row

ROOT = Path(__file__).parent.parent
SCHEMA = ours.build_schema()
HERE: GraphQLSchema = SCHEMA._schema  # noqa: SLF001 it has no public name
PRINTED = build_schema(ours.sdl(SCHEMA))
CONTRACT = build_schema((ROOT / "tests" / "contract.graphql").read_text())
PROMISED = sorted(name for name in CONTRACT.type_map if not name.startswith("__"))
OWN = sorted(name for name in HERE.type_map if not name.startswith("__"))
PUBLISHED = [row for row in tables(Row) if DEFINITION in vars(row)]


def test_the_file_equals_the_code() -> None:
    assert (ROOT / "schema.graphql").read_text() == ours.sdl(SCHEMA), "run: make schema"


def test_the_schema_and_its_text_are_valid() -> None:
    assert validate_schema(PRINTED) == []


def git(*words: str) -> str | None:
    """Return the output of git; None: it failed."""
    command = [shutil.which("git") or "git", "-C", str(ROOT), *words]
    said = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return said.stdout.strip() if said.returncode == 0 else None


def released() -> GraphQLSchema | None:
    """Return the schema of the last release; None: nothing was released, or this is not a clone."""
    tag = git("describe", "--tags", "--abbrev=0")
    text = git("show", f"{tag}:schema.graphql") if tag else None
    return build_schema(text) if text else None


def breaking(before: GraphQLSchema | None) -> list[str]:
    """Return the changes that invalidate documents of an earlier schema."""
    return [change.description for change in find_breaking_changes(before, PRINTED)] if before else []


def test_documents_of_the_last_release_and_the_contract_stay_valid() -> None:
    assert breaking(CONTRACT) == []
    assert breaking(released()) == []


def missing(promised: Any, here: Any) -> Iterator[str]:
    """Yield the members of a promised type that are missing."""
    if type(promised) is not type(here):
        yield f"it is a {type(here).__name__}"
        return
    if isinstance(promised, GraphQLEnumType):
        yield from (f"value {name}" for name in promised.values if name not in here.values)
    if isinstance(promised, GraphQLUnionType):
        members = {member.name for member in here.types}
        yield from (f"member {member.name}" for member in promised.types if member.name not in members)
    if isinstance(promised, GraphQLInputObjectType) and promised.is_one_of != here.is_one_of:
        yield "@oneOf"
    if isinstance(promised, GraphQLObjectType | GraphQLInterfaceType):
        interfaces = {interface.name for interface in here.interfaces}
        yield from (f"interface {each.name}" for each in promised.interfaces if each.name not in interfaces)
    yield from missing_fields(getattr(promised, "fields", {}), getattr(here, "fields", {}))


def missing_fields(promised: Any, here: Any) -> Iterator[str]:
    """Yield the fields or arguments that are missing or have another type."""
    for name, field in promised.items():
        if name not in here:
            yield f"{name} is missing"
        elif str(field.type) != str(here[name].type):
            yield f"{name} is {here[name].type}, not {field.type}"
        elif getattr(field, "default_value", None) != getattr(here[name], "default_value", None):
            yield f"the default of {name}"
        else:
            yield from (f"{name}: {lack}" for lack in missing_fields(arguments(field), arguments(here[name])))
    for name in set(here) - set(promised):
        if is_needed(here[name]):
            yield f"{name} has to be given"


def arguments(field: Any) -> Any:
    return getattr(field, "args", {})


def is_needed(field: Any) -> bool:
    """Return whether an argument or a member of an input is required."""
    if isinstance(field, GraphQLArgument):
        return is_required_argument(field)
    return isinstance(field, GraphQLInputField) and is_required_input_field(field)


@pytest.mark.parametrize("name", PROMISED)
def test_the_schema_contains_the_contract(name: str) -> None:
    assert name in PRINTED.type_map
    assert list(missing(CONTRACT.type_map[name], PRINTED.type_map[name])) == []


def undescribed(named: Any) -> Iterator[str]:
    """Yield the members of a type without a description."""
    if not named.description:
        yield "itself"
    for name, value in getattr(named, "values", {}).items():
        if not value.description:
            yield name
    for name, field in getattr(named, "fields", {}).items():
        if not field.description:
            yield name
        yield from (f"{name}({each})" for each, argument in arguments(field).items() if not argument.description)


@pytest.mark.parametrize("name", OWN)
def test_everything_has_a_description(name: str) -> None:
    assert list(undescribed(HERE.type_map[name])) == []


def differing(one: GraphQLObjectType, other: GraphQLObjectType, seen: set[frozenset[str]]) -> Iterator[str]:
    """Yield fields of the same name whose types cannot be merged in an answer."""
    if frozenset((one.name, other.name)) in seen or one is other:
        return
    seen.add(frozenset((one.name, other.name)))
    for name in set(one.fields) & set(other.fields):
        (first, first_inner), (second, second_inner) = (
            wrapping(one.fields[name].type),
            wrapping(other.fields[name].type),
        )
        composite = is_composite_type(first_inner) and is_composite_type(second_inner)
        if first != second or (first_inner is not second_inner and not composite):
            yield f"{one.name}.{name} and {other.name}.{name}"
        for left in possible(first_inner) if composite else ():
            yield from (each for right in possible(second_inner) for each in differing(left, right, seen))


def wrapping(kind: Any) -> tuple[str, Any]:
    """Return the lists and nullability around a type, and the type."""
    around = ""
    while isinstance(kind, GraphQLList | GraphQLNonNull):
        around += "[" if isinstance(kind, GraphQLList) else "!"
        kind = kind.of_type
    return around, kind


def possible(kind: Any) -> list[GraphQLObjectType]:
    return [kind] if isinstance(kind, GraphQLObjectType) else list(HERE.get_possible_types(kind))


FIXED = {
    "ArtifactCollection.data and BlockDocument.data",
    "ArtifactCollection.key and Artifact.key",
    "Artifact.data and BlockDocument.data",
    "Artifact.key and Configuration.key",
    "Configuration.value and Variable.value",
    *(
        f"{state}.{pair}"
        for state in ("FlowRunState", "TaskRunState")
        for pair in (
            "data and BlockDocument.data",
            "message and Log.message",
            "type and Artifact.type",
            "type and ArtifactCollection.type",
            "version and BlockSchema.version",
        )
    ),
    *(f"{run}.version and BlockSchema.version" for run in ("FlowRun", "TaskRun")),
    *(
        f"Deployment.version and {other}.version"
        for other in ("FlowRunState", "TaskRunState", "FlowRun", "TaskRun", "BlockSchema")
    ),
    *(f"{other}.description and Automation.description" for other in ("Artifact", "ArtifactCollection", "Deployment")),
    "Automation.description and BlockType.description",
    "Deployment.status and AutomationActionRun.status",
    "EventTrigger.threshold and MetricTrigger.threshold",
    *(f"EventTrigger.withinSeconds and {other}.withinSeconds" for other in ("CompoundTrigger", "SequenceTrigger")),
    *(f"{other}.labels and AutomationFiring.labels" for other in ("Deployment", "Flow", "FlowRun", "TaskRun")),
    *(f"{run}.state and AutomationFiring.state" for run in ("FlowRun", "TaskRun")),
}
"""Fields of nodes whose names and types the contract fixes: who selects both in one place needs an alias."""


@pytest.mark.parametrize(
    "abstract", [each for each in HERE.type_map.values() if isinstance(each, GraphQLUnionType | GraphQLInterfaceType)]
)
def test_fields_of_types_in_one_place_have_mergeable_types(abstract: Any) -> None:
    seen: set[frozenset[str]] = set()

    found = [each for one, other in combinations(possible(abstract), 2) for each in differing(one, other, seen)]
    assert [each for each in found if each not in FIXED] == []


def test_types_implement_their_interfaces() -> None:
    for named in HERE.type_map.values():
        for interface in getattr(named, "interfaces", ()):
            for name, field in interface.fields.items():
                assert is_type_sub_type_of(HERE, named.fields[name].type, field.type)  # type: ignore[attr-defined]


@pytest.mark.parametrize("row", PUBLISHED)
def test_columns_are_declared_only_in_rows(row: type[Row]) -> None:
    stored = {member.name for member in members(row)} | {reference.name for reference in references(row)}
    derived = {
        field.python_name
        for field in definition_of(row).fields
        if "stored" in field.metadata or "reference" in field.metadata
    }
    declared = {field.python_name for field in definition_of(row).fields} - derived

    assert all(has_field(row, member.name) for member in members(row))
    assert declared & stored <= {"limit"}, "a reference may be published under another name"


def test_no_private_table_is_published() -> None:
    for row in PUBLISHED:
        private = {column.key for column in row.__table__.columns if column.info.get("private")}
        assert [name for name in private if has_field(row, name)] == []


def test_every_exception_has_a_code_from_the_list() -> None:
    errors: list[type[RunstateError]] = [RunstateError, *RunstateError.__subclasses__()]

    assert {error.code for error in errors} <= {code.value for code in Code}
