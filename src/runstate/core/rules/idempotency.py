"""Repeated proposals."""

from typing import Any

from runstate.core.proposal import Proposal, Reject, rule


@rule()
def refuse_repeated_transition(proposal: Proposal[Any]) -> Reject | None:
    """A proposal with the transition id of the current state is a repetition. The run stays in its state."""
    # Older states are not compared, as in the reference.
    current = proposal.initial.details.transition_id if proposal.initial else None
    if current is not None and current == proposal.proposed.details.transition_id:
        return Reject(reason="The current state already has this transition id.")
    return None
