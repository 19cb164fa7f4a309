"""A proposal that was made before."""

from typing import Any

from runstate.core.proposal import Proposal, Reject, rule


@rule()
def refuse_repeated_transition(proposal: Proposal[Any]) -> Reject | None:
    """A proposal with the transition id of the current state has been made already: the run stays as it is."""
    current = proposal.initial.details.transition_id if proposal.initial else None
    if current is not None and current == proposal.proposed.details.transition_id:
        return Reject(reason="This transition has been made already.")
    return None
