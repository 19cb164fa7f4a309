"""States: their constructors and their validation."""

from collections.abc import Callable
from dataclasses import FrozenInstanceError
from datetime import datetime
from typing import Any

import pytest

from runstate.core import states
from runstate.core.states import State, is_persisted, is_unpersisted, paused, scheduled, suspended
from runstate.documents.states import FINAL_TYPES, StateType
from runstate.errors import InvalidInput
from tests.core.factories import NOW, all_but, details, entered, in_seconds

S = StateType

SCHEDULING: dict[str, Callable[..., State]] = {
    "Scheduled": states.scheduled,
    "Late": states.late,
    "AwaitingRetry": states.awaiting_retry,
    "AwaitingConcurrencySlot": states.awaiting_concurrency_slot,
    "Resuming": states.resuming,
}
PLAIN: dict[tuple[str, StateType], Callable[..., State]] = {
    ("Pending", S.PENDING): states.pending,
    ("Submitting", S.PENDING): states.submitting,
    ("InfrastructurePending", S.PENDING): states.infrastructure_pending,
    ("Running", S.RUNNING): states.running,
    ("Retrying", S.RUNNING): states.retrying,
    ("Rerunning", S.RUNNING): states.rerunning,
    ("Completed", S.COMPLETED): states.completed,
    ("Failed", S.FAILED): states.failed,
    ("TimedOut", S.FAILED): states.timed_out,
    ("Crashed", S.CRASHED): states.crashed,
    ("Cancelling", S.CANCELLING): states.cancelling,
    ("Cancelled", S.CANCELLED): states.cancelled,
}
FIELDS: dict[str, Any] = {"message": "why", "data": {"type": "reference"}, "details": details(cache_key="k")}


@pytest.mark.parametrize(("named", "make"), PLAIN.items())
def test_a_constructor_sets_type_and_name(named: tuple[str, StateType], make: Callable[..., State]) -> None:
    state = make()

    assert (state.name, state.type) == named
    assert state == State(type=named[1], name=named[0])


@pytest.mark.parametrize("make", PLAIN.values())
def test_a_constructor_accepts_further_fields(make: Callable[..., State]) -> None:
    state = make(**FIELDS)

    assert {name: getattr(state, name) for name in FIELDS} == FIELDS


@pytest.mark.parametrize(("name", "make"), SCHEDULING.items())
def test_a_scheduled_state_has_the_given_time(name: str, make: Callable[..., State]) -> None:
    state = make(NOW, in_seconds(5))

    assert (state.type, state.name, state.details.scheduled_time) == (S.SCHEDULED, name, in_seconds(5))


@pytest.mark.parametrize("make", SCHEDULING.values())
def test_a_scheduled_state_without_a_time_is_due_now(make: Callable[..., State]) -> None:
    assert make(NOW).details.scheduled_time == NOW


@pytest.mark.parametrize("make", SCHEDULING.values())
def test_a_scheduled_state_takes_its_time_from_the_details(make: Callable[..., State]) -> None:
    state = make(NOW, details=details(scheduled_time=in_seconds(5), cache_key="k"))

    assert state.details == details(scheduled_time=in_seconds(5), cache_key="k")


@pytest.mark.parametrize("make", SCHEDULING.values())
@pytest.mark.parametrize("again", [in_seconds(5), in_seconds(6)])
def test_two_scheduled_times_are_refused(make: Callable[..., State], again: datetime) -> None:
    with pytest.raises(InvalidInput) as refused:
        make(NOW, in_seconds(5), details=details(scheduled_time=again))
    assert refused.value.path == ("details", "scheduledTime")


@pytest.mark.parametrize("make", SCHEDULING.values())
def test_a_scheduled_state_accepts_further_fields(make: Callable[..., State]) -> None:
    state = make(NOW, in_seconds(5), **FIELDS)

    assert (state.message, state.data) == (FIELDS["message"], FIELDS["data"])
    assert state.details == details(cache_key="k", scheduled_time=in_seconds(5))


def test_a_pause_without_a_timeout_never_expires() -> None:
    state = paused(NOW)

    assert (state.type, state.name) == (S.PAUSED, "Paused")
    assert state.details == details()


def test_a_pause_expires_after_seconds() -> None:
    assert paused(NOW, timeout_seconds=90).details.pause_timeout == in_seconds(90)


def test_a_pause_of_0_seconds_has_expired() -> None:
    assert paused(NOW, timeout_seconds=0).details.pause_timeout == NOW


def test_a_pause_expires_at_a_time() -> None:
    assert paused(NOW, pause_expiration_time=in_seconds(5)).details.pause_timeout == in_seconds(5)


def test_a_pause_takes_its_expiry_from_the_details() -> None:
    assert paused(NOW, details=details(pause_timeout=in_seconds(5))).details.pause_timeout == in_seconds(5)


def test_a_pause_with_seconds_and_a_time_is_refused() -> None:
    with pytest.raises(InvalidInput) as refused:
        paused(NOW, timeout_seconds=5, pause_expiration_time=in_seconds(5))
    assert refused.value.path == ("timeoutSeconds",)


@pytest.mark.parametrize("end", [{"timeout_seconds": 5}, {"pause_expiration_time": in_seconds(5)}])
def test_two_expiry_times_of_a_pause_are_refused(end: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as refused:
        paused(NOW, **end, details=details(pause_timeout=in_seconds(5)))
    assert refused.value.path == ("details", "pauseTimeout")


def test_a_pause_has_the_key_of_its_place() -> None:
    assert paused(NOW, pause_key="here").details.pause_key == "here"


def test_a_pause_keeps_its_details() -> None:
    said = details(pause_key="here", pause_reschedule=True, run_input_keyset={"schema": "s"})

    assert paused(NOW, details=said).details == said


def test_a_suspended_run_is_scheduled_again() -> None:
    state = suspended(NOW, timeout_seconds=5, pause_key="here", message="later")

    assert (state.type, state.name, state.message) == (S.PAUSED, "Suspended", "later")
    assert state.details == details(pause_timeout=in_seconds(5), pause_reschedule=True, pause_key="here")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (S.SCHEDULED, "Scheduled"),
        (S.PENDING, "Pending"),
        (S.RUNNING, "Running"),
        (S.COMPLETED, "Completed"),
        (S.FAILED, "Failed"),
        (S.CANCELLED, "Cancelled"),
        (S.CRASHED, "Crashed"),
        (S.PAUSED, "Paused"),
        (S.CANCELLING, "Cancelling"),
    ],
)
def test_a_state_without_a_name_is_named_after_its_type(kind: StateType, name: str) -> None:
    assert State(type=kind).name == State(type=kind, name="").name == name


def test_any_type_accepts_any_name() -> None:
    assert State(type=S.PAUSED, name="NotReady").name == State(type=S.PENDING, name="NotReady").name == "NotReady"


@pytest.mark.parametrize("kind", S)
def test_a_state_has_exactly_one_type(kind: StateType) -> None:
    state = State(type=kind)

    assert [each for each in S if getattr(state, f"is_{each.value.lower()}")] == [kind]


def test_four_types_are_final() -> None:
    final = {kind for kind in S if State(type=kind).is_final}

    assert final == FINAL_TYPES == {S.COMPLETED, S.FAILED, S.CANCELLED, S.CRASHED}


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (states.failed(), "Failed()"),
        (states.failed(message="no memory"), "Failed('no memory')"),
        (states.timed_out(), "TimedOut(type=FAILED)"),
        (states.timed_out(message="after 5 s"), "TimedOut('after 5 s', type=FAILED)"),
        (states.failed(message=""), "Failed()"),
        (State(type=S.RUNNING, name="RUNNING"), "RUNNING()"),
    ],
)
def test_the_text_of_a_state_omits_what_its_name_implies(state: State, text: str) -> None:
    assert str(state) == text


def test_a_state_is_immutable() -> None:
    state: Any = states.running()

    with pytest.raises(FrozenInstanceError):
        state.name = "Retrying"


def test_a_fresh_copy_has_not_been_entered() -> None:
    state = entered(states.completed(**FIELDS))
    copy = state.fresh_copy()

    assert (copy.id, copy.timestamp, copy.version) == (None, None, None)
    assert copy == states.completed(**FIELDS)


def test_a_fresh_copy_accepts_other_values() -> None:
    copy = entered(states.completed(**FIELDS)).fresh_copy(name="Cached", message=None)

    assert copy == states.completed(**{**FIELDS, "message": None}, name="Cached")


def test_a_fresh_copy_without_data_still_has_a_persisted_result() -> None:
    assert State(type=S.COMPLETED, data={"type": "reference"}).fresh_copy(data=None).persisted


def test_changed_details_leave_the_rest_of_the_state_and_the_original_unchanged() -> None:
    state = states.running(message="why", details=details(cache_key="k"))
    other = state.with_details(refresh_cache=True)

    assert (other.message, other.details) == ("why", details(cache_key="k", refresh_cache=True))
    assert state.details == details(cache_key="k")


def test_the_default_time_of_a_scheduled_state_is_now() -> None:
    assert State(type=S.SCHEDULED).due(NOW).details.scheduled_time == NOW


def test_a_scheduled_state_with_a_time_keeps_it() -> None:
    state = scheduled(NOW, in_seconds(5))

    assert state.due(NOW) is state


@pytest.mark.parametrize("kind", all_but(S.SCHEDULED))
def test_only_a_scheduled_state_is_due(kind: StateType) -> None:
    assert State(type=kind).due(NOW) == State(type=kind)


@pytest.mark.parametrize(
    ("data", "kept", "none"),
    [
        (None, False, False),
        ({"type": "reference"}, True, False),
        ({}, True, False),
        ({"type": "unpersisted"}, False, True),
        ("unpersisted", False, False),
        (["reference"], False, False),
        (1, False, False),
    ],
)
def test_a_result_is_persisted_if_its_data_has_a_location(data: Any, *, kept: bool, none: bool) -> None:
    assert (is_persisted(data), is_unpersisted(data)) == (kept, none)
    assert State(type=S.COMPLETED, data=data).persisted is kept


def test_a_persisted_result_is_recognized_without_its_data() -> None:
    assert State(type=S.COMPLETED, persisted=True).persisted
