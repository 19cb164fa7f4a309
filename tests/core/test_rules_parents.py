"""Task runs of a flow run."""

import pytest

from runstate.core.proposal import Abort, Reject
from runstate.core.rules.parents import run_only_in_running_flow
from runstate.core.states import State, paused, retrying, running, scheduled, suspended
from runstate.documents.states import StateType
from tests.core.factories import NOT_ASKED, NOW, all_but, asked, being_in, details, entered, flow_run, plain, task_run


def inside(state: State | None) -> dict[str, object]:
    current = entered(state) if state else None
    return {"flow_run": being_in(flow_run(), current), "flow_state": current}


def test_a_task_run_without_a_flow_run_starts() -> None:
    assert asked(run_only_in_running_flow, task_run(), scheduled(NOW), running()) is None


@pytest.mark.parametrize("state", [running(), retrying()])
def test_a_task_run_starts_while_its_flow_run_is_running(state: State) -> None:
    assert asked(run_only_in_running_flow, task_run(), scheduled(NOW), running(), **inside(state)) is None


@pytest.mark.parametrize("kind", all_but(StateType.RUNNING, StateType.PAUSED))
def test_a_task_run_does_not_start_while_its_flow_run_is_not_running(kind: StateType) -> None:
    said = asked(run_only_in_running_flow, task_run(), scheduled(NOW), running(), **inside(plain(kind)))

    assert said == Abort(reason=f"The flow run is not running: it is in {plain(kind).name}.")


def test_a_task_run_does_not_start_before_its_flow_run_has_a_state() -> None:
    said = asked(run_only_in_running_flow, task_run(), scheduled(NOW), running(), **inside(None))

    assert said == Abort(reason="The flow run is not running: it is in no state.")


@pytest.mark.parametrize("pause", [paused(NOW, timeout_seconds=5), suspended(NOW, pause_key="here"), paused(NOW)])
def test_a_task_run_of_a_paused_flow_run_is_paused_until_the_same_time(pause: State) -> None:
    said = asked(run_only_in_running_flow, task_run(), scheduled(NOW), running(), **inside(pause))

    assert isinstance(said, Reject)
    assert said.instead
    assert (said.instead.type, said.instead.name) == (StateType.PAUSED, "NotReady")
    assert said.instead.details == details(
        pause_timeout=pause.details.pause_timeout, pause_reschedule=pause.details.pause_reschedule
    )


@pytest.mark.parametrize("kind", all_but(StateType.RUNNING))
def test_a_task_run_enters_other_states_regardless_of_its_flow_run(kind: StateType) -> None:
    assert asked(run_only_in_running_flow, task_run(), running(), plain(kind), **inside(None)) == NOT_ASKED
