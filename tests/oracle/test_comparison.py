"""The comparison with the recording finds every difference and nothing else."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.client import Ask
from tests.oracle.comparison import Differs, same_history, same_run, same_state, same_verdict
from tests.oracle.player import play
from tests.oracle.recording import Scenario, read

DETAILS: dict[str, Any] = {"scheduledTime": None, "pauseTimeout": None, "pauseReschedule": False}
STATE: dict[str, Any] = {"type": "PAUSED", "name": "Suspended", "data": None, "details": DETAILS}
RECORDED_STATE: dict[str, Any] = {"type": "PAUSED", "name": "Suspended"}
WAIT: dict[str, Any] = {
    "__typename": "OrchestrationResult",
    "status": "WAIT",
    "state": STATE,
    "retryAfterSeconds": 300.0,
}
RECORDED_WAIT: dict[str, Any] = {"status": "WAIT", "state": RECORDED_STATE, "delay_seconds": 300}
RUN: dict[str, Any] = {
    "stateType": "PAUSED",
    "stateName": "Suspended",
    "runCount": 1,
    "expectedStartTime": None,
    "nextScheduledStartTime": None,
    "startTime": "2026-01-02T03:04:05.000006Z",
    "endTime": None,
    "flowRunRunCount": 2,
    "policy": {"resuming": False, "pauseKeys": ["a"], "retryType": None},
}
RECORDED_RUN: dict[str, Any] = {
    "state_type": "PAUSED",
    "state_name": "Suspended",
    "run_count": 1,
    "expected_start_in": None,
    "next_scheduled_start_in": None,
    "has_start_time": True,
    "has_end_time": False,
    "flow_run_run_count": 2,
    "resuming": False,
    "pause_keys": 1,
    "retry_type": None,
}


def ahead(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def with_details(**details: Any) -> dict[str, Any]:
    return {**STATE, "details": {**DETAILS, **details}}


def test_recorded_answers_are_equal_to_themselves() -> None:
    same_state(None, None)
    same_state(STATE, RECORDED_STATE)
    same_verdict(WAIT, RECORDED_WAIT)
    same_run(RUN, RECORDED_RUN)
    same_history([{**STATE, "version": 1}], [RECORDED_STATE])


@pytest.mark.parametrize("off", [-10, 0, 10])
def test_a_small_difference_in_time_is_accepted(off: float) -> None:
    recorded = {**RECORDED_STATE, "scheduled_in": 100, "pause_timeout_in": 200}

    same_state(with_details(scheduledTime=ahead(100 + off), pauseTimeout=ahead(200 + off)), recorded)


@pytest.mark.parametrize("off", [-20, 20])
@pytest.mark.parametrize(("field", "name"), [("scheduledTime", "scheduled_in"), ("pauseTimeout", "pause_timeout_in")])
def test_a_large_difference_in_time_is_found(field: str, name: str, off: float) -> None:
    with pytest.raises(Differs, match=field):
        same_state(with_details(**{field: ahead(100 + off)}), {**RECORDED_STATE, name: 100})


@pytest.mark.parametrize(
    ("got", "recorded"),
    [
        (None, RECORDED_STATE),
        (STATE, None),
        ({**STATE, "type": "RUNNING"}, RECORDED_STATE),
        ({**STATE, "name": "Paused"}, RECORDED_STATE),
        ({**STATE, "data": {}}, RECORDED_STATE),
        (STATE, {**RECORDED_STATE, "has_data": True}),
        (with_details(scheduledTime="2026-01-02T03:04:05.000006Z"), RECORDED_STATE),
        (STATE, {**RECORDED_STATE, "scheduled_in": 0}),
        (STATE, {**RECORDED_STATE, "pause_timeout_in": 0}),
        (with_details(pauseReschedule=True), RECORDED_STATE),
        (STATE, {**RECORDED_STATE, "pause_reschedule": True}),
    ],
)
def test_a_different_state_is_found(got: Mapping[str, Any] | None, recorded: Mapping[str, Any] | None) -> None:
    with pytest.raises(Differs):
        same_state(got, recorded)


@pytest.mark.parametrize(
    "got",
    [
        {"__typename": "NotFound"},
        {**WAIT, "status": "REJECT"},
        {**WAIT, "state": None},
        {**WAIT, "retryAfterSeconds": None},
        {**WAIT, "retryAfterSeconds": 0.0},
        {**WAIT, "retryAfterSeconds": 284.0},
    ],
)
def test_a_different_verdict_is_found(got: Mapping[str, Any]) -> None:
    with pytest.raises(Differs):
        same_verdict(got, RECORDED_WAIT)


@pytest.mark.parametrize(
    "other",
    [
        {"stateType": "RUNNING"},
        {"stateName": "Paused"},
        {"runCount": 0},
        {"expectedStartTime": "2026-01-02T03:04:05.000006Z"},
        {"nextScheduledStartTime": "2026-01-02T03:04:05.000006Z"},
        {"startTime": None},
        {"endTime": "2026-01-02T03:04:05.000006Z"},
        {"flowRunRunCount": 1},
        {"policy": {**RUN["policy"], "resuming": True}},
        {"policy": {**RUN["policy"], "pauseKeys": []}},
        {"policy": {**RUN["policy"], "retryType": "in_process"}},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_different_run_is_found(other: Mapping[str, Any]) -> None:
    with pytest.raises(Differs):
        same_run({**RUN, **other}, RECORDED_RUN)


def test_a_missing_run_is_found() -> None:
    with pytest.raises(Differs):
        same_run(None, RECORDED_RUN)


@pytest.mark.parametrize(
    "got", [[], [{**STATE, "version": 2}], [{**STATE, "version": 1}] * 2, [{**STATE, "name": "Paused", "version": 1}]]
)
def test_a_different_history_is_found(got: list[Mapping[str, Any]]) -> None:
    with pytest.raises(Differs):
        same_history(got, [RECORDED_STATE])


async def test_each_difference_names_its_scenario_and_step(ask: Ask) -> None:
    first, second, *_ = read()
    steps = [{**step, "expect": []} if step["op"] == "states" else step for step in second.steps]
    differences = await play(ask, [first, Scenario("altered", tuple(steps))], at_once=2)

    assert [difference.partition(": history")[0] for difference in differences] == ["altered: step 4 states"]
