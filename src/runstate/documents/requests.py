"""What clients may say in mutations. Ids that nothing has, and what contradicts itself, come back as typed problems."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field

from runstate.documents.base import Document, JsonObject, JsonValue, LongText, Name, NonNegativeInt, Seconds, Tags
from runstate.documents.policies import ConcurrencyOptions, FlowRunPolicy, TaskRunPolicy
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


class CreateFlow(Document):
    """A flow. One that has the name already is answered instead."""

    name: Name = Field(description="Unique name.")
    tags: Tags | None = Field(default=None, description="Labels to find the flow by.")
    labels: JsonObject | None = Field(default=None, description="Keys and values to find the flow by.")


class CreateFlowRun(Document):
    """A run of a flow. One that the flow has under the same idempotency key is answered instead."""

    flow_id: UUID = Field(description="Id of the flow.")
    deployment_id: UUID | None = Field(default=None, description="Id of the deployment that it is made from.")
    name: Name | None = Field(default=None, description="Name for people; made up if left out.")
    parameters: JsonObject | None = Field(default=None, description="Arguments of the flow; at most 512 KiB.")
    context: JsonObject | None = Field(default=None, description="Further values to keep with it; at most 512 KiB.")
    tags: Tags | None = Field(default=None, description="Labels to find the run by.")
    labels: JsonObject | None = Field(default=None, description="Keys and values to find the run by.")
    policy: FlowRunPolicy | None = Field(default=None, description="How it is retried.")
    idempotency_key: Name | None = Field(default=None, description="Unique for the flow.")
    parent_task_run_id: UUID | None = Field(
        default=None, description="Of a subflow run: id of the task run that stands for it in the parent flow run."
    )
    infrastructure_pid: Name | None = Field(default=None, description="Where it runs: a process, a container, a job.")
    flow_version: Name | None = Field(default=None, description="Version of the flow's code.")
    work_queue_name: Name | None = Field(default=None, description="The work queue that it goes to.")
    state: State | None = Field(
        default=None, description="Written as it is, as if forced, taking no slot; without it: PENDING."
    )


class CreateTaskRun(Document):
    """A run of a task. One with the same flow run, task key and dynamic key is answered instead."""

    flow_run_id: UUID | None = Field(default=None, description="Id of the flow run that it belongs to.")
    task_key: Name = Field(description="Names the task.")
    dynamic_key: Name = Field(description="Tells runs of one task in one flow run apart.")
    name: Name | None = Field(default=None, description="Name for people; made up if left out.")
    tags: Tags | None = Field(default=None, description="Labels to find the run by; limits go by tags too.")
    labels: JsonObject | None = Field(default=None, description="Keys and values to find the run by.")
    cache_key: Name | None = Field(default=None, description="Under which key its result is cached.")
    task_version: Name | None = Field(default=None, description="Version of the task's code.")
    policy: TaskRunPolicy | None = Field(default=None, description="How it is retried.")
    task_inputs: JsonObject | None = Field(
        default=None, description="Of each argument, what it came from: task runs, parameters, constants."
    )
    state: State | None = Field(
        default=None, description="Written as it is, as if forced, taking no slot; without it: PENDING."
    )


class UpdateFlow(Document):
    """Changes of a flow; what is left out stays as it is."""

    id: UUID = Field(description="Id of the flow.")
    tags: Tags | None = Field(default=None, description="Labels to find the flow by.")
    labels: JsonObject | None = Field(default=None, description="Keys and values to find the flow by.")


class UpdateFlowRun(Document):
    """Changes of a flow run; what is left out stays as it is. States are proposed, not changed."""

    id: UUID = Field(description="Id of the flow run.")
    name: Name | None = Field(default=None, description="Name for people.")
    tags: Tags | None = Field(default=None, description="Labels to find the run by.")
    labels: JsonObject | None = Field(default=None, description="Keys and values to find the run by.")
    parameters: JsonObject | None = Field(default=None, description="Arguments of the flow; at most 512 KiB.")
    context: JsonObject | None = Field(default=None, description="Further values to keep with it; at most 512 KiB.")
    policy: FlowRunPolicy | None = Field(default=None, description="How it is retried; what is left out of it stays.")
    infrastructure_pid: Name | None = Field(default=None, description="Where it runs: a process, a container, a job.")
    flow_version: Name | None = Field(default=None, description="Version of the flow's code.")
    work_queue_name: Name | None = Field(default=None, description="The work queue that it goes to.")


class UpdateTaskRun(Document):
    """Changes of a task run; what is left out stays as it is. States are proposed, not changed."""

    id: UUID = Field(description="Id of the task run.")
    name: Name | None = Field(default=None, description="Name for people.")
    tags: Tags | None = Field(
        default=None,
        description="Labels to find the run by. A RUNNING one gives back the slots of limits on tags that it loses; "
        "limits on tags that it gains count when it enters RUNNING the next time.",
    )
    labels: JsonObject | None = Field(default=None, description="Keys and values to find the run by.")
    task_version: Name | None = Field(default=None, description="Version of the task's code.")
    policy: TaskRunPolicy | None = Field(default=None, description="How it is retried; what is left out of it stays.")
    task_inputs: JsonObject | None = Field(
        default=None, description="Of each argument, what it came from: task runs, parameters, constants."
    )


class CreateDeployment(Document):
    """A deployment of a flow. One that the flow has under the name already is updated."""

    flow_id: UUID = Field(description="Id of the flow.")
    name: Name = Field(description="Name, unique for the flow.")
    concurrency_limit: NonNegativeInt | None = Field(
        default=None, description="How many of its runs may be claimed or running at once; null: any number."
    )
    concurrency_options: ConcurrencyOptions | None = Field(
        default=None, description="What happens to runs that find no slot."
    )
    paused: bool | None = Field(default=None, description="No new runs are scheduled while it is paused.")
    parameters: JsonObject | None = Field(default=None, description="Parameters of its runs, unless they say other.")
    tags: Tags | None = Field(default=None, description="Labels to find it by; its runs get them too.")
    work_queue_name: Name | None = Field(default=None, description="The work queue that its runs go to.")
    description: LongText | None = Field(default=None, description="What it is, for people.")


class UpdateDeployment(Document):
    """Changes of a deployment; what is left out stays as it is."""

    id: UUID = Field(description="Id of the deployment.")
    concurrency_limit: NonNegativeInt | None = Field(
        default=None, description="How many of its runs may be claimed or running at once; null: any number."
    )
    concurrency_options: ConcurrencyOptions | None = Field(
        default=None, description="What happens to runs that find no slot."
    )
    paused: bool | None = Field(default=None, description="No new runs are scheduled while it is paused.")
    parameters: JsonObject | None = Field(default=None, description="Parameters of its runs, unless they say other.")
    tags: Tags | None = Field(default=None, description="Labels to find it by; its runs get them too.")
    work_queue_name: Name | None = Field(default=None, description="The work queue that its runs go to.")
    description: LongText | None = Field(default=None, description="What it is, for people.")


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


class CreateConcurrencyLimit(Document):
    """A limit. One that has the name already is updated."""

    name: Name = Field(description="Unique name. `tag:<tag>` limits the RUNNING task runs that carry the tag.")
    limit: NonNegativeInt = Field(description="How many slots there are.")
    active: bool = Field(default=True, description="False: the limit is not enforced.")
    slot_decay_per_second: Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)] = Field(
        default=0, description="How many slots free themselves each second (a rate limit); 0: none."
    )


class UpdateConcurrencyLimit(Document):
    """Changes of a limit; what is left out stays as it is."""

    id: UUID = Field(description="Id of the limit.")
    limit: NonNegativeInt | None = Field(
        default=None, description="How many slots there are. Fewer than are held: no new ones until enough are free."
    )
    active: bool | None = Field(default=None, description="False: the limit is not enforced.")
    slot_decay_per_second: Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)] | None = Field(
        default=None, description="How many slots free themselves each second; changes only while no slot is held."
    )


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


class WriteFlowRun(Document):
    """A value that a flow run can read under a key."""

    flow_run_id: UUID = Field(description="Id of the flow run.")
    key: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]+$", max_length=255)] = Field(
        description="Unique for the flow run: letters, digits, `.`, `_`, `:`, `-`."
    )
    value: JsonValue = Field(description="Any JSON value, at most 512 KiB.")
    sender: Name | None = Field(default=None, description="Who sends it, for people.")
