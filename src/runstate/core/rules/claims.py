"""Claims of workers."""

from typing import Any

from runstate.core.proposal import Abort, Proposal, rule
from runstate.rows import FlowRun


@rule()
def act_under_live_claim(proposal: Proposal[Any]) -> Abort | None:
    """A proposal under a claim that has ended is aborted, so that a worker that was cut off cannot start the run."""
    if proposal.claim_id is None:
        return None
    run = proposal.run
    # Compared under the lock of the run, so that a claim cannot end between this check and the new state.
    if isinstance(run, FlowRun) and run.claim_id == proposal.claim_id:
        return None
    return Abort(reason="The claim has ended. Stop the run: another worker may hold it.")
