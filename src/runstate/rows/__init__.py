"""Tables: one class each, documented column by column, without sessions and without GraphQL."""

from importlib import import_module
from pkgutil import iter_modules

from sqlalchemy.orm import configure_mappers

from runstate.rows.access import ApiKey, CsrfToken
from runstate.rows.base import Base, Retention, Row, row_classes
from runstate.rows.flows import Deployment, Flow
from runstate.rows.limits import ConcurrencyLease, ConcurrencyLimit, ConcurrencyWaiter
from runstate.rows.log import Installation, LogCheckpoint, LogEntry, LogFloor, Transition
from runstate.rows.orchestration import BulkOperation, CacheEntry, FlowRunInput, Heartbeat, ProposalAnswer
from runstate.rows.runs import FlowRun, FlowRunState, Run, State, TaskRun, TaskRunState
from runstate.rows.tallies import CountedName, RunTally

__all__ = [
    "ApiKey",
    "Base",
    "BulkOperation",
    "CacheEntry",
    "ConcurrencyLease",
    "ConcurrencyLimit",
    "ConcurrencyWaiter",
    "CountedName",
    "CsrfToken",
    "Deployment",
    "Flow",
    "FlowRun",
    "FlowRunInput",
    "FlowRunState",
    "Heartbeat",
    "Installation",
    "LogCheckpoint",
    "LogEntry",
    "LogFloor",
    "ProposalAnswer",
    "Retention",
    "Row",
    "Run",
    "RunTally",
    "State",
    "TaskRun",
    "TaskRunState",
    "Transition",
    "row_classes",
]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")  # a table that nobody imports is mapped too

configure_mappers()
