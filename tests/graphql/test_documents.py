"""Documents that are unions, hold themselves or hold lists of each other: as answers, as inputs and in JSON columns."""

import re
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
import strawberry
from graphql import GraphQLInputObjectType, GraphQLSchema, build_schema, coerce_input_value, print_type
from pydantic import Field
from sqlalchemy.orm import Mapped, mapped_column
from strawberry.schema.config import StrawberryConfig

from runstate.database import Database
from runstate.database.dialects import as_given, processor
from runstate.documents.base import READ_ONLY, Document, Name, Tags, omits_defaults
from runstate.errors import InvalidInput
from runstate.graphql.execution.executor import executor_with
from runstate.graphql.execution.fast_path import reader
from runstate.graphql.execution.plan_cache import PlanCache
from runstate.graphql.types.derive import graphql_type_of, register_type
from runstate.graphql.types.input_values import read
from runstate.graphql.types.inputs import Input
from runstate.graphql.types.registry import RegistrationError, Registry
from runstate.graphql.types.scalars import SCALARS
from runstate.rows import Row
from runstate.rows.base import NOT_FILTERABLE, DocumentColumn
from runstate.rows.documents import create_document, update_document


class CronSchedule(Document):
    """Cron expression."""

    kind: Literal["cron"] = "cron"
    cron: Name = Field(description="The expression.")
    day_or: bool = Field(default=True, description="Whether matching either day field is enough.")
    time_zone: str = Field(default_factory=lambda: "UTC", description="Name of the time zone.")


class IntervalSchedule(Document):
    """Fixed interval."""

    kind: Literal["interval"] = "interval"
    interval_seconds: float = Field(gt=0, description="Length in seconds.")


Schedule = Annotated[
    CronSchedule | IntervalSchedule,
    Field(discriminator="kind", title="Schedule", description="When runs are created."),
]


class Label(Document):
    """A label."""

    label: str = Field(description="Name of the label.")
    values: list[str] = Field(default=[], description="Values of the label.")
    role: str | None = Field(default=None, description="The role.")


class EventTrigger(Document):
    """Events within a time."""

    kind: Literal["event"] = "event"
    id: UUID = Field(default_factory=uuid4, description="Id of the trigger.", json_schema_extra=READ_ONLY)
    expect: Tags = Field(default=[], description="Patterns of events.")
    match_related: list[list[Label]] = Field(default=[], description="Labels of related resources.")
    threshold: int = Field(default=1, ge=0, description="How many events.")
    within_seconds: float = Field(default_factory=lambda: 10.0, description="Length of a window.")


class CompoundTrigger(Document):
    """Some of other triggers."""

    kind: Literal["compound"] = "compound"
    id: UUID = Field(default_factory=uuid4, description="Id of the trigger.", json_schema_extra=READ_ONLY)
    require: int | None = Field(default=None, description="How many of them; null: all.")
    triggers: list["Trigger"] = Field(min_length=1, description="The others.")
    first: "Trigger | None" = Field(default=None, description="The one that comes first.")


Trigger = Annotated[
    EventTrigger | CompoundTrigger,
    Field(discriminator="kind", title="Trigger", description="What lets an automation fire."),
]


class Verb(Enum):
    """What becomes of a run."""

    CANCEL = "CANCEL"
    """It is cancelled."""
    DELETE = "DELETE"
    """It is deleted."""


class DoNothingAction(Document):
    """Nothing is done."""

    action: Literal["do_nothing"] = "do_nothing"
    do_nothing: bool = Field(description="Always true.")


class PauseAction(Document):
    """Something is paused."""

    action: Literal["pause"] = "pause"
    id: UUID | None = Field(default=None, description="Id of the object; null: inferred.")
    kind: Verb = Field(description="What kind of object.")


class ResumeAction(PauseAction):
    """Something that is paused goes on."""

    action: Literal["resume"] = "resume"  # type: ignore[assignment]


Action = Annotated[
    DoNothingAction | PauseAction | ResumeAction,
    Field(discriminator="action", title="AutomationAction", description="What is done when an automation fires."),
]


class Automation(Document):
    """A trigger and its actions."""

    trigger: Trigger = Field(description="What lets it fire.")
    actions: list[Action] = Field(description="What is done.")
    schedule: Schedule | None = Field(default=None, description="When it is looked at.")
    previous: "Automation | None" = Field(default=None, description="What it was before.")


class Part(Document):
    """An inner part of two documents that hold each other."""

    whole: "Whole | None" = Field(default=None, description="The document that holds it.")


class Whole(Document):
    """A document that holds one that holds it."""

    anything: dict[str, Any] = Field(default={}, description="Anything.")
    inner: list[Part] = Field(default=[], description="The parts.")
    union: IntervalSchedule | CronSchedule | None = Field(
        default=None,
        discriminator="kind",
        title="WholeSchedule",
        description="A union that is named where it is used.",
    )


EVENT = EventTrigger(expect=["a"], match_related=[[Label(label="x", values=["v"]), Label(label="y", role="z")]])
AUTOMATION = Automation(
    trigger=CompoundTrigger(triggers=[EVENT, CompoundTrigger(triggers=[EventTrigger()])], first=EventTrigger()),
    actions=[DoNothingAction(do_nothing=True), ResumeAction(kind=Verb.CANCEL), PauseAction(kind=Verb.DELETE)],
    schedule=CronSchedule(cron="@daily"),
)
INPUT = {
    "trigger": {
        "compound": {
            "triggers": [
                {
                    "event": {
                        "expect": ["a"],
                        "matchRelated": [[{"label": "x", "values": ["v"]}, {"label": "y", "role": "z"}]],
                    }
                },
                {"compound": {"triggers": [{"event": {}}]}},
            ],
            "first": {"event": {"threshold": 1}},
        }
    },
    "actions": [{"doNothing": True}, {"resume": {"kind": "CANCEL"}}, {"pause": {"kind": "DELETE", "id": None}}],
    "schedule": {"cron": {"cron": "@daily"}},
}


class Job(Row):
    """A row with columns that hold unions of documents."""

    __tablename__ = "job"
    __private__ = True
    metadata = sa.MetaData()  # of its own: the server has no such table

    schedule: Mapped[Schedule] = mapped_column(DocumentColumn(Schedule), info=NOT_FILTERABLE, doc="When it runs.")
    actions: Mapped[list[Action]] = mapped_column(
        DocumentColumn(list[Action]), default=list, info=NOT_FILTERABLE, doc="What is done."
    )
    trigger: Mapped[Trigger | None] = mapped_column(
        DocumentColumn(Trigger | None), info=NOT_FILTERABLE, doc="What starts it; null for nothing."
    )


CREATE, UPDATE = (
    strawberry.argument(graphql_type=Input.__class_getitem__(document))
    for document in (create_document(Job), update_document(Job))
)
register_type(Automation, Whole, Job, registry=Registry())


@strawberry.type
class Query:
    """What is read."""

    @strawberry.field
    def automation(self) -> Automation:
        """The automation of these tests."""
        return AUTOMATION

    @strawberry.field
    def schedules(self) -> list[Schedule]:
        """Two schedules."""
        return [CronSchedule(cron="@daily"), IntervalSchedule(interval_seconds=2)]

    @strawberry.field
    def kept(self, input: Input[Automation]) -> str:
        """The document that an input is, as JSON."""
        return str(input.checked().model_dump_json())

    @strawberry.field
    def scheduled(self, input: Input[Schedule]) -> str:
        """The schedule that an input is, as JSON."""
        return str(input.checked().model_dump_json())

    @strawberry.field
    def whole(self, input: Input[Whole]) -> Whole:
        """The document that an input is."""
        return input.checked()

    @strawberry.field
    def jobs(
        self,
        create: Annotated[Any, CREATE],
        update: Annotated[Any, UPDATE],
    ) -> list[Job]:
        """No jobs."""
        return []


SCHEMA = strawberry.Schema(
    query=Query, execution_context_class=executor_with(PlanCache()), config=StrawberryConfig(scalar_map=SCALARS)
)
HERE: GraphQLSchema = SCHEMA._schema  # noqa: SLF001 the graphql-core schema is nowhere else
for known in HERE.type_map.values():
    if isinstance(known, GraphQLInputObjectType):
        known.is_one_of = known.extensions["strawberry-definition"].is_one_of

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
"""The types, as the contracts of schedules and automations spell them."""

PROMISED = build_schema(EXPECTED)


def undescribed(kind: Any) -> str:
    """A type as text, without its descriptions."""
    return " ".join(re.sub(r'""".*?"""', "", print_type(kind), flags=re.DOTALL).split())


@pytest.mark.parametrize("name", re.findall(r"^(?:type|input|union|enum) (\w+)", EXPECTED, re.MULTILINE))
def test_a_document_that_is_declared_once_is_a_type_and_an_input(name: str) -> None:
    assert undescribed(HERE.type_map[name]) == undescribed(PROMISED.type_map[name])


def test_a_union_and_its_input_are_described() -> None:
    found = [HERE.type_map[name].description for name in ("Schedule", "ScheduleInput", "WholeSchedule")]

    assert found[:2] == ["When runs are created.", "When runs are created. Exactly one member must be set."]
    assert found[2] == "A union that is named where it is used."
    assert HERE.type_map["AutomationActionInput"].fields["doNothing"].description == "Nothing is done."  # type: ignore[attr-defined]


def without_ids(value: Any) -> Any:
    """A JSON value without the ids that the server makes."""
    if isinstance(value, dict):
        return {key: without_ids(each) for key, each in value.items() if key != "id"}
    return [without_ids(each) for each in value] if isinstance(value, list) else value


async def data_of(document: str, **variables: Any) -> Any:
    """The data of an answer."""
    answer = await SCHEMA.execute(document, variables)
    assert not answer.errors
    return answer.data


TRIGGER = "__typename ... on EventTrigger { expect matchRelated { label role } } ... on CompoundTrigger"


async def test_an_answer_shows_what_a_document_holds_however_deep() -> None:
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


KEPT = "query($input: AutomationInput!) { kept(input: $input) }"


async def test_an_input_becomes_the_documents_that_are_given() -> None:
    kept = Automation.model_validate_json((await data_of(KEPT, input=INPUT))["kept"])

    assert without_ids(kept.model_dump()) == without_ids(AUTOMATION.model_dump())
    assert (await data_of("{ scheduled(input: {interval: {intervalSeconds: 3}}) }"))["scheduled"] == (
        '{"kind":"interval","interval_seconds":3.0}'
    )


async def test_documents_that_hold_each_other_come_back_as_they_were_given() -> None:
    inner = "{ inner { whole { inner { __typename } union { __typename } } } anything }"
    variables = {"inner": [{"whole": {"inner": [{}], "union": {"cron": {"cron": "x"}}}}, {}], "anything": {"a": 1}}
    found = await data_of(f"query($input: WholeInput!) {{ whole(input: $input) {inner} }}", input=variables)

    inmost = {"inner": [{"__typename": "Part"}], "union": {"__typename": "CronSchedule"}}
    assert found["whole"] == {"inner": [{"whole": inmost}, {"whole": None}], "anything": {"a": 1}}


def input_of(name: str, value: Any) -> Any:
    """Return the input of a type that has a value, as the library reads it."""
    kind: Any = HERE.type_map[name]
    return read(kind.extensions["strawberry-definition"].origin, coerce_input_value(value, kind), None)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"trigger": {"event": {"threshold": -1}}}, ("trigger", "event", "threshold")),
        ({"trigger": {"compound": {"triggers": []}}}, ("trigger", "compound", "triggers")),
        ({"schedule": {"interval": {"intervalSeconds": 0.0}}}, ("schedule", "interval", "intervalSeconds")),
        ({"actions": [{"resume": {"kind": "DELETE", "id": "x"}}]}, ("actions", "0", "resume", "id")),
    ],
)
def test_a_mistake_is_told_with_its_place(change: dict[str, Any], path: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInput) as raised:
        input_of("AutomationInput", {**INPUT, **change}).checked()

    assert raised.value.path == path


@pytest.mark.parametrize(
    "schedule", [{}, {"cron": None}, {"cron": {"cron": "x"}, "interval": None}, {"kind": "cron", "cron": {"cron": "x"}}]
)
async def test_exactly_one_kind_is_given(schedule: dict[str, Any]) -> None:
    answer = await SCHEMA.execute(KEPT, {"input": {**INPUT, "schedule": schedule}})

    assert answer.data is None
    with pytest.raises(Exception):  # noqa: B017, PT011 whatever it is, the library is asked
        reader(HERE.type_map["AutomationInput"])({**INPUT, "schedule": schedule})


async def test_the_fast_path_reads_the_documents_that_the_library_reads() -> None:
    fast = reader(HERE.type_map["AutomationInput"])(INPUT).checked()
    slow = Automation.model_validate_json((await data_of(KEPT, input=INPUT))["kept"])

    assert without_ids(fast.model_dump()) == without_ids(slow.model_dump())
    assert reader(HERE.type_map["ScheduleInput"])({"cron": {"cron": "x"}}).checked() == CronSchedule(cron="x")


async def test_an_input_that_is_nested_too_deeply_is_refused() -> None:
    trigger: dict[str, Any] = {"event": {}}
    for _ in range(400):
        trigger = {"compound": {"triggers": [trigger]}}
    answer = await SCHEMA.execute(KEPT, {"input": {**INPUT, "trigger": trigger}})

    assert answer.data is None
    assert "nested too deeply" in str(answer.errors) or "recursion" in str(answer.errors)


class Bare(Document):
    """A document with a union that has no name."""

    when: CronSchedule | IntervalSchedule = Field(description="When.")


class Unkind(Document):
    """A document that does not say its kind."""

    kind: Literal["a", "b"] = Field(description="Which.")


class Mixed(Document):
    """A document whose union is not of documents."""

    value: int | str = Field(description="A number or a text.")


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Bare, r"Bare.when: The union CronSchedule \| IntervalSchedule needs a name, a description"),
        (Mixed, r"Mixed.value: GraphQL has no type for int \| str"),
    ],
)
def test_a_union_without_a_name_is_refused(cls: type[Document], message: str) -> None:
    with pytest.raises(RegistrationError, match=message):
        register_type(cls, registry=Registry())
    with pytest.raises(RegistrationError, match=message):
        Input.__class_getitem__(cls).resolve_type()


def test_a_union_is_of_documents_with_one_kind_each() -> None:
    union = Annotated[Unkind | CronSchedule, Field(discriminator="kind", title="Some", description="Some.")]
    with pytest.raises(RegistrationError, match="Unkind has no kind"):
        Input.__class_getitem__(union)


def test_a_choice_between_texts_is_a_text() -> None:
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
async def test_a_column_gives_back_what_was_written(blank_url: str, name: str) -> None:
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


def test_changes_of_a_row_hold_the_documents_of_its_columns() -> None:
    changes: dict[str, Any] = {"id": str(UUID(int=1)), "trigger": None, "schedule": {"cron": {"cron": "x"}}}
    found = input_of("UpdateJobInput", changes).checked()

    assert found.schedule == CronSchedule(cron="x")
    assert found.model_fields_set == {"id", "trigger", "schedule"}
    with pytest.raises(InvalidInput, match="null is not allowed") as raised:
        input_of("UpdateJobInput", {**changes, "schedule": None}).checked()
    assert list(raised.value.path or ()) == ["schedule"]


def test_what_tells_kinds_apart_and_what_is_computed_is_stored() -> None:
    assert not omits_defaults(CronSchedule)
    assert not omits_defaults(Automation)
    assert not omits_defaults(list[Trigger])
    assert omits_defaults(Label)
    assert omits_defaults(dict[str, Label | None])
