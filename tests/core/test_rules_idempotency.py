"""Repeated proposals."""

from uuid import UUID

from runstate.core.proposal import Reject
from runstate.core.rules.idempotency import refuse_repeated_transition
from runstate.core.states import running
from tests.core.factories import NOT_ASKED, asked, details, flow_run

ONE, OTHER = details(transition_id=UUID(int=1)), details(transition_id=UUID(int=2))


def test_a_transition_that_led_to_the_current_state_is_rejected() -> None:
    said = asked(refuse_repeated_transition, flow_run(), running(details=ONE), running(details=ONE))

    assert said == Reject(reason="The current state already has this transition id.")


def test_a_transition_with_another_id_is_accepted() -> None:
    assert asked(refuse_repeated_transition, flow_run(), running(details=ONE), running(details=OTHER)) is None


def test_transitions_without_an_id_are_accepted_repeatedly() -> None:
    assert asked(refuse_repeated_transition, flow_run(), running(), running()) is None
    assert asked(refuse_repeated_transition, flow_run(), running(details=ONE), running()) is None
    assert asked(refuse_repeated_transition, flow_run(), running(), running(details=ONE)) is None


def test_the_first_transition_of_a_run_is_accepted() -> None:
    assert asked(refuse_repeated_transition, flow_run(), None, running(details=ONE)) is None
    assert asked(refuse_repeated_transition, flow_run(), None, running()) != NOT_ASKED
