"""Nested, recursive and union documents as object types, input types and JSON columns."""

import re
from typing import Annotated, Any, Literal

import pytest
import sqlalchemy as sa
from graphql import build_schema, print_type
from pydantic import Field

from runstate.database import Database
from runstate.database.dialects import as_given, processor
from runstate.documents.base import Document, omits_defaults
from runstate.graphql.types.derive import graphql_type_of, register_type
from runstate.graphql.types.inputs import Input
from runstate.graphql.types.registry import RegistrationError, Registry
from runstate.rows.base import DocumentColumn
from tests.graphql.samples import (
    AUTOMATION,
    EVENT,
    TYPES,
    Action,
    Automation,
    CronSchedule,
    IntervalSchedule,
    Label,
    Schedule,
    Trigger,
    Verb,
    data_of,
)

EXPECTED = """
union Schedule = CronSchedule | IntervalSchedule
type CronSchedule { cron: String! dayOr: Boolean! timeZone: String! }
type IntervalSchedule { intervalSeconds: Float! }
input ScheduleInput @oneOf { cron: CronScheduleInput interval: IntervalScheduleInput }
input CronScheduleInput { cron: String! dayOr: Boolean! = true timeZone: String }
input IntervalScheduleInput { intervalSeconds: Float! }
union Trigger = EventTrigger | CompoundTrigger
type EventTrigger {
  id: ID!
  expect: [String!]!
  matchRelated: [[Label!]!]!
  threshold: Int!
  withinSeconds: Float!
}
type Label { label: String! values: [String!]! role: String }
type CompoundTrigger { id: ID! require: Int triggers: [Trigger!]! first: Trigger }
input TriggerInput @oneOf { event: EventTriggerInput compound: CompoundTriggerInput }
input EventTriggerInput {
  expect: [String!]! = []
  matchRelated: [[LabelInput!]!]! = []
  threshold: Int! = 1
  withinSeconds: Float
}
input LabelInput { label: String! values: [String!]! = [] role: String }
input CompoundTriggerInput { require: Int triggers: [TriggerInput!]! first: TriggerInput }
enum Verb { CANCEL DELETE }
union AutomationAction = DoNothingAction | PauseAction | ResumeAction
type DoNothingAction { doNothing: Boolean! }
type PauseAction { id: ID kind: Verb! }
type ResumeAction { id: ID kind: Verb! }
input AutomationActionInput @oneOf { doNothing: Boolean pause: PauseActionInput resume: PauseActionInput }
input PauseActionInput { id: ID kind: Verb! }
type Automation { trigger: Trigger! actions: [AutomationAction!]! schedule: Schedule previous: Automation }
input AutomationInput {
  trigger: TriggerInput!
  actions: [AutomationActionInput!]!
  schedule: ScheduleInput
  previous: AutomationInput
}
type Whole { anything: JSON! inner: [Part!]! union: WholeSchedule }
type Part { whole: Whole }
union WholeSchedule = IntervalSchedule | CronSchedule
input PartInput { whole: WholeInput }
input WholeScheduleInput @oneOf { interval: IntervalScheduleInput cron: CronScheduleInput }
input WholeInput { anything: JSON inner: [PartInput!]! = [] union: WholeScheduleInput }
scalar JSON
scalar DateTime
type Job {
  id: ID!
  created: DateTime!
  updated: DateTime!
  schedule: Schedule!
  actions: [AutomationAction!]!
  trigger: Trigger
}
input CreateJobInput { schedule: ScheduleInput! actions: [AutomationActionInput!] trigger: TriggerInput }
input UpdateJobInput { id: ID! schedule: ScheduleInput actions: [AutomationActionInput!] trigger: TriggerInput }
"""
"""The types that the documents must have, written by hand."""

PROMISED = build_schema(EXPECTED)


def undescribed(kind: Any) -> str:
    """Return the SDL of a type without its descriptions."""
    return " ".join(re.sub(r'""".*?"""', "", print_type(kind), flags=re.DOTALL).split())


@pytest.mark.parametrize("name", re.findall(r"^(?:type|input|union|enum) (\w+)", EXPECTED, re.MULTILINE))
def test_a_document_is_an_object_type_and_an_input_type(name: str) -> None:
    assert undescribed(TYPES.type_map[name]) == undescribed(PROMISED.type_map[name])


def test_a_union_and_its_input_are_described() -> None:
    found = [TYPES.type_map[name].description for name in ("Schedule", "ScheduleInput", "WholeSchedule")]

    assert found[:2] == ["When runs are created.", "When runs are created. Exactly one member must be set."]
    assert found[2] == "A union that is named where it is used."
    assert TYPES.type_map["AutomationActionInput"].fields["doNothing"].description == "An action without an effect."  # type: ignore[attr-defined]


TRIGGER = "__typename ... on EventTrigger { expect matchRelated { label role } } ... on CompoundTrigger"


async def test_an_answer_contains_nested_documents() -> None:
    third = f"{TRIGGER} {{ require }}"
    second = f"{TRIGGER} {{ triggers {{ {third} }} }}"
    actions = "__typename ... on DoNothingAction { doNothing } ... on ResumeAction { kind }"
    found = await data_of(
        f"{{ automation {{ trigger {{ {TRIGGER} {{ triggers {{ {second} }} first {{ {third} }} }} }}"
        f" actions {{ {actions} }} schedule {{ ... on CronSchedule {{ cron }} }} previous {{ __typename }} }}"
        " schedules { __typename ... on IntervalSchedule { intervalSeconds } } }"
    )
    plain = {"__typename": "EventTrigger", "expect": [], "matchRelated": []}
    labels = [[{"label": "x", "role": None}, {"label": "y", "role": "z"}]]

    assert found["automation"] == {
        "trigger": {
            "__typename": "CompoundTrigger",
            "triggers": [
                {"__typename": "EventTrigger", "expect": ["a"], "matchRelated": labels},
                {"__typename": "CompoundTrigger", "triggers": [plain]},
            ],
            "first": plain,
        },
        "actions": [
            {"__typename": "DoNothingAction", "doNothing": True},
            {"__typename": "ResumeAction", "kind": "CANCEL"},
            {"__typename": "PauseAction"},
        ],
        "schedule": {"cron": "@daily"},
        "previous": None,
    }
    assert found["schedules"] == [
        {"__typename": "CronSchedule"},
        {"__typename": "IntervalSchedule", "intervalSeconds": 2.0},
    ]


class Bare(Document):
    """A document with an unnamed union."""

    when: CronSchedule | IntervalSchedule = Field(description="A schedule.")


class Unkind(Document):
    """A document with an ambiguous kind."""

    kind: Literal["a", "b"] = Field(description="Kind of the document.")


class Mixed(Document):
    """A document with a union of other types than documents."""

    value: int | str = Field(description="A number or a text.")


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Bare, r"Bare.when: The union CronSchedule \| IntervalSchedule needs a name, a description"),
        (Mixed, r"Mixed.value: GraphQL has no type for int \| str"),
    ],
)
def test_a_union_needs_a_name_and_members_with_a_graphql_type(cls: type[Document], message: str) -> None:
    with pytest.raises(RegistrationError, match=message):
        register_type(cls, registry=Registry())
    with pytest.raises(RegistrationError, match=message):
        Input.__class_getitem__(cls).resolve_type()


def test_a_document_in_a_union_needs_a_fixed_kind() -> None:
    union = Annotated[Unkind | CronSchedule, Field(discriminator="kind", title="Some", description="A union.")]
    with pytest.raises(RegistrationError, match="Unkind has no kind"):
        Input.__class_getitem__(union)


def test_a_literal_of_texts_is_a_string() -> None:
    assert graphql_type_of(Literal["a", "b"]) is str


COLUMNS: dict[str, tuple[Any, list[Any]]] = {
    "one": (CronSchedule, [CronSchedule(cron="x"), CronSchedule(cron="x", day_or=False)]),
    "union": (Trigger, [EVENT, AUTOMATION.trigger]),
    "several": (list[Action], [[], AUTOMATION.actions]),
    "optional": (Schedule | None, [None, IntervalSchedule(interval_seconds=0.5)]),
    "dict": (dict[str, list[Label]], [{}, {"a": [Label(label="x")]}]),
    "recursive": (Automation, [AUTOMATION, AUTOMATION.model_copy(update={"previous": AUTOMATION})]),
    "enums": (list[Verb], [[], [Verb.DELETE]]),
}


@pytest.mark.parametrize("name", COLUMNS)
async def test_a_column_returns_the_written_documents(blank_url: str, name: str) -> None:
    annotation, values = COLUMNS[name]
    metadata = sa.MetaData()
    table = sa.Table("document", metadata, sa.Column("id", sa.Integer(), primary_key=True))
    table.append_column(sa.Column("value", DocumentColumn(annotation)))
    database = Database(blank_url)
    try:
        async with database.writer.begin() as connection:
            await connection.run_sync(metadata.create_all)
            await connection.execute(sa.insert(table), [{"value": value} for value in values])
            raw = sa.select(as_given(table.c.value)).order_by(table.c.id)
            read = processor(table.c.value.type, connection.dialect)
            found = (await connection.execute(sa.select(table.c.value).order_by(table.c.id))).scalars().all()
            given = (await connection.execute(raw)).scalars().all()
    finally:
        await database.close()

    assert found == values
    assert read
    assert [read(text) for text in given] == values


def test_discriminators_and_generated_defaults_are_stored() -> None:
    assert not omits_defaults(CronSchedule)
    assert not omits_defaults(Automation)
    assert not omits_defaults(list[Trigger])
    assert omits_defaults(Label)
    assert omits_defaults(dict[str, Label | None])
