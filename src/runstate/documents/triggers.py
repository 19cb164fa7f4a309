"""Triggers: conditions on events and metrics under which automations fire."""

from collections.abc import Iterator
from enum import Enum
from typing import Annotated, Any, Final, Literal
from uuid import UUID, uuid4

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from runstate.documents.base import READ_ONLY, Document, NonNegativeInt, Seconds, Text
from runstate.documents.labels import LabelPatterns, LabelRef, RelatedPatterns

SHORTEST_PROACTIVE: Final = 10.0
"""Shortest window of a proactive trigger, in seconds; shorter ones would be measured by delays, not by events."""
DEEPEST: Final = 4
MOST_TRIGGERS: Final = 50


def _unnegated(pattern: str) -> str:
    if pattern.startswith("!"):
        raise ValueError("a pattern of names cannot be negated; it must not begin with `!`")
    return pattern


NamePattern = Annotated[Text, Field(max_length=1024), AfterValidator(_unnegated)]
NamePatterns = Annotated[list[NamePattern], Field(max_length=100)]


class Posture(Enum):
    """Whether a trigger reacts to the presence or the absence of events."""

    REACTIVE = "REACTIVE"
    """Fires as soon as there are enough events, at most once in a window."""
    PROACTIVE = "PROACTIVE"
    """Fires if a window ends with fewer events than expected."""


class TriggerBase(Document):
    """Members of all triggers."""

    id: UUID = Field(
        default_factory=uuid4, description="Id; new whenever the trigger changes.", json_schema_extra=READ_ONLY
    )


class EventTrigger(TriggerBase):
    """A number of events within a window of time, or too few of them. docs/automations.md explains the algorithm."""

    kind: Literal["event"] = "event"
    posture: Posture = Field(description="Whether the trigger reacts to presence or absence.")
    match: LabelPatterns = Field(
        default=[], description="Labels of the resource; all must match. Default: any resource."
    )
    match_related: RelatedPatterns = Field(
        default=[], description="For each item, one related resource must match all labels."
    )
    after: NamePatterns = Field(
        default=[], description="Patterns of names of events that open a window. Default: windows follow one another."
    )
    expect: NamePatterns = Field(
        default=[], description="Patterns of names of events that are counted, for example `order.*`. Default: all."
    )
    for_each: Annotated[list[LabelRef], Field(max_length=20)] = Field(
        default=[],
        description="Labels: each combination of their values has windows of its own. A missing label counts as empty.",
    )
    threshold: NonNegativeInt = Field(
        default=1, description="REACTIVE fires at this number of events, PROACTIVE below it; at least 0."
    )
    within_seconds: Seconds = Field(
        default_factory=lambda: 0.0,
        validate_default=True,
        description="Length of a window. REACTIVE: at least 0, default 0, which counts without end and fires whenever "
        "the threshold is reached. PROACTIVE: at least 10; 0 is 10, and 10 is the default.",
    )

    @field_validator("within_seconds")
    @classmethod
    def _long_enough(cls, seconds: float, info: ValidationInfo) -> float:
        if info.data.get("posture") is not Posture.PROACTIVE:
            return seconds
        if 0 < seconds < SHORTEST_PROACTIVE:
            raise ValueError(f"the window of a PROACTIVE trigger must be at least {SHORTEST_PROACTIVE:.0f} seconds")
        return seconds or SHORTEST_PROACTIVE


Children = Annotated[list["Trigger"], Field(min_length=1, max_length=MOST_TRIGGERS)]


class CompoundTrigger(TriggerBase):
    """Some or all of other triggers, in any order. The newest firing of each is kept until enough have fired."""

    kind: Literal["compound"] = "compound"
    triggers: Children = Field(description="The other triggers; at least one.")
    within_seconds: Seconds | None = Field(
        default=None, description="Maximum time between the oldest and the newest firing; null for no limit."
    )
    require: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="Number of different triggers that must fire; null for all. With 1, each firing is passed on.",
    )

    @model_validator(mode="after")
    def _possible(self) -> "CompoundTrigger":
        if self.require and self.require > len(self.triggers):
            raise ValueError(f"`require` is {self.require}, but there are {len(self.triggers)} triggers")
        return self


class SequenceTrigger(TriggerBase):
    """Other triggers, in order. The newest firing of each counts, and an event counts for one of them only."""

    kind: Literal["sequence"] = "sequence"
    triggers: Children = Field(description="The other triggers, in order; at least one.")
    within_seconds: Seconds | None = Field(
        default=None, description="Maximum time between the first and the last firing; null for no limit."
    )


class RunMetric(Enum):
    """A number that is measured over matching flow runs."""

    LATENESS = "LATENESS"
    """Average seconds by which they started late."""
    DURATION = "DURATION"
    """Average seconds that they took."""
    SUCCESSES = "SUCCESSES"
    """Share of ended runs that completed, from 0 to 1."""


class MetricOperator(Enum):
    """The comparison of a measured number with the threshold."""

    LT = "LT"
    """Less."""
    LTE = "LTE"
    """Less or equal."""
    GT = "GT"
    """Greater."""
    GTE = "GTE"
    """Greater or equal."""


LongWhile = Annotated[Seconds, Field(ge=300)]


class MetricTrigger(TriggerBase):
    """A number of flow runs that is too high or too low for a while; measured every 30 seconds.

    It is the only trigger with a RESOLVED firing.
    """

    kind: Literal["metric"] = "metric"
    match: LabelPatterns = Field(default=[], description="Labels of the flow run in its events; all must match.")
    match_related: RelatedPatterns = Field(
        default=[], description="For each item, one related resource must match all labels."
    )
    metric: RunMetric = Field(description="The measured number.")
    operator: MetricOperator = Field(description="The comparison.")
    threshold: Annotated[float, Field(allow_inf_nan=False)] = Field(description="The number to compare with.")
    range_seconds: LongWhile = Field(default=300.0, description="Length of the measured time up to now; at least 300.")
    firing_for_seconds: LongWhile = Field(
        default=300.0, description="Time for which the comparison must hold, or no longer hold; at least 300."
    )


Trigger = Annotated[
    EventTrigger | CompoundTrigger | SequenceTrigger | MetricTrigger,
    Field(discriminator="kind", title="Trigger", description="Condition under which an automation fires."),
]
CompoundTrigger.model_rebuild()
SequenceTrigger.model_rebuild()


def inner_triggers(trigger: Any) -> Iterator[Any]:
    """Yield a trigger and all triggers inside it, from outside in, in their order."""
    yield trigger
    for child in getattr(trigger, "triggers", ()):
        yield from inner_triggers(child)


def depth_of(trigger: Any) -> int:
    """Return the number of levels of a trigger; 1 for one without others inside."""
    return 1 + max(map(depth_of, getattr(trigger, "triggers", ())), default=0)


def bounded(trigger: Any) -> Any:
    """Return the trigger. Raise ValueError if it has more than 4 levels or more than 50 triggers."""
    if depth_of(trigger) > DEEPEST:
        raise ValueError(f"the trigger has {depth_of(trigger)} levels; at most {DEEPEST} are allowed")
    if (count := len(list(inner_triggers(trigger)))) > MOST_TRIGGERS:
        raise ValueError(f"the trigger consists of {count} triggers; at most {MOST_TRIGGERS} are allowed")
    return trigger


def definition(trigger: Any) -> Any:
    """Return a trigger as JSON without its ids, for comparisons."""
    return _without_ids(trigger.model_dump(mode="json"))


def _without_ids(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_ids(each) for key, each in value.items() if key != "id"}
    return list(map(_without_ids, value)) if isinstance(value, list) else value
