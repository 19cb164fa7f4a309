"""Content negotiation by Accept and similar headers."""

import pytest

from runstate.negotiation import is_named, preferred, rank

OFFERS = ("a/json", "a/graphql", "text/html")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, "a/json"),
        ("", "a/json"),
        ("*/*", "a/json"),
        ("text/html", "text/html"),
        ("a/graphql, a/json", "a/graphql"),
        ("a/json, a/graphql", "a/json"),
        ("a/json;q=0.5, a/graphql;q=0.6", "a/graphql"),
        ("a/json;q=0.5, a/*;q=0.6", "a/graphql"),
        ("*/*, a/graphql", "a/graphql"),
        ("*/*, a/graphql;q=0.9", "a/json"),
        ("text/*, */*;q=0.1", "text/html"),
        ("a/json;q=0, */*", "a/graphql"),
        ("A/GraphQL ; Q=0.7 , a/json ; q=0.1", "a/graphql"),
        ("a/json;version=1;q=0.2, a/graphql;q=0.3", "a/graphql"),
        ("image/png", None),
        ("*/*;q=0", None),
        ("*/*;q=nonsense", None),
        (",,;", None),
    ],
)
def test_the_offer_with_the_highest_quality_is_chosen(header: str | None, expected: str | None) -> None:
    assert preferred(header, OFFERS) == expected


def test_a_wildcard_matches_tokens() -> None:
    assert rank("gzip, *;q=0.1", "br").quality == 0.1
    assert rank("gzip, br;q=0", "br").quality == 0
    assert rank("", "br").quality == 0


def test_a_wildcard_does_not_name_a_media_type() -> None:
    assert is_named("text/html, */*", "text/html")
    assert not is_named("*/*", "text/html")
    assert not is_named("text/html;q=0", "text/html")
    assert not is_named(None, "text/html")
