"""The verdict of rules: evaluated in order, each on the proposal as amended by earlier ones, until one decides."""

from typing import Any

import pytest

from runstate.core.proposal import (
    ANY,
    Abort,
    Amend,
    CacheResult,
    Proposal,
    Reject,
    Rule,
    RuleOutcome,
    RuleVerdict,
    Verdict,
    Wait,
    decide,
    rule,
)
from runstate.core.states import cancelled, running, scheduled
from runstate.documents.decisions import OrchestrationStatus
from runstate.documents.policies import FlowRunPolicy
from runstate.documents.states import StateType
from runstate.rows import FlowRun
from tests.core.factories import NOW, decided, flow_run, propose

S = StateType
Status = OrchestrationStatus
ENDS: dict[OrchestrationStatus, Any] = {
    Status.REJECT: Reject(reason="because"),
    Status.WAIT: Wait(reason="because", seconds=5),
    Status.ABORT: Abort(reason="because"),
}


def says(said: Verdict, **types: Any) -> Rule[FlowRun]:
    """Return a rule with a fixed verdict."""

    @rule(**types)
    def always(proposal: Proposal[FlowRun]) -> Verdict:
        """Return the fixed verdict."""
        return said

    return always


def hears(heard: list[Proposal[FlowRun]]) -> Rule[FlowRun]:
    """Return a rule that accepts every proposal and records it."""

    @rule()
    def listen(proposal: Proposal[FlowRun]) -> None:
        """Record the proposal."""
        heard.append(proposal)

    return listen


def test_a_rule_has_the_name_and_the_docstring_of_its_function() -> None:
    listener = hears([])

    assert (listener.name, repr(listener), listener.__doc__) == ("listen", "listen", "Record the proposal.")


def test_a_rule_applies_to_every_transition_by_default() -> None:
    listener = hears([])

    assert {None, *S} == ANY == listener.leaving == listener.entering


@pytest.mark.parametrize("left", [None, S.SCHEDULED, S.RUNNING])
@pytest.mark.parametrize("entered", [S.PENDING, S.RUNNING])
def test_a_rule_applies_to_the_types_left_and_entered(left: S | None, entered: S) -> None:
    judge = says(None, leaving={None, S.SCHEDULED}, entering={S.RUNNING})

    assert judge.concerns(left, entered) is (left in (None, S.SCHEDULED) and entered is S.RUNNING)


def test_without_rules_everything_is_accepted_as_proposed() -> None:
    run = flow_run()
    decision = decided((), run, None, running(message="m"))

    assert (decision.status, decision.state, decision.run.id) == (Status.ACCEPT, running(message="m"), run.id)
    assert (decision.reason, decision.rule, decision.considered) == (None, None, ())


def test_rules_without_a_verdict_accept_the_proposal() -> None:
    decision = decided((says(None), says(None)), flow_run(), None, running())

    assert (decision.status, decision.state) == (Status.ACCEPT, running())
    assert decision.considered == (RuleOutcome("always", RuleVerdict.PASS), RuleOutcome("always", RuleVerdict.PASS))


def test_later_rules_see_earlier_amendments() -> None:
    heard: list[Proposal[FlowRun]] = []
    policy = (says(Amend(state=running(name="Retrying"))), says(Amend(run={"run_count": 9})), hears(heard))
    decision = decided(policy, flow_run(), scheduled(NOW), running())

    assert [(each.proposed.name, each.run.run_count) for each in heard] == [("Retrying", 9)]
    assert decision.state == running(name="Retrying")
    assert decision.run.run_count == 9


def test_an_amended_type_changes_which_rules_apply() -> None:
    only_running = says(Abort(reason="never"), entering={S.RUNNING})
    decision = decided((says(Amend(state=cancelled())), only_running), flow_run(), None, running())

    assert (decision.status, decision.state) == (Status.ACCEPT, cancelled())
    assert [each.rule for each in decision.considered] == ["always"]


def test_effects_accumulate_in_order() -> None:
    one, two = CacheResult("one", None), CacheResult("two", None)
    decision = decided((says(Amend(effects=(one,))), says(Amend(effects=(two,)))), flow_run(), None, running())

    assert decision.effects == (one, two)


def test_columns_set_after_the_transition_accumulate_and_the_last_rule_wins() -> None:
    policy = (says(Amend(after_bookkeeping={"a": 1, "b": 1})), says(Amend(after_bookkeeping={"b": 2})))

    assert decided(policy, flow_run(), None, running()).after_bookkeeping == {"a": 1, "b": 2}


@pytest.mark.parametrize(("status", "said"), ENDS.items())
def test_the_first_refusal_ends_the_evaluation(status: OrchestrationStatus, said: Any) -> None:
    heard: list[Proposal[FlowRun]] = []
    decision = decided((says(said), hears(heard)), flow_run(), scheduled(NOW), running())

    assert heard == []
    assert (decision.status, decision.state, decision.reason, decision.rule) == (status, None, "because", "always")
    assert decision.considered == (RuleOutcome("always", RuleVerdict(status.value), "because"),)


@pytest.mark.parametrize("said", ENDS.values())
def test_a_refusal_drops_earlier_amendments(said: Any) -> None:
    amend = Amend(
        state=cancelled(), run={"run_count": 9}, effects=(CacheResult("k", None),), after_bookkeeping={"policy": 1}
    )
    decision = decided((says(amend), says(said)), flow_run(run_count=2), scheduled(NOW), running())

    assert decision.run.run_count == 2
    assert (decision.state, decision.effects, decision.after_bookkeeping) == (None, (), {})


def test_a_rejection_may_name_another_state_and_amend_the_run() -> None:
    policy = FlowRunPolicy(retries=1)
    said = Reject(reason="because", instead=cancelled(), run={"policy": policy}, after_bookkeeping={"run_count": 3})
    decision = decided((says(said),), flow_run(), scheduled(NOW), running())

    assert (decision.status, decision.state, decision.run.policy) == (Status.REJECT, cancelled(), policy)
    assert decision.after_bookkeeping == {"run_count": 3}


def test_a_delay_has_its_length() -> None:
    decision = decided((says(Wait(reason="because", seconds=5)),), flow_run(), None, running())

    assert decision.retry_after_seconds == 5
    assert decided((), flow_run(), None, running()).retry_after_seconds is None


def test_an_amendment_may_have_a_reason() -> None:
    decision = decided((says(Amend(reason="because")),), flow_run(), None, running())

    assert decision.reason is None
    assert decision.considered == (RuleOutcome("always", RuleVerdict.AMEND, "because"),)


def test_a_decision_does_not_change_the_proposal() -> None:
    proposal = propose(flow_run(run_count=2), scheduled(NOW), running())
    before = dict(vars(proposal.run))
    decide(proposal, (says(Amend(state=cancelled(), run={"run_count": 9})),))

    assert vars(proposal.run) == before
    assert proposal.proposed == running()


def test_a_proposal_has_the_current_type_of_the_run() -> None:
    first, later = propose(flow_run(), None, running()), propose(flow_run(), scheduled(NOW), running())

    assert (first.initial_type, first.initial_name) == (None, None)
    assert (later.initial_type, later.initial_name) == (S.SCHEDULED, "Scheduled")
