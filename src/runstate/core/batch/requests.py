"""Requests to the batcher, and their outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

import orjson

from runstate.core.proposal import Rule, RuleOutcome
from runstate.core.states import State
from runstate.documents import exact_json
from runstate.documents.access import ANONYMOUS
from runstate.documents.decisions import OrchestrationStatus
from runstate.documents.states import Json, RunKind
from runstate.rows import FlowRun, FlowRunState, TaskRun, TaskRunState


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The claim that a worker gets on a run that enters PENDING."""

    worker_id: UUID
    work_queue_id: UUID
    seconds: float
    expires: datetime
    """Time of expiry, by the clock of the database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposeState:
    """A proposal of a state for a run, by a client or a service."""

    kind: RunKind
    run_id: UUID
    state: State
    force: bool = False
    expected_version: int | None = None
    idempotency_key: str | None = None
    dry_run: bool = False
    actor: str = ANONYMOUS
    request_id: str | None = None
    policy: tuple[Rule[FlowRun], ...] | None = None
    """Rules in place of those for the kind of run."""
    quirks: bool = True
    """Whether to reproduce side effects of `proposeState` that were recorded from the reference server.

    A run that ends without having run gets its end as its start. A paused run that rejects a state becomes resuming. A
    run that awaits a retry in its process is CANCELLED at once, and the retry starts it again.
    """
    fingerprint_source: str | None = None
    """Text to compute the fingerprint from, if the state depends on the time and so differs for equal inputs."""
    claim_id: UUID | None = None
    """Id of the claim that must be the live one of the run."""
    lease: Lease | None = None
    """The claim that a worker gets on the run if the state is accepted."""
    run_input_to_store: tuple[str, Json] | None = None
    """Key and value of a run input that is stored if the state is accepted."""
    cause: UUID | None = None
    """Firing of an automation that proposes the state of a flow run."""

    @property
    def fingerprint(self) -> str:
        """Digest of the proposal: two proposals with the same digest are the same."""
        if self.fingerprint_source is not None:
            return sha256(self.fingerprint_source.encode()).hexdigest()
        state = self.state
        parts = [state.type.value, state.name, state.message, state.data, state.details.model_dump(mode="json")]
        # Equal data with another order of keys is the same proposal.
        return sha256(exact_json.dumps([*parts, self.force], option=orjson.OPT_SORT_KEYS)).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRun:
    """The creation of a run. If a run with the same unique key exists, the outcome is that run."""

    run: FlowRun | TaskRun
    state: State
    actor: str = ANONYMOUS
    request_id: str | None = None
    schedule_revision: int | None = None
    """The revision that the schedule of a scheduled run must have; otherwise the outcome is NotFound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordState:
    """A state of a task run that its client decided and reports afterwards. No rule judges it.

    It is written once for its id. If the run is in a newer state, it only joins the history: it is late.
    """

    run: TaskRun
    """The run, to be created if none has its unique key."""
    state: State
    """The state, with id and timestamp."""
    columns: Mapping[str, Any]
    """Columns that the client computed, which the run gets unless the state is late."""
    follows: UUID | None = None
    """Id of the state before it, if the client knows it."""
    replaces: UUID | None = None
    """Id of the state in which the run must be; otherwise nothing is written."""
    holds: bool = False
    """Whether the outcome is NotFound while the state before it is unknown: it may still be on its way."""
    actor: str = ANONYMOUS
    request_id: str | None = None


Request = ProposeState | CreateRun | RecordState


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer to a proposal."""

    status: OrchestrationStatus
    """The decision on the proposal."""
    kind: RunKind
    """The kind of the run."""
    run_id: UUID
    """Id of the run."""
    state_id: UUID | None
    """Id of the current state of the run; of a replayed answer, id of the state that it wrote."""
    written: FlowRunState | TaskRunState | None = None
    """The state with all columns, if this request wrote it."""
    proposed: State | None = None
    """With `dryRun`, the state that would have been written; null if none."""
    reason: str | None = None
    """The reason of the rule that decided, for people."""
    rule: str | None = None
    """Name of the rule that decided; null if no rule objected."""
    retry_after_seconds: float | None = None
    """With WAIT, the seconds after which to propose the state again."""
    replayed: bool = False
    """Whether this is the stored answer to an earlier proposal with the same idempotency key."""
    considered: tuple[RuleOutcome, ...] = ()
    """The rules that judged the proposal, in order, with their verdicts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """A run that was created, or that existed already."""

    kind: RunKind
    run_id: UUID
    created: bool
    run: FlowRun | TaskRun | None = None
    """The run in its first state with all columns, if this request created it."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A state that was recorded, or that had been recorded before."""

    run_id: UUID
    """Id of the run, which can differ from the reported one."""
    written: bool
    """Whether this request wrote it."""
    late: bool = False
    """Whether the run was in a newer state."""


Outcome = Answer | Created | Recorded | Exception
"""The outcome of a request. A RunstateError is a problem of the client, any other exception is a bug."""
