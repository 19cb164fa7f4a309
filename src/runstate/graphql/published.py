"""Registration of the public rows as GraphQL types. Families add the fields without a column."""

import sqlalchemy as sa

from runstate.database.queries.counts import StateCount
from runstate.database.queries.history import HistoryInterval
from runstate.documents.decisions import LastAnswer, ProposedType, StateDecision
from runstate.documents.intervals import Interval
from runstate.documents.policies import FlowRunPolicy
from runstate.documents.requests import DeploymentRef, RunRef
from runstate.documents.states import StateDetails
from runstate.graphql.pagination.connection import has_many
from runstate.graphql.types.derive import register_type, tables
from runstate.graphql.types.inputs import register_input
from runstate.rows import (
    Artifact,
    ArtifactCollection,
    BlockDocument,
    BlockDocumentReference,
    BlockSchema,
    BlockSchemaReference,
    BlockType,
    ConcurrencyLease,
    ConcurrencyLimit,
    ConcurrencyWaiter,
    Configuration,
    CsrfToken,
    Deployment,
    DeploymentSchedule,
    DeploymentVersion,
    Flow,
    FlowRun,
    FlowRunInput,
    FlowRunState,
    Log,
    Row,
    Run,
    RunClaim,
    SavedSearch,
    State,
    TaskRun,
    TaskRunState,
    Transition,
    Worker,
    WorkPool,
    WorkQueue,
)
from runstate.rows.artifacts import OF_STATE

__all__ = [
    "Artifact",
    "ArtifactCollection",
    "BlockDocument",
    "BlockDocumentReference",
    "BlockSchema",
    "BlockSchemaReference",
    "BlockType",
    "ConcurrencyLease",
    "ConcurrencyLimit",
    "ConcurrencyWaiter",
    "Configuration",
    "CsrfToken",
    "Deployment",
    "DeploymentSchedule",
    "DeploymentVersion",
    "Flow",
    "FlowRun",
    "FlowRunInput",
    "FlowRunState",
    "Log",
    "Row",
    "Run",
    "RunClaim",
    "SavedSearch",
    "State",
    "TaskRun",
    "TaskRunState",
    "Transition",
    "WorkPool",
    "WorkQueue",
    "Worker",
]

# Interfaces are registered first, since types refer to their definitions.
register_type(Row, name="Node", only={"id"})
register_type(ProposedType)
register_type(StateDecision, name="Decision")
register_type(LastAnswer, only=set(LastAnswer.model_fields) - {"limit_ids"})
register_type(State, implements=(Row,), descriptions={"run": "The run that was in the state.", "artifact": OF_STATE})
register_type(Run, implements=(Row,))
for _row in tables(Row):
    if not _row.__private__:
        _kinds = tuple(kind for kind in (State, Run) if issubclass(_row, kind))
        register_type(_row, implements=(*_kinds, Row) if _row.__node__ else _kinds)
# Reverse references are fields of other rows, which have to be registered before.
for _row in tables(Row):
    for _relation in sa.inspect(_row).relationships:
        if _reverse := _relation.info.get("reverse"):
            (_key,) = _relation.local_columns
            has_many(_relation.mapper.class_, _reverse[0], _row, str(_key.key), _reverse[1])
register_type(StateCount, HistoryInterval, Transition)

SERVERS_OWN = {"flow_run_id", "task_run_id", "child_flow_run_id", "deployment_concurrency_lease_id"}
"""Members of a state's details that only the server sets."""

register_input(FlowRunPolicy, only={"retries", "retry_delay_seconds"})
register_input(StateDetails, only=set(StateDetails.model_fields) - SERVERS_OWN)
register_input(RunRef, name="RunRef", one_of=True)
register_input(DeploymentRef, name="DeploymentRef")
register_input(Interval, one_of=True)
