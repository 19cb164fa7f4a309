"""Cursors: each has an exact position in one log of one database."""

from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstate.errors import InvalidInput
from runstate.feed.cursor import MAX_NUMBER, Cursor, Position

HERE = uuid4()
LOG = "transition"
NUMBERS = st.integers(min_value=0, max_value=MAX_NUMBER)


@st.composite
def positions(draw: st.DrawFn) -> Position:
    xmax = draw(st.integers(min_value=1, max_value=MAX_NUMBER))
    xip = draw(st.sets(st.integers(min_value=1, max_value=xmax), max_size=9)) - {xmax}
    return Position(xmax, tuple(sorted(xip)), draw(NUMBERS), draw(NUMBERS))


@st.composite
def cursors(draw: st.DrawFn) -> Cursor:
    if draw(st.booleans()):
        return Cursor(draw(positions()))
    return Cursor(draw(positions()), draw(positions()), draw(NUMBERS))


@given(cursors())
def test_decoding_inverts_encoding(cursor: Cursor) -> None:
    assert Cursor.decode(cursor.encode(HERE, LOG), HERE, LOG) == cursor


@given(cursors())
def test_a_cursor_is_refused_by_another_database(cursor: Cursor) -> None:
    with pytest.raises(InvalidInput, match="another database") as refused:
        Cursor.decode(cursor.encode(HERE, LOG), uuid4(), LOG)
    assert refused.value.path == ("after",)


@given(cursors())
def test_a_cursor_is_refused_by_another_log(cursor: Cursor) -> None:
    with pytest.raises(InvalidInput, match="of the log `transition`, not of `event`") as refused:
        Cursor.decode(cursor.encode(HERE, LOG), HERE, "event")
    assert refused.value.path == ("after",)


@given(st.one_of(st.text(), st.from_regex(r"[A-Za-z0-9_-]*", fullmatch=True)))
def test_a_malformed_cursor_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="malformed"):
        Cursor.decode(text, HERE, LOG)


@given(cursors(), st.data())
def test_a_cursor_with_a_changed_character_is_refused(cursor: Cursor, data: st.DataObject) -> None:
    text = cursor.encode(HERE, LOG)
    place = data.draw(st.integers(min_value=0, max_value=len(text) - 1))
    letter = "A" if text[place] != "A" else "B"
    slipped = text[:place] + letter + text[place + 1 :]
    try:
        assert Cursor.decode(slipped, HERE, LOG) == cursor  # unused bits of the last letter
    except InvalidInput:
        pass
    else:
        assert place == len(text) - 1


def test_a_cursor_is_short_however_many_transactions_are_open() -> None:
    usual = Position(812_345_678, (812_345_671,), 1_790_000_000_000_000, 9_000_000_000)
    crowded = Position(812_345_678, tuple(range(812_343_678, 812_345_678, 2)), 1_790_000_000_000_000, 9_000_000_000)

    assert len(Cursor(usual).encode(HERE, LOG)) < 150
    assert len(Cursor(crowded).encode(HERE, LOG)) < 3_000


@given(positions())
def test_a_position_is_parsed_from_its_text(position: Position) -> None:
    assert Position.parse(position.text()) == position


@pytest.mark.parametrize(
    "text",
    ["null", "[]", "[1]", "[0,[],0,0]", "[5,[6],0,0]", "[1,[],0,-1]", '["1",[],0,0]', "[1,[1.5],0,0]", "[1,2,3,4]"],
)
def test_a_malformed_position_is_refused(text: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        Position.parse(text)


def test_a_snapshot_is_cut_after_the_newest_visible_entry() -> None:
    position = Position.of_snapshot("90:100:90,95,97", newest=95, boot=1, top=2)

    assert position == Position(96, (90, 95), 1, 2)
    assert position.snapshot == "90:96:90,95"


def test_an_empty_log_has_the_position_of_an_empty_snapshot() -> None:
    assert Position.of_snapshot("90:100:90", newest=0, boot=0, top=0).snapshot == "1:1:"


@pytest.mark.parametrize(
    ("later", "earlier", "covers"),
    [
        (Position(10), Position(10), True),
        (Position(10), Position(9), True),
        (Position(9), Position(10), False),
        (Position(10, (7,)), Position(9, (7, 8)), True),
        (Position(10, (7, 8)), Position(9, (7,)), False),
        (Position(10, (9,)), Position(9), True),
        (Position(5, boot=2), Position(9, boot=1), True),
        (Position(5, boot=1), Position(9, boot=2), False),
    ],
)
def test_a_later_position_covers_an_earlier_one(later: Position, earlier: Position, *, covers: bool) -> None:
    assert later.covers(earlier) is covers


def test_a_cursor_contains_the_id_of_the_database() -> None:
    cursor = Cursor(Position(7))

    assert cursor.encode(UUID(int=1), LOG) != cursor.encode(UUID(int=2), LOG)
