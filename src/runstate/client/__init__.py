"""A client that reports runs from your own code, follows runs, and reads them.

The constructors of states (`Completed`, `Late` …) are in `runstate.client.states`: `Cancelled` here is the exception.
"""

from runstate.client.client import AsyncClient, Client
from runstate.client.decorators import TaskFuture, flow, task, unmapped
from runstate.client.errors import (
    AbortedError,
    Cancelled,
    CancelledRun,
    ClientError,
    CrashedRun,
    FailedRun,
    FinalRunError,
    MissingResult,
    PausedRun,
    ProblemError,
    RefusedError,
    ResultError,
    UnfinishedRun,
    UnreachableError,
)
from runstate.client.logging import RunHandler
from runstate.client.runs import FlowRun, TaskRun
from runstate.client.states import State, StateDetails
from runstate.client.storage import FsspecStorage, LocalStorage, Storage, storage_at

__all__ = [
    "AbortedError",
    "AsyncClient",
    "Cancelled",
    "CancelledRun",
    "Client",
    "ClientError",
    "CrashedRun",
    "FailedRun",
    "FinalRunError",
    "FlowRun",
    "FsspecStorage",
    "LocalStorage",
    "MissingResult",
    "PausedRun",
    "ProblemError",
    "RefusedError",
    "ResultError",
    "RunHandler",
    "State",
    "StateDetails",
    "Storage",
    "TaskFuture",
    "TaskRun",
    "UnfinishedRun",
    "UnreachableError",
    "flow",
    "storage_at",
    "task",
    "unmapped",
]
