"""What clients may say in mutations. Ids that nothing has, and what contradicts itself, come back as typed problems."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field

from runstate.documents.base import Document, JsonObject, JsonValue, LongText, Name, Seconds, Tags
from runstate.documents.policies import FlowRunPolicy
from runstate.documents.states import StateDetails, StateType

LeaseIds = Annotated[list[UUID], Field(min_length=1, max_length=200)]
LeaseSeconds = Annotated[float, Field(ge=1, le=86_400, allow_inf_nan=False)]


class State(Document):
    """A state, as a client proposes it; id, time and version are the server's."""

    type: StateType = Field(description="What the run is to do.")
    name: Name | None = Field(default=None, description="Default: the type in words.")
    message: LongText | None = Field(default=None, description="Free text for people, at most 100,000 characters.")
    data: JsonValue | None = Field(
        default=None,
        description="Where the result is, or the result itself: at most 512 KiB. An object whose `type` is "
        "`unpersisted` says that there is none and is not stored.",
    )
    details: StateDetails | None = Field(default=None, description="What rules and clients know about it besides.")


class RunRef(Document):
    """Which run: exactly one of the two."""

    flow_run_id: UUID | None = Field(default=None, description="Id of a flow run.")
    task_run_id: UUID | None = Field(default=None, description="Id of a task run.")


class ProposeState(Document):
    """A state that is proposed for a run."""

    run: RunRef = Field(description="The run.")
    state: State = Field(description="The state that it is to enter.")
    force: bool = Field(default=False, description="Skip the rules that guard; bookkeeping still happens.")
    expected_version: int | None = Field(
        default=None, description="Refuse with VersionConflict if the run has moved on from this version."
    )
    idempotency_key: Name | None = Field(
        default=None,
        description="Unique for the run, looked up before expectedVersion. Only answers that wrote a state are kept, "
        "for a day at least; the same proposal with the same key is then answered as it was, with `replayed: true`; "
        "another proposal with it is an IdempotencyConflict.",
    )
    dry_run: bool = Field(default=False, description="Decide and explain, write nothing.")


class RunDeployment(Document):
    """A run of a deployment: its parameters and tags, with these on top, SCHEDULED."""

    deployment_id: UUID = Field(description="Id of the deployment.")
    name: Name | None = Field(default=None, description="Name for people; made up if left out.")
    parameters: JsonObject | None = Field(
        default=None, description="Parameters that replace those of the deployment, key by key."
    )
    tags: Tags | None = Field(default=None, description="Tags beside those of the deployment.")
    scheduled_time: datetime | None = Field(default=None, description="When it is due; null: now.")
    idempotency_key: Name | None = Field(
        default=None, description="A second run of the flow with this key is not created."
    )
    policy: FlowRunPolicy | None = Field(default=None, description="How it is retried.")
    parent_task_run_id: UUID | None = Field(
        default=None, description="Of a subflow run: id of the task run that stands for it in the parent flow run."
    )
    work_queue_name: Name | None = Field(default=None, description="Instead of the deployment's work queue.")


class AcquireConcurrencySlots(Document):
    """Slots of several limits at once, all or none."""

    names: Annotated[list[Name], Field(min_length=1, max_length=100)] = Field(
        description="Names of the limits. Those that do not exist or are not active limit nothing."
    )
    slots: Annotated[int, Field(ge=1, le=2**31 - 1)] = Field(default=1, description="How many of each.")
    holder: Name | None = Field(default=None, description="Who takes them, for people.")
    run: RunRef | None = Field(
        default=None, description="The run that takes them; when it ends they are given back for it."
    )
    lease_seconds: LeaseSeconds = Field(
        default=300, description="After how many seconds they are taken back unless the leases are renewed."
    )


class ReleaseConcurrencySlots(Document):
    """Leases that are given back."""

    lease_ids: LeaseIds = Field(description="Ids of the leases; those that are gone are left out of the answer.")


class RenewConcurrencyLeases(Document):
    """Leases that are to last longer."""

    lease_ids: LeaseIds = Field(description="Ids of the leases; those that are gone are left out of the answer.")
    lease_seconds: LeaseSeconds = Field(
        default=300, description="After how many seconds from now they are taken back unless renewed again."
    )


class PauseFlowRun(Document):
    """A running flow run that is to wait in its process, or with suspend to be started anew on resume."""

    id: UUID = Field(description="Id of the flow run.")
    timeout_seconds: Seconds | None = Field(
        default=None, description="After how many seconds it fails unless resumed; null: never."
    )
    expiration_time: datetime | None = Field(default=None, description="The same as a time; only one of the two.")
    pause_key: Name | None = Field(default=None, description="Names a place in the code that pauses only once.")
    run_input_keyset: dict[Name, Name] | None = Field(
        default=None,
        description="Keys of run inputs: under `schema` the JSON schema of what the run waits for, under `response` "
        "where the answer goes.",
    )
    message: LongText | None = Field(default=None, description="Free text for people.")
    idempotency_key: Name | None = Field(default=None, description="As of proposeState.")


class ResumeFlowRun(Document):
    """A paused flow run that is to go on."""

    id: UUID = Field(description="Id of the flow run.")
    run_input: JsonValue | None = Field(
        default=None, description="What the run waits for; checked against the schema it gave when it paused."
    )
    message: LongText | None = Field(default=None, description="Free text for people.")
    idempotency_key: Name | None = Field(default=None, description="As of proposeState.")


class CancelFlowRun(Document):
    """A flow run that is to be cancelled."""

    id: UUID = Field(description="Id of the flow run.")
    message: LongText | None = Field(default=None, description="Why, for people.")
    idempotency_key: Name | None = Field(default=None, description="As of proposeState.")


class RetryFlowRun(Document):
    """A flow run of a deployment that has ended and is to run again."""

    id: UUID = Field(description="Id of the flow run.")
    delay_seconds: Seconds = Field(default=0, description="After how many seconds.")
    message: LongText | None = Field(default=None, description="Why, for people.")
    idempotency_key: Name | None = Field(default=None, description="As of proposeState.")
