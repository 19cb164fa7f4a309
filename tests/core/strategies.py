"""Hypothesis strategies for proposals; instants are relative to the time of the proposal."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from runstate.core.batch.requests import ProposeState
from runstate.core.states import State
from runstate.documents.states import StateDetails, StateType
from runstate.rows import FlowRun, TaskRun
from tests.core.store_in_memory import proposal


@dataclass(frozen=True)
class Anything:
    """A proposal without a run."""

    kind: StateType
    name: str
    data: Any
    details: dict[str, Any]
    times: dict[str, int | None]
    cache_key: str | None
    more: dict[str, Any]

    def __call__(self, run: FlowRun | TaskRun, now: datetime, own: str = "") -> ProposeState:
        """Return a request for a run; *own* makes cache keys unique."""
        said: dict[str, Any] = {key: now + timedelta(seconds=at) for key, at in self.times.items() if at is not None}
        said |= self.details | ({"cache_key": self.cache_key + own} if self.cache_key else {})
        state = State(type=self.kind, name=self.name, data=self.data, details=StateDetails(**said))
        return proposal(run, state, **self.more)


seconds = st.none() | st.integers(-5, 60)
anything: st.SearchStrategy[Anything] = st.builds(
    Anything,
    kind=st.sampled_from([*StateType, StateType.RUNNING, StateType.PENDING, StateType.RUNNING]),
    name=st.sampled_from(["", "", "", "Late", "Submitting", "AwaitingRetry", "Resuming"]),
    data=st.sampled_from([None, None, {"type": "reference"}, {"type": "unpersisted"}, [1]]),
    details=st.fixed_dictionaries(
        {},
        optional={
            "refresh_cache": st.booleans(),
            "pause_reschedule": st.booleans(),
            "pause_key": st.just("here"),
            "retriable": st.booleans(),
            "deferred": st.booleans(),
            "transition_id": st.sampled_from([UUID(int=1), UUID(int=2)]),
        },
    ),
    times=st.fixed_dictionaries(
        {}, optional={"scheduled_time": seconds, "pause_timeout": seconds, "cache_expiration": seconds}
    ),
    cache_key=st.sampled_from([None, None, "k", "l"]),
    more=st.fixed_dictionaries(
        {},
        optional={
            "force": st.booleans(),
            "dry_run": st.booleans(),
            "idempotency_key": st.sampled_from(["a", "b"]),
            "expected_version": st.integers(0, 3),
        },
    ),
)
