"""Records of decisions: on the state that a decision wrote, or on the run if it wrote none."""

import functools
from datetime import datetime
from typing import Any, Final

from runstate.core.batch.requests import ProposeState
from runstate.core.proposal import Decision
from runstate.core.rules.claims import act_under_live_claim
from runstate.core.states import State
from runstate.documents.access import is_service
from runstate.documents.decisions import LastAnswer, OrchestrationStatus, ProposedType, StateDecision
from runstate.rows import FlowRun, TaskRun

ACCEPT: Final = OrchestrationStatus.ACCEPT
FORCE: Final = "force"
FOLLOW: Final = "follow_subflow_run"


def explained(decision: Decision[Any], request: ProposeState) -> StateDecision | None:
    """Return the record of a decision that writes a state; None for an acceptance without changes."""
    if decision.status is not ACCEPT:
        return StateDecision(
            proposed=_type_of(request.state), status=decision.status, rule=decision.rule, reason=decision.reason
        )
    origin = _origin(decision.run, request)
    if origin is not None:
        return _without_proposal(origin, decision.amended_by)
    if decision.amended_by:
        return StateDecision(proposed=_type_of(request.state), amended_by=decision.amended_by)
    return None


# Forced states have few different decisions, so each is made once.
@functools.cache
def _without_proposal(origin: str, amended_by: tuple[str, ...]) -> StateDecision:
    return StateDecision(rule=origin, amended_by=amended_by)


def _origin(run: FlowRun | TaskRun, request: ProposeState) -> str | None:
    """Return the name in place of a rule of a state that no client proposed to the rules. First states have none."""
    if is_service(request.actor):
        return request.actor
    # First states are written as if forced, but count as accepted.
    if not request.force or run.version == 0:
        return None
    return FOLLOW if request.state.details.child_flow_run_id else FORCE


def unanswered(
    decision: Decision[Any], request: ProposeState, last: LastAnswer | None, now: datetime
) -> LastAnswer | None:
    """Return the record of a decision that did not write the proposed state, for a run with such a record or without.

    None: the run entered a state, and it does not wait for a limit.
    """
    if decision.rule is None or decision.reason is None or (decision.state is not None and not decision.limits):
        return None
    # The run is no business of a worker whose claim has ended, so nothing is written.
    if decision.rule == act_under_live_claim.name:
        return None
    waits = bool(decision.limits and last and last.limit_ids)
    return LastAnswer(
        at=now,
        proposed=_type_of(request.state),
        status=decision.status,
        rule=decision.rule,
        reason=decision.reason,
        retry_after_seconds=decision.retry_after_seconds,
        attempts=last.attempts + 1 if waits and last else 1,
        limit_ids=decision.limits,
    )


def _type_of(state: State) -> ProposedType:
    return ProposedType(type=state.type, name=state.name)
