"""Patterns in SQL match as `fnmatch` does, on both databases."""

from fnmatch import fnmatchcase

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from runstate.database import Database
from runstate.database.event_conditions import fits_one
from runstate.database.patterns import compiled, expression

TEXTS = st.text(alphabet="ab]-![*?.\\\n^ß", max_size=6)
CASES = [
    ("a*", "a"),
    ("?", "\n"),
    ("[!a]", "b"),
    ("[]a]", "]"),
    ("[b-a]", "b"),
    ("[!b-a]", "b"),
    ("[a", "[a"),
    ("[^a]", "^"),
]


@given(pattern=TEXTS, text=TEXTS)
def test_an_expression_matches_as_fnmatch_does(pattern: str, text: str) -> None:
    assert (compiled(expression(pattern)).fullmatch(text) is not None) is fnmatchcase(text, pattern)


@pytest.mark.parametrize(("pattern", "text"), CASES)
async def test_both_databases_match_as_fnmatch_does(database: Database, pattern: str, text: str) -> None:
    async with database.read() as connection:
        for value in (text, "a", "bb"):
            column = sa.literal(value, sa.Text())
            fits = await connection.scalar(sa.select(fits_one(column, [pattern], negatable=False)))
            assert bool(fits) is fnmatchcase(value, pattern)
