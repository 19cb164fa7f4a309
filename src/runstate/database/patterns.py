"""Patterns of texts as regular expressions that Python and PostgreSQL read alike."""

import functools
import re
from collections.abc import Iterator
from typing import Final

NEVER: Final = r"[^\s\S]"
"""Matches nothing."""
ANY: Final = r"[\s\S]"


@functools.lru_cache(1024)
def expression(pattern: str) -> str:
    """Return the regular expression of a pattern: `*` is any text, `?` one character, `[ab]` one of some characters."""
    return "".join(_parts(pattern))


@functools.lru_cache(1024)
def compiled(text: str) -> re.Pattern[str]:
    """Return a regular expression, compiled once."""
    return re.compile(text)


def _parts(pattern: str) -> Iterator[str]:
    place = 0
    while place < len(pattern):
        character, place = pattern[place], place + 1
        end = _end_of_set(pattern, place) if character == "[" else -1
        if end >= 0:
            yield _set(pattern[place:end])
            place = end + 1
        else:
            yield ANY + "*" if character == "*" else ANY if character == "?" else _escaped(character)


def _end_of_set(pattern: str, start: int) -> int:
    """Return the place of the bracket that closes a set; -1 without one."""
    # A bracket at the start of a set is one of its characters.
    return pattern.find("]", start + 1 + pattern.startswith("!", start))


def _set(inside: str) -> str:
    negated, items = inside.startswith("!"), "".join(_items(inside.removeprefix("!")))
    if not items:
        return ANY if negated else NEVER
    return f"[{'^' if negated else ''}{items}]"


def _items(inside: str) -> Iterator[str]:
    place = 0
    while place < len(inside):
        first, place = inside[place], place + 1
        if inside.startswith("-", place) and place + 1 < len(inside):
            last, place = inside[place + 1], place + 2
            if first <= last:  # PostgreSQL rejects other ranges
                yield f"{_escaped(first)}-{_escaped(last)}"
        else:
            yield _escaped(first)


def _escaped(character: str) -> str:
    # A backslash before a letter would mean something else.
    return character if character.isalnum() or character == "_" or not character.isascii() else "\\" + character
