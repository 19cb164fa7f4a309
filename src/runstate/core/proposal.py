"""A proposal, the verdicts on it, and how rules come to one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from inspect import getdoc
from typing import Any, Generic, TypeVar
from uuid import UUID

from runstate.core.states import State
from runstate.documents.policies import ConcurrencyOptions
from runstate.documents.states import StateType
from runstate.rows import ConcurrencyLease, ConcurrencyLimit, FlowRun, TaskRun

R = TypeVar("R", FlowRun, TaskRun)
ANY: frozenset[StateType | None] = frozenset({*StateType, None})
"""Every state type, and none: a run that has no state yet."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One limit that the run is subject to, and the run's place in it."""

    limit: ConcurrencyLimit
    held: ConcurrencyLease | None
    new_lease_id: UUID


@dataclass(frozen=True, slots=True)
class Take:
    """Effect: the run takes a slot."""

    slot: Slot
    expires: datetime | None


@dataclass(frozen=True, slots=True)
class Remember:
    """Effect: the state that is written is what later runs with the key get."""

    cache_key: str
    expires: datetime | None


Effect = Take | Remember


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal(Generic[R]):
    """All that a rule may look at. `run` and `proposed` carry what earlier rules amended."""

    run: R
    initial: State | None
    proposed: State
    now: datetime
    draw: float = 0.5
    """Chance: a number from 0 to 1."""
    flow_run: FlowRun | None = None
    """Of a task run: the flow run that it belongs to."""
    flow_state: State | None = None
    """Of a task run: the current state of its flow run."""
    slots: tuple[Slot, ...] = ()
    """Of a flow run: its deployment's limit; of a task run: the limits of its tags."""
    concurrency: ConcurrencyOptions | None = None
    cached: State | None = None
    """The newest result under the cache key that the proposal names."""
    pause_key: UUID | None = None
    """Minted for a pause that names no key of its own."""

    @property
    def initial_type(self) -> StateType | None:
        """Type of the current state, if there is one."""
        return self.initial.type if self.initial else None

    @property
    def initial_name(self) -> str | None:
        """Name of the current state, if there is one."""
        return self.initial.name if self.initial else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Amend:
    """No objection, with a change: of the proposed state, of run columns, of what is taken or given."""

    reason: str | None = None
    state: State | None = None
    run: dict[str, Any] = field(default_factory=dict)
    effects: tuple[Effect, ...] = ()
    afterwards: dict[str, Any] = field(default_factory=dict)
    """Run columns that are set after the bookkeeping."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """Not this state: another one instead, or the run stays as it is."""

    reason: str
    instead: State | None = None
    run: dict[str, Any] = field(default_factory=dict)
    afterwards: dict[str, Any] = field(default_factory=dict)
    """Run columns that are set after the bookkeeping, and also when nothing is written instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Not yet: ask again after some seconds."""

    reason: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Abort:
    """Never: the caller should stop."""

    reason: str


Said = Amend | Reject | Wait | Abort | None


class RuleVerdict(Enum):
    """What a rule said of a proposal."""

    PASS = "PASS"
    """It had no objection."""
    AMEND = "AMEND"
    """It changed the proposal."""
    REJECT = "REJECT"
    """It put another state in its place, or left the run as it is."""
    WAIT = "WAIT"
    """It wants to be asked again later."""
    ABORT = "ABORT"
    """It refused for good."""


class OrchestrationStatus(Enum):
    """What became of a proposal."""

    ACCEPT = "ACCEPT"
    """The proposed state was written, perhaps renamed or with further details."""
    REJECT = "REJECT"
    """Another state was written instead, or the run stays in the one it is in."""
    WAIT = "WAIT"
    """Nothing was written; propose it again after a while."""
    ABORT = "ABORT"
    """Nothing was written; stop."""


@dataclass(frozen=True, slots=True)
class RuleOutcome:
    """What one rule said of the proposal."""

    rule: str
    """Name of the rule."""
    verdict: RuleVerdict
    """What it said."""
    reason: str | None = None
    """Why, for people."""


class Rule(Generic[R]):
    """A function that judges proposals which leave and enter certain state types; its docstring is its sentence."""

    def __init__(
        self,
        judge: Callable[[Proposal[R]], Said],
        leaving: frozenset[StateType | None],
        entering: frozenset[StateType | None],
    ) -> None:
        self.judge: Callable[[Proposal[R]], Said] = judge
        self.leaving = leaving
        self.entering = entering
        self.name = judge.__name__
        self.passed = RuleOutcome(self.name, RuleVerdict.PASS)
        self.__doc__ = getdoc(judge)

    def concerns(self, leaving: StateType | None, entering: StateType) -> bool:
        """Whether it is about proposals that leave and enter these types."""
        return leaving in self.leaving and entering in self.entering

    def __call__(self, proposal: Proposal[R]) -> Said:
        """What the rule says of the proposal."""
        return self.judge(proposal)

    def __repr__(self) -> str:
        """The rule's name."""
        return self.name


def rule(
    *, leaving: Iterable[StateType | None] = ANY, entering: Iterable[StateType | None] = ANY
) -> Callable[[Callable[[Proposal[R]], Said]], Rule[R]]:
    """Make a rule of a function: asked only when the run leaves and enters one of these types."""

    def make(judge: Callable[[Proposal[R]], Said]) -> Rule[R]:
        return Rule(judge, frozenset(leaving), frozenset(entering))

    return make


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision(Generic[R]):
    """What the rules of a policy came to."""

    status: OrchestrationStatus
    run: R
    state: State | None = None
    """What is to be written; null: nothing."""
    effects: tuple[Effect, ...] = ()
    afterwards: dict[str, Any] = field(default_factory=dict)
    reason: str | None = None
    rule: str | None = None
    retry_after_seconds: float | None = None
    considered: tuple[RuleOutcome, ...] = ()


def decide(proposal: Proposal[R], policy: Sequence[Rule[R]]) -> Decision[R]:
    """Ask the rules in order until one ends the matter; without objection the proposal is accepted as amended."""
    asked, effects, afterwards, considered = proposal, list[Effect](), dict[str, Any](), list[RuleOutcome]()
    leaving = proposal.initial_type
    for each in policy:
        if not each.concerns(leaving, asked.proposed.type):
            continue
        said = each.judge(asked)
        considered.append(_outcome(each, said))
        if isinstance(said, Amend):
            asked = _amended(asked, said)
            effects += said.effects
            afterwards |= said.afterwards
        elif said is not None:
            return _ended(proposal, each, said, tuple(considered))
    return Decision(
        status=OrchestrationStatus.ACCEPT,
        run=asked.run,
        state=asked.proposed,
        effects=tuple(effects),
        afterwards=afterwards,
        considered=tuple(considered),
    )


def _amended(asked: Proposal[R], said: Amend) -> Proposal[R]:
    if said.state is None and not said.run:
        return asked
    return replace(asked, run=asked.run.replace(**said.run), proposed=said.state or asked.proposed)


def _outcome(asked: Rule[R], said: Said) -> RuleOutcome:
    if said is None:
        return asked.passed
    return RuleOutcome(asked.name, RuleVerdict[type(said).__name__.upper()], said.reason)


def _ended(
    proposal: Proposal[R], ending: Rule[R], said: Reject | Wait | Abort, considered: tuple[RuleOutcome, ...]
) -> Decision[R]:
    """What earlier rules amended is dropped: it was about a state that is not entered."""
    rejected = said if isinstance(said, Reject) else None
    return Decision(
        status=OrchestrationStatus[type(said).__name__.upper()],
        run=proposal.run.replace(**rejected.run) if rejected else proposal.run,
        state=rejected.instead if rejected else None,
        afterwards=rejected.afterwards if rejected else {},
        reason=said.reason,
        rule=ending.name,
        retry_after_seconds=said.seconds if isinstance(said, Wait) else None,
        considered=considered,
    )
