"""Types that no public table has yet: a table with columns of every type, and a schema of nested documents."""

from datetime import date, datetime, timedelta
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID, uuid4

import sqlalchemy as sa
import strawberry
from graphql import GraphQLInputObjectType, GraphQLSchema
from pydantic import Field
from sqlalchemy.orm import Mapped, mapped_column
from strawberry.schema.config import StrawberryConfig

from runstate.documents.base import READ_ONLY, Document, Name, Tags
from runstate.graphql.execution.executor import executor_with
from runstate.graphql.execution.plan_cache import PlanCache
from runstate.graphql.types.derive import register_type
from runstate.graphql.types.inputs import Input
from runstate.graphql.types.registry import Registry
from runstate.graphql.types.scalars import SCALARS
from runstate.rows import Row
from runstate.rows.base import NOT_FILTERABLE, DocumentColumn
from runstate.rows.documents import create_document, update_document


class Colour(Enum):
    """A colour."""

    RED = "RED"
    """Red."""
    BLUE = "BLUE"
    """Blue."""


COLOUR = sa.Enum(Colour, native_enum=False, length=16, create_constraint=False)


class Sample(Row):
    """A row with a column of every type."""

    __tablename__ = "sample"
    __private__ = True
    metadata = sa.MetaData()  # of its own: the server has no such table

    rate: Mapped[float] = mapped_column(index=True, doc="A number.")
    maybe_rate: Mapped[float | None] = mapped_column(index=True, doc="A number or null.")
    active: Mapped[bool] = mapped_column(index=True, doc="A Boolean.")
    maybe_active: Mapped[bool | None] = mapped_column(index=True, doc="A Boolean or null.")
    number: Mapped[int] = mapped_column(index=True, doc="An integer.")
    maybe_number: Mapped[int | None] = mapped_column(index=True, doc="An integer or null.")
    small: Mapped[int] = mapped_column(sa.SmallInteger(), index=True, doc="A small integer.")
    large: Mapped[int] = mapped_column(sa.BigInteger(), index=True, doc="A large integer.")
    maybe_large: Mapped[int | None] = mapped_column(sa.BigInteger(), index=True, doc="A large integer or null.")
    day: Mapped[date] = mapped_column(index=True, doc="A date.")
    maybe_day: Mapped[date | None] = mapped_column(index=True, doc="A date or null.")
    length: Mapped[timedelta] = mapped_column(index=True, doc="A duration.")
    maybe_length: Mapped[timedelta | None] = mapped_column(index=True, doc="A duration or null.")
    colour: Mapped[Colour] = mapped_column(COLOUR, index=True, doc="A colour.")
    maybe_colour: Mapped[Colour | None] = mapped_column(COLOUR, index=True, doc="A colour or null.")
    text: Mapped[str] = mapped_column(index=True, doc="A text.")
    maybe_text: Mapped[str | None] = mapped_column(index=True, doc="A text or null.")
    key: Mapped[UUID] = mapped_column(index=True, doc="An id.")
    maybe_key: Mapped[UUID | None] = mapped_column(index=True, doc="An id or null.")
    instant: Mapped[datetime] = mapped_column(index=True, doc="A timestamp.")
    maybe_instant: Mapped[datetime | None] = mapped_column(index=True, doc="A timestamp or null.")
    colours: Mapped[list[Colour]] = mapped_column(DocumentColumn(list[Colour]), doc="Colours.")
    numbers: Mapped[list[int]] = mapped_column(DocumentColumn(list[int]), doc="Integers.")
    keys: Mapped[list[UUID]] = mapped_column(DocumentColumn(list[UUID]), doc="Ids.")
    tags: Mapped[list[str]] = mapped_column(doc="Texts.")
    anything: Mapped[dict[str, Any]] = mapped_column(info=NOT_FILTERABLE, doc="Any JSON value.")


register_type(Sample, registry=Registry())


class CronSchedule(Document):
    """A cron expression."""

    kind: Literal["cron"] = "cron"
    cron: Name = Field(description="The expression.")
    day_or: bool = Field(default=True, description="Whether matching either day field is enough.")
    time_zone: str = Field(default_factory=lambda: "UTC", description="Name of the time zone.")


class IntervalSchedule(Document):
    """A fixed interval."""

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
    """A number of events within a window of time."""

    kind: Literal["event"] = "event"
    id: UUID = Field(default_factory=uuid4, description="Id of the trigger.", json_schema_extra=READ_ONLY)
    expect: Tags = Field(default=[], description="Patterns of events.")
    match_related: list[list[Label]] = Field(default=[], description="Labels of related resources.")
    threshold: int = Field(default=1, ge=0, description="Number of events.")
    within_seconds: float = Field(default_factory=lambda: 10.0, description="Length of the window.")


class CompoundTrigger(Document):
    """A number of other triggers."""

    kind: Literal["compound"] = "compound"
    id: UUID = Field(default_factory=uuid4, description="Id of the trigger.", json_schema_extra=READ_ONLY)
    require: int | None = Field(default=None, description="Number of triggers that must fire; null for all.")
    triggers: list["Trigger"] = Field(min_length=1, description="The other triggers.")
    first: "Trigger | None" = Field(default=None, description="The trigger that must fire first.")


Trigger = Annotated[
    EventTrigger | CompoundTrigger,
    Field(discriminator="kind", title="Trigger", description="Condition under which an automation fires."),
]


class Verb(Enum):
    """A change of a run."""

    CANCEL = "CANCEL"
    """Cancellation."""
    DELETE = "DELETE"
    """Deletion."""


class DoNothingAction(Document):
    """An action without an effect."""

    action: Literal["do_nothing"] = "do_nothing"
    do_nothing: bool = Field(description="Always true.")


class PauseAction(Document):
    """An action that pauses an object."""

    action: Literal["pause"] = "pause"
    id: UUID | None = Field(default=None, description="Id of the object; by default it is inferred.")
    kind: Verb = Field(description="Kind of the change.")


class ResumeAction(PauseAction):
    """An action that resumes a paused object."""

    action: Literal["resume"] = "resume"  # type: ignore[assignment]


Action = Annotated[
    DoNothingAction | PauseAction | ResumeAction,
    Field(discriminator="action", title="AutomationAction", description="Action of an automation that fires."),
]


class Automation(Document):
    """A trigger and its actions."""

    trigger: Trigger = Field(description="Condition under which it fires.")
    actions: list[Action] = Field(description="Actions when it fires.")
    schedule: Schedule | None = Field(default=None, description="Times at which it is evaluated.")
    previous: "Automation | None" = Field(default=None, description="Previous version.")


class Part(Document):
    """A part of a document; both contain each other."""

    whole: "Whole | None" = Field(default=None, description="The document that contains the part.")


class Whole(Document):
    """A document with parts that contain such documents."""

    anything: dict[str, Any] = Field(default={}, description="Any JSON value.")
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


class Job(Row):
    """A row with columns that hold unions of documents."""

    __tablename__ = "job"
    __private__ = True
    metadata = sa.MetaData()  # of its own: the server has no such table

    schedule: Mapped[Schedule] = mapped_column(DocumentColumn(Schedule), info=NOT_FILTERABLE, doc="Times of runs.")
    actions: Mapped[list[Action]] = mapped_column(
        DocumentColumn(list[Action]), default=list, info=NOT_FILTERABLE, doc="Actions."
    )
    trigger: Mapped[Trigger | None] = mapped_column(
        DocumentColumn(Trigger | None), info=NOT_FILTERABLE, doc="Condition for a start; null for none."
    )


CREATE, UPDATE = (
    strawberry.argument(graphql_type=Input.__class_getitem__(document))
    for document in (create_document(Job), update_document(Job))
)
register_type(Automation, Whole, Job, registry=Registry())


@strawberry.type
class Query:
    """The root of queries."""

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
        """The document of an input, as JSON."""
        return str(input.checked().model_dump_json())

    @strawberry.field
    def scheduled(self, input: Input[Schedule]) -> str:
        """The schedule of an input, as JSON."""
        return str(input.checked().model_dump_json())

    @strawberry.field
    def whole(self, input: Input[Whole]) -> Whole:
        """The document of an input."""
        return input.checked()

    @strawberry.field
    def jobs(
        self,
        create: Annotated[Any, CREATE],
        update: Annotated[Any, UPDATE],
    ) -> list[Job]:
        """No jobs."""
        return []


DOCUMENTS = strawberry.Schema(
    query=Query, execution_context_class=executor_with(PlanCache()), config=StrawberryConfig(scalar_map=SCALARS)
)
TYPES: GraphQLSchema = DOCUMENTS._schema  # noqa: SLF001 it has no public name
for known in TYPES.type_map.values():
    if isinstance(known, GraphQLInputObjectType):
        known.is_one_of = known.extensions["strawberry-definition"].is_one_of


async def data_of(document: str, **variables: Any) -> Any:
    """Execute a document; return its data."""
    answer = await DOCUMENTS.execute(document, variables)
    assert not answer.errors
    return answer.data
