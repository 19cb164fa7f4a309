"""Arithmetic of concurrency limits: occupied slots, waiting times, and the effects of acquiring and releasing.

Slots of a limit without decay are occupied until their lease is released: `occupied` is the sum over its leases. Slots
of a limit with decay become free one after another at a fixed rate (a token bucket): `drained` is the time at which the
last one does, so a refused request writes nothing and does not delay others.
"""

from datetime import datetime, timedelta
from math import inf, log

from runstate.rows import ConcurrencyLease, ConcurrencyLimit

SHORTEST_OCCUPANCY_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 30
LONGEST_TAG_WAIT_SECONDS = 10
LONGEST_DRAIN_SECONDS = 1000 * 365 * 24 * 3600
ROUNDING = 1e-6


def occupied(limit: ConcurrencyLimit, now: datetime) -> float:
    """Return the number of occupied slots; with decay it may be fractional."""
    if limit.slot_decay_per_second == 0:
        return limit.occupied
    if limit.drained is None:
        return 0
    return max(0.0, (limit.drained - now).total_seconds() * limit.slot_decay_per_second)


def capacity(limit: ConcurrencyLimit) -> float:
    """Return the number of slots that can be occupied; with decay, at most those that are freed in a thousand years."""
    if limit.slot_decay_per_second == 0:
        return limit.limit
    return min(float(limit.limit), limit.slot_decay_per_second * LONGEST_DRAIN_SECONDS)


def seconds_until_room(limit: ConcurrencyLimit, slots: int, now: datetime) -> float:
    """Return the time until so many slots are free: 0 if they are, infinite if a holder has to release some first."""
    excess = occupied(limit, now) + slots - capacity(limit)
    if not limit.active or excess <= ROUNDING:
        return 0
    if limit.slot_decay_per_second == 0 or slots > capacity(limit):
        return inf
    return excess / limit.slot_decay_per_second


def retry_delay(limit: ConcurrencyLimit, slots: int, now: datetime, draw: float) -> float:
    """Return the time until a retry: with decay the exact time, else a random time around the average occupancy."""
    exact = seconds_until_room(limit, slots, now)
    if exact < inf:
        return round(exact, 6)
    longest = LONGEST_TAG_WAIT_SECONDS if limit.name.startswith("tag:") else LONGEST_WAIT_SECONDS
    average = min(limit.average_slot_occupancy_seconds, longest)
    return max(SHORTEST_OCCUPANCY_SECONDS, min(round(-log(1 - min(draw, 0.999)) * average, 6), longest))


def after_acquire(limit: ConcurrencyLimit, slots: int, now: datetime) -> ConcurrencyLimit:
    """Return the limit after slots were acquired."""
    if limit.slot_decay_per_second == 0:
        return limit.replace(occupied=limit.occupied + slots)
    start = max(now, limit.drained or now)
    return limit.replace(drained=start + timedelta(seconds=slots / limit.slot_decay_per_second))


def remaining_slots(limit: ConcurrencyLimit, lease: ConcurrencyLease, now: datetime) -> float:
    """Return the number of slots of a lease that are still occupied; only with decay."""
    if lease.expires is None:
        return 0
    return min(float(lease.slots), max(0.0, (lease.expires - now).total_seconds() * limit.slot_decay_per_second))


def after_release(limit: ConcurrencyLimit, lease: ConcurrencyLease, now: datetime) -> ConcurrencyLimit:
    """Return the limit after a lease was released; the time for which it was held moves the average."""
    if limit.slot_decay_per_second > 0:
        return limit.replace(drained=(limit.drained or now) - saved_time(limit, lease, now))
    occupancy = max(SHORTEST_OCCUPANCY_SECONDS, (now - lease.created).total_seconds() / lease.slots)
    average = limit.average_slot_occupancy_seconds
    changed = round(average + (occupancy - average) / (2 * max(limit.limit, 1)), 6)
    return limit.replace(occupied=limit.occupied - lease.slots, average_slot_occupancy_seconds=changed)


def advanced(
    limit: ConcurrencyLimit, gone: ConcurrencyLease, waiting: ConcurrencyLease, now: datetime
) -> ConcurrencyLease:
    """Return a lease, which expires sooner if it is behind the released one; only with decay."""
    if waiting.expires is None or gone.expires is None or waiting.expires <= gone.expires:
        return waiting
    return waiting.replace(expires=waiting.expires - saved_time(limit, gone, now))


def saved_time(limit: ConcurrencyLimit, gone: ConcurrencyLease, now: datetime) -> timedelta:
    """Return how much sooner the slots behind a released lease are free; only with decay."""
    return timedelta(seconds=remaining_slots(limit, gone, now) / limit.slot_decay_per_second)
