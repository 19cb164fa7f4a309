"""The grammar of full-text search."""

import pytest

from runstate.database.text_search import Search, parse


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("", Search((), (), ())),
        ("one two", Search(("one", "two"), (), ())),
        ("+one -two !three", Search((), ("one",), ("two", "three"))),
        ("--a", Search((), (), ("-a",))),
        ("- a +", Search(("a",), (), ())),
        ('error"x y"', Search(("error", "x y"), (), ())),
        ('-"x y', Search((), (), ("x y",))),
        (r'"a \" b \\ c"', Search((r'a " b \ c',), (), ())),
        ('"   " a-b', Search(("a-b",), (), ())),
        ("a\tb\u00a0c", Search(("a", "b", "c"), (), ())),
    ],
)
def test_a_search_text_has_words_phrases_and_signs(text: str, terms: Search) -> None:
    assert parse(text) == terms
