"""A store in memory that decides requests one after another: the core without a database."""

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
    """Return a request to enter a state."""
    kind = RunKind.TASK_RUN if isinstance(run, TaskRun) else RunKind.FLOW_RUN
    return ProposeState(kind=kind, run_id=run.id, state=state, **more)


def written(row: Base) -> dict[str, Any]:
    """Return the columns of a row."""
    return dict(vars(row))


@dataclass
class Memory:
    """A unit of work, and the clock, random numbers and ids for decisions."""

    unit: UnitOfWork = field(default_factory=UnitOfWork)
    now: datetime = NOW
    draw: float = 0.5

    def have(self, *rows: Base) -> None:
        """Add rows."""
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
        """Move the clock, forwards or backwards."""
        self.now += timedelta(seconds=seconds)

    def decide_request(self, request: Request) -> Outcome:
        """Decide a request and return the outcome."""
        return decide_request(request, self.unit, Environment(now=self.now, draw=lambda: self.draw, new_id=uuid7))

    def propose(self, run: FlowRun | TaskRun, state: State, **more: Any) -> Answer:
        """Propose a state; AssertionError: the outcome is not an answer."""
        return answer(self.decide_request(proposal(run, state, **more)))

    def create(self, run: FlowRun | TaskRun, state: State) -> Created:
        """Create a run with its first state."""
        self.unit.created.add(run.id)
        self.have(run)
        outcome = self.decide_request(CreateRun(run=run, state=state))
        assert isinstance(outcome, Created)
        return outcome

    def run(self, run: FlowRun | TaskRun) -> Any:
        """Return the current row of the run."""
        return self.unit.runs[run.id]

    def state(self, run: FlowRun | TaskRun) -> State:
        """Return the current state of the run."""
        return self.unit.states[run.id]

    def history(self, run: FlowRun | TaskRun) -> list[State]:
        """Return the states that a run entered, oldest first."""
        return [each.state for each in self.unit.transitions if each.run.id == run.id]

    def held(self, run: FlowRun | TaskRun) -> list[ConcurrencyLease]:
        """Return the leases of a run."""
        return self.unit.held_by(run.id)

    def snapshot(self) -> dict[str, Any]:
        """Return a copy of all rows."""
        return {each.name: _copied(getattr(self.unit, each.name)) for each in fields(self.unit)}


def answer(outcome: Outcome) -> Answer:
    """Return the outcome as an answer; AssertionError: it is something else."""
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
