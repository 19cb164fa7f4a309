"""Cached results of task runs."""

from runstate.core.proposal import ANY, Amend, CacheResult, Proposal, Reject, rule
from runstate.core.states import is_unpersisted
from runstate.documents.states import StateType
from runstate.rows import TaskRun

LONGEST_KEY = 2000


@rule(leaving=ANY, entering={StateType.RUNNING})
def use_cached_result(proposal: Proposal[TaskRun]) -> Reject | None:
    """A task run whose cache key has a cached result is Cached instead of RUNNING, unless it requests a refresh."""
    # The batch has looked the key up before the decision: rules read nothing themselves.
    if proposal.cached is None or proposal.proposed.details.refresh_cache:
        return None
    return Reject(
        reason="There is a cached result for the cache key.", instead=proposal.cached.fresh_copy(name="Cached")
    )


@rule(leaving=ANY, entering={StateType.COMPLETED})
def refuse_long_cache_key(proposal: Proposal[TaskRun]) -> Reject | None:
    """A result under a cache key of more than 2,000 characters is not cached. Its state is written."""
    if len(proposal.proposed.details.cache_key or "") <= LONGEST_KEY:
        return None
    return Reject(
        reason="The result is not cached: the cache key is longer than 2,000 characters.", instead=proposal.proposed
    )


@rule(leaving=ANY, entering={StateType.COMPLETED})
def cache_result(proposal: Proposal[TaskRun]) -> Amend | None:
    """The result of a completed task run with a cache key is cached until it expires, unless it is not stored."""
    details = proposal.proposed.details
    if not details.cache_key or is_unpersisted(proposal.proposed.data):
        return None
    return Amend(effects=(CacheResult(details.cache_key, details.cache_expiration),))
