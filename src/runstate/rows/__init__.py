"""Tables: one class each, documented column by column, without sessions and without GraphQL."""

from importlib import import_module
from pkgutil import iter_modules

from sqlalchemy.orm import configure_mappers

from runstate.rows.access import ApiKey, CsrfToken
from runstate.rows.artifacts import Artifact, ArtifactCollection
from runstate.rows.automations import (
    Automation,
    AutomationActionRun,
    AutomationBucket,
    AutomationEventFollower,
    AutomationFiring,
    AutomationRelatedResource,
    CompositeTriggerChildFiring,
)
from runstate.rows.base import Base, Retention, Row, row_classes
from runstate.rows.blocks import (
    BlockDocument,
    BlockDocumentReference,
    BlockSchema,
    BlockSchemaReference,
    BlockType,
)
from runstate.rows.claims import ClaimAnswer, RunClaim
from runstate.rows.configurations import Configuration
from runstate.rows.evaluation import EvaluatedAutomation, EvaluatedRound, LogReader
from runstate.rows.events import Event, StoredEvent, StoredEventResource
from runstate.rows.flows import Deployment, Flow
from runstate.rows.limits import ConcurrencyLease, ConcurrencyLimit
from runstate.rows.log import Installation, LogCheckpoint, LogEntry, LogFloor, Transition
from runstate.rows.logs import Log, LogWrite
from runstate.rows.orchestration import (
    BulkOperation,
    CacheEntry,
    ConcurrencyWaiter,
    FlowRunInput,
    Heartbeat,
    ProposalAnswer,
)
from runstate.rows.pools import Worker, WorkPool, WorkQueue
from runstate.rows.runs import FlowRun, FlowRunState, Run, State, TaskRun, TaskRunState
from runstate.rows.saved_searches import SavedSearch
from runstate.rows.schedules import DeletedDate, DeploymentSchedule, DeploymentVersion
from runstate.rows.tallies import CountedName, RunTally

__all__ = [
    "ApiKey",
    "Artifact",
    "ArtifactCollection",
    "Automation",
    "AutomationActionRun",
    "AutomationBucket",
    "AutomationEventFollower",
    "AutomationFiring",
    "AutomationRelatedResource",
    "Base",
    "BlockDocument",
    "BlockDocumentReference",
    "BlockSchema",
    "BlockSchemaReference",
    "BlockType",
    "BulkOperation",
    "CacheEntry",
    "ClaimAnswer",
    "CompositeTriggerChildFiring",
    "ConcurrencyLease",
    "ConcurrencyLimit",
    "ConcurrencyWaiter",
    "Configuration",
    "CountedName",
    "CsrfToken",
    "DeletedDate",
    "Deployment",
    "DeploymentSchedule",
    "DeploymentVersion",
    "EvaluatedAutomation",
    "EvaluatedRound",
    "Event",
    "Flow",
    "FlowRun",
    "FlowRunInput",
    "FlowRunState",
    "Heartbeat",
    "Installation",
    "Log",
    "LogCheckpoint",
    "LogEntry",
    "LogFloor",
    "LogReader",
    "LogWrite",
    "ProposalAnswer",
    "Retention",
    "Row",
    "Run",
    "RunClaim",
    "RunTally",
    "SavedSearch",
    "State",
    "StoredEvent",
    "StoredEventResource",
    "TaskRun",
    "TaskRunState",
    "Transition",
    "WorkPool",
    "WorkQueue",
    "Worker",
    "row_classes",
]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")  # a table that nobody imports is mapped too

configure_mappers()
