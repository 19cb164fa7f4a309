"""What the batcher is asked, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from uuid import UUID

import orjson

from runstate.core.proposal import OrchestrationStatus, Rule, RuleOutcome
from runstate.core.states import State
from runstate.documents.access import ANONYMOUS
from runstate.documents.states import Json, RunKind
from runstate.rows import FlowRun, FlowRunState, TaskRun, TaskRunState


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposeState:
    """A client, or a service, proposes a state for a run."""

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
    """Instead of the policy that the kind of run has."""
    quirks: bool = True
    """Whether it leaves what only `proposeState` leaves, as recorded from the reference.

    A run that ends without having run starts at its end, and a paused run that refuses a state is marked as resuming.
    """
    said: str | None = None
    """What the client said, where the state is made from it: two that said the same ask for the same."""
    reply: tuple[str, Json] | None = None
    """A run input, key and value, that is kept with the state if that is accepted."""

    @property
    def fingerprint(self) -> str:
        """Digest of what is proposed: two proposals with the same one ask for the same."""
        if self.said is not None:
            return sha256(self.said.encode()).hexdigest()
        state = self.state
        said = [state.type.value, state.name, state.message, state.data, state.details.model_dump(mode="json")]
        return sha256(orjson.dumps([*said, self.force], option=orjson.OPT_SORT_KEYS)).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRun:
    """A client creates a run; one that has its unique key already is answered instead."""

    run: FlowRun | TaskRun
    state: State
    actor: str = ANONYMOUS
    request_id: str | None = None


Request = ProposeState | CreateRun


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How a proposal was answered."""

    status: OrchestrationStatus
    """What became of the proposal."""
    kind: RunKind
    """The kind of the run."""
    run_id: UUID
    """Id of the run."""
    state_id: UUID | None
    """The stored state that the run is in now; of a replayed answer, the one it wrote."""
    written: FlowRunState | TaskRunState | None = None
    """The same, whole, where it is at hand."""
    proposed: State | None = None
    """With dryRun: what would have been written; null: nothing."""
    reason: str | None = None
    """Why not, for people."""
    rule: str | None = None
    """The rule that decided, as it is named in the documentation; null: none objected."""
    retry_after_seconds: float | None = None
    """WAIT: after how many seconds to ask again."""
    replayed: bool = False
    """Whether this is the answer that the same proposal with the same idempotency key got before."""
    considered: tuple[RuleOutcome, ...] = ()
    """Every rule that looked at the proposal, in order, with what it said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """The run that was created, or that was there already."""

    kind: RunKind
    run_id: UUID
    created: bool
    run: FlowRun | TaskRun | None = None
    """The run in its first state, whole, if it was created now."""


Outcome = Answer | Created | Exception
"""What became of a request; an exception: a problem of the client's if it is a RunstateError, else a bug."""
