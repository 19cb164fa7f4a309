"""Content negotiation with Accept and similar header fields (RFC 9110, section 12)."""

import functools
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

ANYTHING: Final = "*/*"
LONGEST: Final = 2_048
"""Maximum number of characters of a header field that are parsed."""


class Range(NamedTuple):
    """One range of a header field."""

    quality: float
    """Preference from 0, not accepted, to 1."""
    position: int
    """Position in the header field, from 0."""


class Rank(NamedTuple):
    """Preference of a client for an offer; the greatest rank wins."""

    quality: float = 0.0
    precision: int = -3
    position: int = 0


@functools.lru_cache(64)
def ranges(header: str) -> Mapping[str, Range]:
    """Return the ranges of a header field by name; of several with one name, the one with the highest quality."""
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
    """Return the preference of a client for an offer. The most specific range that matches decides."""
    known = ranges(header[:LONGEST])
    kind, slash, _ = offer.partition("/")
    for precision, name in enumerate((offer, f"{kind}/*", ANYTHING) if slash else (offer, "*")):
        if name in known:
            quality, position = known[name]
            # Negative, because a lower index means more specific or named earlier.
            return Rank(quality, -precision, -position)
    return Rank()


def preferred(header: str | None, offers: Sequence[str]) -> str | None:
    """Return the offer that a client prefers; None if it accepts none.

    Of offers with equal quality, the one that the client names more specifically wins, then the one that it names
    first, then the first offer.
    """
    return _preferred((header or ANYTHING)[:LONGEST], offers)


@functools.lru_cache(64)
def _preferred(header: str, offers: Sequence[str]) -> str | None:
    # Of equal offers, max() returns the first one.
    best = max(offers, key=lambda offer: rank(header, offer))
    return best if rank(header, best).quality else None


def is_named(header: str | None, offer: str) -> bool:
    """Return whether a client accepts an offer by name, not only by a wildcard."""
    found = ranges((header or "")[:LONGEST]).get(offer)
    return found is not None and found.quality > 0
