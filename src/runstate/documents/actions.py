"""Actions of automations: what is done when they fire."""

from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, Field

from runstate.documents.base import Document, JsonObject, LongText, Name, Seconds
from runstate.documents.states import StateType
from runstate.documents.templates import template

Template = Annotated[LongText, AfterValidator(template)]
Subject = Annotated[LongText, Field(max_length=1000), AfterValidator(template)]


def _templates_in(value: Any) -> Any:
    if isinstance(value, str):
        return template(value)
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _templates_in(each)
    return value


def _true(value: bool) -> bool:  # noqa: FBT001 the value of a member
    if not value:
        raise ValueError("the value must be true")
    return value


Parameters = Annotated[JsonObject, AfterValidator(_templates_in)]


class DoNothingAction(Document):
    """Nothing is done; the firing is recorded."""

    action: Literal["do_nothing"] = "do_nothing"
    do_nothing: Annotated[bool, AfterValidator(_true)] = Field(default=True, description="Always true.")


class RunDeploymentAction(Document):
    """A flow run of a deployment is created, once for each firing."""

    action: Literal["run_deployment"] = "run_deployment"
    deployment_id: UUID | None = Field(default=None, description="Id of the deployment; null to infer it.")
    parameters: Parameters | None = Field(
        default=None,
        description="Parameters that replace those of the deployment. Texts in them are templates; a text that is one "
        "expression keeps the type of its value. Null for none.",
    )
    job_variables: JsonObject | None = Field(
        default=None, description="Job variables that replace those of the deployment; null for none."
    )
    schedule_after_seconds: Seconds = Field(
        default=0.0, description="Time from the firing to the scheduled start in seconds; at least 0."
    )


class PausableKind(Enum):
    """A kind of object that can be paused."""

    AUTOMATION = "AUTOMATION"
    """Automation; it is disabled."""
    DEPLOYMENT = "DEPLOYMENT"
    """Deployment; its schedules create no runs."""
    WORK_POOL = "WORK_POOL"
    """Work pool; its runs cannot be claimed."""
    WORK_QUEUE = "WORK_QUEUE"
    """Work queue; its runs cannot be claimed."""


class Pausable(Document):
    """An object that is paused or resumed."""

    kind: PausableKind = Field(description="Kind of the object.")
    id: UUID | None = Field(default=None, description="Id of the object; null to infer it.")


class PauseAction(Pausable):
    """An object is paused."""

    action: Literal["pause"] = "pause"


class ResumeAction(Pausable):
    """A paused object is resumed."""

    action: Literal["resume"] = "resume"


class FlowRunVerb(Enum):
    """A change of a flow run."""

    CANCEL = "CANCEL"
    """CANCELLING is proposed; a run that becomes CANCELLED at once counts as done."""
    SUSPEND = "SUSPEND"
    """As suspendFlowRun, with an hour until it fails."""
    RESUME = "RESUME"
    """As resumeFlowRun, without an input."""
    DELETE = "DELETE"
    """As deleteFlowRun."""


class FlowRunAction(Document):
    """The flow run of the event is changed: that of the label `resource.id` of forEach, or the first resource."""

    action: Literal["flow_run"] = "flow_run"
    verb: FlowRunVerb = Field(description="The change.")


class ChangeFlowRunStateAction(Document):
    """A state is proposed for the flow run of the event."""

    action: Literal["change_flow_run_state"] = "change_flow_run_state"
    type: StateType = Field(description="Type of the state.")
    name: Name | None = Field(default=None, description="Name of the state; null for that of the type.")
    message: LongText | None = Field(
        default=None, description="Message for people; null for one that names the automation."
    )
    force: bool = Field(default=False, description="True to skip the rules that can reject.")


class SendNotificationAction(Document):
    """A text is sent through a notification block."""

    action: Literal["send_notification"] = "send_notification"
    block_document_id: UUID = Field(description="Id of the block document.")
    subject: Subject = Field(default="Automated notification", description="Template of the subject.")
    body: Template = Field(description="Template of the text.")


class CallWebhookAction(Document):
    """A webhook block is called."""

    action: Literal["call_webhook"] = "call_webhook"
    block_document_id: UUID = Field(description="Id of the block document.")
    payload: Template = Field(default="", description="Template of the body of the request.")


AutomationAction = Annotated[
    DoNothingAction
    | RunDeploymentAction
    | PauseAction
    | ResumeAction
    | FlowRunAction
    | ChangeFlowRunStateAction
    | SendNotificationAction
    | CallWebhookAction,
    Field(discriminator="action", title="AutomationAction", description="Action of an automation that fires."),
]
AutomationActions = Annotated[list[AutomationAction], Field(max_length=50)]


class ActionStatus(Enum):
    """Status of an action of a firing."""

    PENDING = "PENDING"
    """It is waiting, or is tried again."""
    EXECUTED = "EXECUTED"
    """It was executed."""
    FAILED = "FAILED"
    """It failed for good."""


class TriggerState(Enum):
    """State of a firing."""

    TRIGGERED = "TRIGGERED"
    """The condition holds."""
    RESOLVED = "RESOLVED"
    """The condition of a metric no longer holds."""
