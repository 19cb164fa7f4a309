"""Documents as schedules, triggers and actions need them: unions, and documents that hold themselves."""

from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID, uuid4

from pydantic import Field

from runstate.documents.base import READ_ONLY, Document, Name, Tags


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
