"""What is published and what clients may send, and under which names: a table is a line here."""

from runstate.database.queries.counts import StateCount
from runstate.database.queries.history import HistoryInterval
from runstate.documents.policies import FlowRunPolicy
from runstate.documents.requests import RunRef
from runstate.documents.states import StateDetails
from runstate.graphql.pagination.connection import has_many
from runstate.graphql.types.derive import register_type
from runstate.graphql.types.inputs import register_input
from runstate.rows import (
    ConcurrencyLease,
    ConcurrencyLimit,
    CsrfToken,
    Deployment,
    Flow,
    FlowRun,
    FlowRunInput,
    FlowRunState,
    Row,
    Run,
    State,
    TaskRun,
    TaskRunState,
    Transition,
)

__all__ = [
    "ConcurrencyLease",
    "ConcurrencyLimit",
    "CsrfToken",
    "Deployment",
    "Flow",
    "FlowRun",
    "FlowRunInput",
    "FlowRunState",
    "Row",
    "Run",
    "State",
    "TaskRun",
    "TaskRunState",
    "Transition",
]

register_type(Row, name="Node", only={"id"})
register_type(State, implements=(Row,), descriptions={"run": "The run that was in the state."})
register_type(Run, implements=(Row,))
register_type(FlowRunState, TaskRunState, implements=(State, Row))
register_type(FlowRun, TaskRun, implements=(Run, Row))
register_type(Flow, ConcurrencyLimit, implements=(Row,))
register_type(CsrfToken)
register_type(ConcurrencyLease, FlowRunInput)  # no nodes: `limit` and `flowRun` mean something else on nodes
register_type(Deployment, implements=(Row,), renamed={"limit": "concurrency"})
register_type(StateCount, HistoryInterval, Transition)

SERVERS_OWN = {"flow_run_id", "task_run_id", "child_flow_run_id", "deployment_concurrency_lease_id"}
"""What the server notes on a state; no client says it."""

register_input(FlowRunPolicy, only={"retries", "retry_delay_seconds"})
register_input(StateDetails, only=set(StateDetails.model_fields) - SERVERS_OWN)
register_input(RunRef, name="RunRef", one_of=True)

has_many(Flow, "flow_runs", FlowRun, "flow_id", "The runs of the flow.")
has_many(Flow, "deployments", Deployment, "flow_id", "The deployments of the flow.")
has_many(Deployment, "flow_runs", FlowRun, "deployment_id", "The runs that were made from the deployment.")
has_many(FlowRun, "states", FlowRunState, "run_id", "The states that the run has been in; oldest first unless asked.")
has_many(FlowRun, "inputs", FlowRunInput, "flow_run_id", "Values that the run reads, by key.")
has_many(ConcurrencyLimit, "leases", ConcurrencyLease, "limit_id", "Who holds slots of the limit.")
has_many(FlowRun, "task_runs", TaskRun, "flow_run_id", "The task runs of the flow run.")
has_many(TaskRun, "states", TaskRunState, "run_id", "The states that the run has been in; oldest first unless asked.")
has_many(TaskRun, "child_flow_runs", FlowRun, "parent_task_run_id", "The subflow runs that the task run stands for.")
