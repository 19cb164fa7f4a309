"""The registry of GraphQL types: a late or repeated registration is an error."""

from enum import Enum

import pytest
import strawberry

from runstate.documents.base import Document
from runstate.documents.states import StateDetails
from runstate.graphql.pagination.connection import has_many
from runstate.graphql.schema import build_schema, sdl
from runstate.graphql.types.derive import add_field, extends, has_field, register_type
from runstate.graphql.types.filters import Where
from runstate.graphql.types.inputs import Input, register_input
from runstate.graphql.types.registry import RegistrationError, Registry
from runstate.rows import Flow, FlowRun
from tests.graphql.samples import Sample


class Late(Document):
    """A document that is not registered in time."""


class LateEnum(Enum):
    """An enum that is not registered in time."""

    ONE = 1
    """The first."""


def test_a_registration_after_the_schema_is_an_error() -> None:
    build_schema()
    after = "registered after the schema was built"

    with pytest.raises(RegistrationError, match=f"The GraphQL type of Late is {after}"):
        register_type(Late)
    with pytest.raises(RegistrationError, match=after):
        register_type(LateEnum)
    with pytest.raises(RegistrationError, match=f"The input of StateDetails is {after}"):
        register_input(StateDetails, only={"retriable"})
    with pytest.raises(RegistrationError, match=f"The field Flow.late is {after}"):
        has_many(Flow, "late", FlowRun, "flow_id", "The runs of the flow.")
    with pytest.raises(RegistrationError, match=f"The field FlowRun.late is {after}"):
        extends(FlowRun, name="late")(build_schema)
    assert not has_field(Flow, "late")


def test_a_field_added_after_its_filter_was_generated_is_an_error() -> None:
    registry = Registry()
    registry.make(Where, Sample, lambda: Sample)

    with pytest.raises(RegistrationError, match=r"Sample.late is registered after Where\[Sample\] was made"):
        add_field(Sample, "late", lambda: strawberry.field(description="Late."), registry)
    assert not has_field(Sample, "late")


def test_options_for_a_registered_type_are_an_error() -> None:
    register_type(Sample, registry=Registry())

    with pytest.raises(RegistrationError, match="Sample is registered twice"):
        register_type(Sample, name="Other", registry=Registry())


def test_schemas_of_one_process_share_their_types() -> None:
    assert sdl(build_schema()) == sdl(build_schema())


def test_row_classes_have_only_the_attribute_that_strawberry_expects() -> None:
    build_schema()
    Input.__class_getitem__(Late).resolve_type()

    assert [name for name in vars(StateDetails) if "input" in name or "strawberry" in name] == [
        "__strawberry_definition__"
    ]
    assert "__input__" not in vars(Late)
