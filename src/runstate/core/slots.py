"""Arithmetic of concurrency limits: occupied slots, waiting times, and the effects of acquiring and releasing.

Without decay, slots are occupied until their lease is released: `occupied` is the sum over the leases of the limit.
With decay, slots become free one after another at a fixed rate (a token bucket). `drained` is the time at which the
last slot becomes free, so a refused request writes nothing and does not delay others.
"""

from datetime import datetime, timedelta
from math import inf

from runstate.rows import ConcurrencyLease, ConcurrencyLimit

SHORTEST_OCCUPANCY_SECONDS = 0.1
SHORTEST_WAIT_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 30
SMALLEST_FACTOR = 0.5
"""Waiting times are drawn between this and 1.5 times the estimate, so that clients do not return together."""
LONGEST_DRAIN_SECONDS = 1000 * 365 * 24 * 3600
"""Bound on the time until all slots are free, so that `drained` stays a valid datetime."""
ROUNDING = 1e-6
"""Excess of slots that counts as none, because sums of floats are not exact."""


def occupied(limit: ConcurrencyLimit, now: datetime) -> float:
    """Return the number of occupied slots; with decay it may be fractional."""
    if limit.slot_decay_per_second == 0:
        return limit.occupied
    if limit.drained is None:
        return 0
    return max(0.0, (limit.drained - now).total_seconds() * limit.slot_decay_per_second)


def capacity(limit: ConcurrencyLimit) -> float:
    """Return the number of slots that can be occupied; with decay, at most those that become free in 1,000 years."""
    if limit.slot_decay_per_second == 0:
        return limit.limit
    # With a decay close to 0, the drain time would not fit into a datetime.
    return min(float(limit.limit), limit.slot_decay_per_second * LONGEST_DRAIN_SECONDS)


def seconds_until_room(limit: ConcurrencyLimit, slots: int, now: datetime) -> float:
    """Return the seconds until this number of slots is free; infinite if that depends on a release, 0 if inactive."""
    excess = occupied(limit, now) + slots - capacity(limit)
    if not limit.active or excess <= ROUNDING:
        return 0
    if limit.slot_decay_per_second == 0 or slots > capacity(limit):
        return inf
    return excess / limit.slot_decay_per_second


def retry_delay(limit: ConcurrencyLimit, slots: int, now: datetime, draw: float, attempts: int = 0) -> float:
    """Return the seconds until a retry: exact with decay, otherwise random around the time until a slot is released.

    That time is estimated as the average occupancy, or as the time for which all holders have held their slots if that
    is longer. It grows with the number of attempts.
    """
    exact = seconds_until_room(limit, slots, now)
    if exact < inf:
        return round(exact, 6)
    # If nothing was released for longer than the average, the average is too low an estimate.
    expected = max(limit.average_slot_occupancy_seconds, (now - limit.updated).total_seconds())
    seconds = expected * (1 + attempts) * (SMALLEST_FACTOR + draw)
    return round(max(SHORTEST_WAIT_SECONDS, min(seconds, LONGEST_WAIT_SECONDS)), 6)


def after_acquire(limit: ConcurrencyLimit, slots: int, now: datetime) -> ConcurrencyLimit:
    """Return the limit after slots were acquired."""
    if limit.slot_decay_per_second == 0:
        # Waiting times are estimated from the time of the last change.
        return limit.replace(occupied=limit.occupied + slots, updated=now)
    # If the drain time has passed, all slots are free.
    start = max(now, limit.drained or now)
    return limit.replace(drained=start + timedelta(seconds=slots / limit.slot_decay_per_second))


def remaining_slots(limit: ConcurrencyLimit, lease: ConcurrencyLease, now: datetime) -> float:
    """Return the number of slots of a lease that are still occupied; only with decay."""
    if lease.expires is None:
        return 0
    # Slots that are free already cannot be released a second time.
    return min(float(lease.slots), max(0.0, (lease.expires - now).total_seconds() * limit.slot_decay_per_second))


def after_release(limit: ConcurrencyLimit, lease: ConcurrencyLease, now: datetime) -> ConcurrencyLimit:
    """Return the limit after a lease was released. The time for which it was held changes the average occupancy."""
    if limit.slot_decay_per_second > 0:
        return limit.replace(drained=(limit.drained or now) - saved_time(limit, lease, now))
    occupancy = max(SHORTEST_OCCUPANCY_SECONDS, (now - lease.created).total_seconds() / lease.slots)
    average = limit.average_slot_occupancy_seconds
    # A limit with more slots has more releases, so each changes the average less.
    changed = round(average + (occupancy - average) / (2 * max(limit.limit, 1)), 6)
    return limit.replace(occupied=limit.occupied - lease.slots, average_slot_occupancy_seconds=changed, updated=now)


def advanced(
    limit: ConcurrencyLimit, gone: ConcurrencyLease, waiting: ConcurrencyLease, now: datetime
) -> ConcurrencyLease:
    """Return a lease after another one was released: it expires sooner if it is behind that one; only with decay."""
    if waiting.expires is None or gone.expires is None or waiting.expires <= gone.expires:
        return waiting
    return waiting.replace(expires=waiting.expires - saved_time(limit, gone, now))


def saved_time(limit: ConcurrencyLimit, gone: ConcurrencyLease, now: datetime) -> timedelta:
    """Return the time by which the slots behind a released lease become free sooner; only with decay."""
    return timedelta(seconds=remaining_slots(limit, gone, now) / limit.slot_decay_per_second)
