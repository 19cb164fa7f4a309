"""Requests played against facts in memory, one after another: the whole core but the database."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

from uuid_utils.compat import uuid7

from runstate.core.batch.decide import Environment, decide_request
from runstate.core.batch.requests import Answer, Created, CreateRun, Outcome, ProposeState, Request
from runstate.core.batch.unit_of_work import Entered, UnitOfWork
from runstate.core.states import State
from runstate.documents.states import RunKind
from runstate.rows import Base, ConcurrencyLease, ConcurrencyLimit, Deployment, FlowRun, TaskRun
from tests.core.factories import NOW


def proposal(run: FlowRun | TaskRun, state: State, **more: Any) -> ProposeState:
    """The request that a run enters a state."""
    kind = RunKind.TASK_RUN if isinstance(run, TaskRun) else RunKind.FLOW_RUN
    return ProposeState(kind=kind, run_id=run.id, state=state, **more)


def written(row: Base) -> dict[str, Any]:
    """The columns of a row."""
    return dict(vars(row))


@dataclass
class Memory:
    """A unit, and the time, chance and ids that requests are played with."""

    unit: UnitOfWork = field(default_factory=UnitOfWork)
    now: datetime = NOW
    draw: float = 0.5

    def have(self, *rows: Base) -> None:
        """Let rows be there."""
        for row in rows:
            match row:
                case FlowRun() | TaskRun():
                    self.unit.runs[row.id] = row
                case ConcurrencyLimit():
                    self.unit.add_limit(row)
                case ConcurrencyLease():
                    self.unit.add_lease(row)
                case Deployment():
                    self.unit.deployments[row.id] = row

    def wait(self, seconds: float) -> None:
        """Let time pass, or the clock go back."""
        self.now += timedelta(seconds=seconds)

    def decide_request(self, request: Request) -> Outcome:
        """Play a request."""
        return decide_request(request, self.unit, Environment(now=self.now, draw=lambda: self.draw, new_id=uuid7))

    def propose(self, run: FlowRun | TaskRun, state: State, **more: Any) -> Answer:
        """Propose a state; what is not answered is an error."""
        return answer(self.decide_request(proposal(run, state, **more)))

    def create(self, run: FlowRun | TaskRun, state: State) -> Created:
        """Create a run, which enters its first state."""
        self.unit.created.add(run.id)
        self.have(run)
        outcome = self.decide_request(CreateRun(run=run, state=state))
        assert isinstance(outcome, Created)
        return outcome

    def run(self, run: FlowRun | TaskRun) -> Any:
        """The run as it is now."""
        return self.unit.runs[run.id]

    def state(self, run: FlowRun | TaskRun) -> State:
        """The state that a run is in now."""
        return self.unit.states[run.id]

    def history(self, run: FlowRun | TaskRun) -> list[State]:
        """The states that a run has entered here."""
        return [each.state for each in self.unit.transitions if each.run.id == run.id]

    def held(self, run: FlowRun | TaskRun) -> list[ConcurrencyLease]:
        """The leases that a run holds."""
        return self.unit.held_by(run.id)

    def snapshot(self) -> dict[str, Any]:
        """All facts, as they are now."""
        return {each.name: _copied(getattr(self.unit, each.name)) for each in fields(self.unit)}


def answer(outcome: Outcome) -> Answer:
    """The outcome, which is an answer."""
    assert isinstance(outcome, Answer), outcome
    return outcome


def _copied(value: Any) -> Any:
    if isinstance(value, Base):
        return written(value)
    if isinstance(value, Entered):
        return (written(value.run), value.left, value.state, value.actor, value.request_id)
    if isinstance(value, Mapping):
        return {key: _copied(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_copied(each) for each in value]
    return cast("set[UUID]", set(value)) if isinstance(value, set) else value
