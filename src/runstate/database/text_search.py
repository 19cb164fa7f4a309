"""Full-text search: the grammar of a search text, and its condition in SQL."""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

import sqlalchemy as sa

from runstate.database.dialects import text_contains

TERM: Final = re.compile(
    r"""\s*(?P<sign>[-!+]?)(?:"(?P<phrase>(?:\\["\\]|[^"])*)(?:"|$)|(?P<word>[^\s"]+))?""", re.DOTALL
)
"""A term with its sign: a word, or a phrase in double quotes. A sign without a term is skipped."""
ESCAPED: Final = re.compile(r"""\\(["\\])""")


class Search(NamedTuple):
    """The terms of a search text. A text matches if it contains them, ignoring case."""

    any: tuple[str, ...]
    """Terms without a sign: at least one of them is contained."""
    all: tuple[str, ...]
    """Terms after `+`."""
    none: tuple[str, ...]
    """Terms after `-` or `!`."""


def parse(text: str) -> Search:
    """Return the terms of a search text."""
    terms: dict[str, list[str]] = {"": [], "+": [], "-": []}
    for match in TERM.finditer(text):
        term = match["word"] or ESCAPED.sub(r"\1", match["phrase"] or "")
        if term.strip():
            terms[match["sign"].replace("!", "-")].append(term)
    return Search(tuple(terms[""]), tuple(terms["+"]), tuple(terms["-"]))


def matches(columns: Iterable[sa.ColumnElement[str]], search: Search) -> sa.ColumnElement[bool]:
    """Return the condition that columns, joined by spaces, match a search."""
    first, *others = columns
    text = first
    for column in others:
        # Not a parameter: the expression has to be that of the index.
        text = text + sa.literal_column("' '", sa.Text()) + column
    parts = [_contains(text, term) for term in search.all]
    parts += [sa.not_(_contains(text, term)) for term in search.none]
    if search.any:
        parts.append(sa.or_(*(_contains(text, term) for term in search.any)))
    return sa.and_(sa.true(), *parts)


def _contains(text: sa.ColumnElement[str], term: str) -> sa.ColumnElement[bool]:
    # PostgreSQL rejects texts with NUL, so no column contains one.
    return sa.false() if "\0" in term else text_contains(text, term)
