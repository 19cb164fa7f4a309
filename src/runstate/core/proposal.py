"""Proposals, the verdicts of rules, and the decision of a policy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from inspect import getdoc
from typing import Any, Generic, TypeVar
from uuid import UUID

from runstate.core.states import State
from runstate.documents.decisions import OrchestrationStatus
from runstate.documents.policies import ConcurrencyOptions
from runstate.documents.states import StateType
from runstate.rows import ConcurrencyLease, ConcurrencyLimit, FlowRun, TaskRun

R = TypeVar("R", FlowRun, TaskRun)
ANY: frozenset[StateType | None] = frozenset({*StateType, None})
"""Every state type, and None for a run without a state."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A limit that applies to the run, and the lease that the run holds of it."""

    limit: ConcurrencyLimit
    held: ConcurrencyLease | None
    new_lease_id: UUID


@dataclass(frozen=True, slots=True)
class Acquire:
    """Effect: the run acquires a slot."""

    slot: Slot
    expires: datetime | None


@dataclass(frozen=True, slots=True)
class CacheResult:
    """Effect: the written state is the result of later task runs with the key."""

    cache_key: str
    expires: datetime | None


Effect = Acquire | CacheResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal(Generic[R]):
    """All data that a rule reads. `run` and `proposed` include the changes of earlier rules."""

    run: R
    initial: State | None
    proposed: State
    now: datetime
    draw: float = 0.5
    """A random number from 0 to 1."""
    flow_run: FlowRun | None = None
    """The flow run of a task run."""
    flow_state: State | None = None
    """The current state of that flow run."""
    slots: tuple[Slot, ...] = ()
    """A slot of the deployment's limit for a flow run, slots of the limits on its tags for a task run."""
    concurrency: ConcurrencyOptions | None = None
    """Options of the deployment's limit."""
    cached: State | None = None
    """The newest result under the cache key of the proposal."""
    pause_key: UUID | None = None
    """A new id, for a pause without a key."""
    claim_id: UUID | None = None
    """Id of the claim under which a worker proposes."""
    quirks: bool = True
    """Whether it is judged as recorded from the reference where the server's own requests are judged otherwise."""

    @property
    def initial_type(self) -> StateType | None:
        """The type of the current state; None without one."""
        return self.initial.type if self.initial else None

    @property
    def initial_name(self) -> str | None:
        """The name of the current state; None without one."""
        return self.initial.name if self.initial else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Amend:
    """Acceptance with changes of the proposed state or of run columns, or with effects."""

    reason: str | None = None
    state: State | None = None
    """The changed state; None keeps the proposed one."""
    run: dict[str, Any] = field(default_factory=dict)
    """Changed run columns."""
    effects: tuple[Effect, ...] = ()
    after_bookkeeping: dict[str, Any] = field(default_factory=dict)
    """Run columns that are set after the bookkeeping."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """Rejection: another state is written instead, or the run stays in its state."""

    reason: str
    instead: State | None = None
    """The state to write; None if the run stays in its state."""
    run: dict[str, Any] = field(default_factory=dict)
    """Changed run columns."""
    after_bookkeeping: dict[str, Any] = field(default_factory=dict)
    """Run columns that are set after the bookkeeping. `proposeState` sets them even if no state is written instead."""
    limits: tuple[UUID, ...] = ()
    """Ids of the full limits that the run waits for in the other state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Delay: the state can be proposed again after some seconds."""

    reason: str
    seconds: float
    limits: tuple[UUID, ...] = ()
    """Ids of the full limits that the run waits for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Abort:
    """Final refusal: the client should stop."""

    reason: str


Verdict = Amend | Reject | Wait | Abort | None


class RuleVerdict(Enum):
    """The verdict of a rule on a proposal."""

    PASS = "PASS"
    """No objection."""
    AMEND = "AMEND"
    """No objection, with changes of the proposal."""
    REJECT = "REJECT"
    """Another state is written instead, or the run stays in its state."""
    WAIT = "WAIT"
    """The state can be proposed again later."""
    ABORT = "ABORT"
    """The state is refused finally."""


@dataclass(frozen=True, slots=True)
class RuleOutcome:
    """The verdict of one rule on the proposal."""

    rule: str
    """Name of the rule."""
    verdict: RuleVerdict
    """Verdict of the rule."""
    reason: str | None = None
    """Reason of the verdict, for people."""


class Rule(Generic[R]):
    """A function that judges proposals between certain state types. Its docstring documents the rule."""

    def __init__(
        self,
        judge: Callable[[Proposal[R]], Verdict],
        leaving: frozenset[StateType | None],
        entering: frozenset[StateType | None],
    ) -> None:
        self.judge: Callable[[Proposal[R]], Verdict] = judge
        self.leaving = leaving
        self.entering = entering
        self.name = judge.__name__
        # Shared by all proposals, because most rules have no objection.
        self.passed = RuleOutcome(self.name, RuleVerdict.PASS)
        # The docstring is the description of the rule in docs/states.md.
        self.__doc__ = getdoc(judge)

    def concerns(self, leaving: StateType | None, entering: StateType) -> bool:
        """Return whether the rule judges proposals that leave and enter these types."""
        return leaving in self.leaving and entering in self.entering

    def __call__(self, proposal: Proposal[R]) -> Verdict:
        """Return the verdict on a proposal."""
        return self.judge(proposal)

    def __repr__(self) -> str:
        """Return the rule's name."""
        return self.name


def rule(
    *, leaving: Iterable[StateType | None] = ANY, entering: Iterable[StateType | None] = ANY
) -> Callable[[Callable[[Proposal[R]], Verdict]], Rule[R]]:
    """Return a decorator that turns a function into a rule for proposals that leave and enter one of these types."""

    def make(judge: Callable[[Proposal[R]], Verdict]) -> Rule[R]:
        return Rule(judge, frozenset(leaving), frozenset(entering))

    return make


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision(Generic[R]):
    """The decision of a policy."""

    status: OrchestrationStatus
    run: R
    state: State | None = None
    """The state to write; None if none."""
    effects: tuple[Effect, ...] = ()
    after_bookkeeping: dict[str, Any] = field(default_factory=dict)
    reason: str | None = None
    rule: str | None = None
    retry_after_seconds: float | None = None
    considered: tuple[RuleOutcome, ...] = ()
    amended_by: tuple[str, ...] = ()
    """Names of the rules that changed the state."""
    limits: tuple[UUID, ...] = ()
    """Ids of the full limits that the run waits for."""


def decide(proposal: Proposal[R], policy: Sequence[Rule[R]]) -> Decision[R]:
    """Apply rules in order until one objects. Without an objection, the proposal is accepted with all changes."""
    current, effects, considered, amended_by = proposal, list[Effect](), list[RuleOutcome](), list[str]()
    after_bookkeeping: dict[str, Any] = {}
    leaving = proposal.initial_type
    for each in policy:
        # An earlier rule can have changed the type of the proposed state.
        if not each.concerns(leaving, current.proposed.type):
            continue
        verdict = each.judge(current)
        considered.append(_outcome(each, verdict))
        if isinstance(verdict, Amend):
            if verdict.state not in (None, current.proposed):
                amended_by.append(each.name)
            current = _amended(current, verdict)
            effects += verdict.effects
            after_bookkeeping |= verdict.after_bookkeeping
        elif verdict is not None:
            return _refused(proposal, each, verdict, tuple(considered))
    return Decision(
        status=OrchestrationStatus.ACCEPT,
        run=current.run,
        state=current.proposed,
        effects=tuple(effects),
        after_bookkeeping=after_bookkeeping,
        considered=tuple(considered),
        amended_by=tuple(amended_by),
    )


def _amended(proposal: Proposal[R], amend: Amend) -> Proposal[R]:
    # Effects alone change nothing that later rules read.
    if amend.state is None and not amend.run:
        return proposal
    return replace(proposal, run=proposal.run.replace(**amend.run), proposed=amend.state or proposal.proposed)


def _outcome(judge: Rule[R], verdict: Verdict) -> RuleOutcome:
    if verdict is None:
        return judge.passed
    return RuleOutcome(judge.name, RuleVerdict[type(verdict).__name__.upper()], verdict.reason)


def _refused(
    proposal: Proposal[R], objecting: Rule[R], verdict: Reject | Wait | Abort, considered: tuple[RuleOutcome, ...]
) -> Decision[R]:
    """Return the decision of a rule that objects. Changes by earlier rules are dropped with the proposed state."""
    rejected = verdict if isinstance(verdict, Reject) else None
    return Decision(
        status=OrchestrationStatus[type(verdict).__name__.upper()],
        run=proposal.run.replace(**rejected.run) if rejected else proposal.run,
        state=rejected.instead if rejected else None,
        after_bookkeeping=rejected.after_bookkeeping if rejected else {},
        reason=verdict.reason,
        rule=objecting.name,
        retry_after_seconds=verdict.seconds if isinstance(verdict, Wait) else None,
        considered=considered,
        limits=() if isinstance(verdict, Abort) else verdict.limits,
    )
