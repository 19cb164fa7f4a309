"""The representation that a client prefers, as Accept and its kin say it (RFC 9110, section 12)."""

import functools
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

ANYTHING: Final = "*/*"
LONGEST: Final = 2_048
"""The most characters of a header field that are looked at."""


class Range(NamedTuple):
    """One range of a header field."""

    quality: float
    """How much it is wanted: 1 at most, 0 if it is not accepted."""
    position: int
    """Its place in the header field, from 0 on."""


class Rank(NamedTuple):
    """How much a client wants an offer; the greater rank is preferred."""

    quality: float = 0.0
    precision: int = -3
    position: int = 0


@functools.lru_cache(64)
def ranges(header: str) -> Mapping[str, Range]:
    """Return the ranges of a header field by their names; of several with one name the most wanted."""
    found: dict[str, Range] = {}
    for position, text in enumerate(header.split(",")):
        name, quality = _range(text)
        if name not in found or found[name].quality < quality:
            found[name] = Range(quality, position)
    return found


def _range(text: str) -> tuple[str, float]:
    name, *parameters = (part.strip().lower() for part in text.split(";"))
    quality = next((each.removeprefix("q=") for each in parameters if each.startswith("q=")), "1")
    try:
        return name, min(1.0, max(0.0, float(quality)))
    except ValueError:
        return name, 0.0


def rank(header: str, offer: str) -> Rank:
    """Return how much a client wants an offer: the most precise range that covers it decides."""
    known = ranges(header[:LONGEST])
    kind, slash, _ = offer.partition("/")
    for precision, name in enumerate((offer, f"{kind}/*", ANYTHING) if slash else (offer, "*")):
        if name in known:
            quality, position = known[name]
            return Rank(quality, -precision, -position)
    return Rank()


def preferred(header: str | None, offers: Sequence[str]) -> str | None:
    """Return the offer that a client prefers; None if it accepts none.

    Of equal ones it is the one named more precisely, then the one that the client names first, then the first offer.
    """
    return _preferred((header or ANYTHING)[:LONGEST], offers)


@functools.lru_cache(64)
def _preferred(header: str, offers: Sequence[str]) -> str | None:
    best = max(offers, key=lambda offer: rank(header, offer))
    return best if rank(header, best).quality else None


def is_named(header: str | None, offer: str) -> bool:
    """Whether a client accepts an offer by its name, not by a wildcard only."""
    found = ranges((header or "")[:LONGEST]).get(offer)
    return found is not None and found.quality > 0
