"""Recorded scenarios of results: State.result() returns and raises what was recorded."""

import json
from pathlib import Path
from typing import Any

import pytest

from runstate.client.states import State
from tests.oracle.recording import STORES, Scenario, read

SCENARIOS = [each for each in read(STORES) if each.family == "result"]


def test_the_recording_is_complete() -> None:
    assert len(SCENARIOS) == 118


async def outcome(state: State, *, raises: bool) -> dict[str, Any]:
    """Return the result of a state in the words of the recording."""
    try:
        got = await state.aresult(raise_on_failure=raises, retry_result_failure=False)
    except Exception as error:  # noqa: BLE001 - the recording tells which
        return {"raises": type(error).__name__, "text": str(error)}
    if isinstance(got, BaseException):
        return {"returns_exception": type(got).__name__, "text": str(got)}
    return {"returns": got}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.name)
async def test_a_result_is_as_recorded(scenario: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNSTATE_RESULTS_FOLDER", str(tmp_path))
    (step,) = scenario.steps
    data = step.get("data")
    if "stored" in step:
        (tmp_path / "key").write_text(json.dumps(step["stored"]))
        data = {**(data or {}), "storage_key": "key"}
    state = State(type=step["type"], message=step.get("message"), data=data)

    got = await outcome(state, raises=step.get("raise_on_failure", True))

    expected = step["expect"]
    # A recorded text is part of the message; without one, any message will do.
    if "returns" not in expected and expected.get("text", "") in got.get("text", ""):
        got = {**got, "text": expected.get("text")}
        expected = {"text": None, **expected}
    assert json.dumps(got, sort_keys=True) == json.dumps(expected, sort_keys=True)
