"""JSON whose numbers keep their value."""

import json
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstate.documents.exact_json import LongFloat, dumps, loads
from tests.core.factories import examples

DOUBLES = ["0.1", "-0.0", "1.0", "1e300", "5e-324", "0.30000000000000004", "1.7976931348623157e308", "1e22"]
LONG = [
    "0.12345678901234567890",
    "-1234567890123456789.5",
    "1.00000000000000000000000000000001",
    "1234.5678901234567890e10",
]
INTEGERS = [0, -1, 2**53 + 1, 2**63, 2**64, -(2**63) - 1, 10**300, 12345678901234567890123]


@pytest.mark.parametrize("text", DOUBLES)
def test_a_number_that_a_double_holds_is_one(text: str) -> None:
    found = loads(text)

    assert type(found) is float
    assert (found, dumps(found)) == (float(text), orjson.dumps(float(text)))


@pytest.mark.parametrize("text", LONG)
def test_a_number_with_more_digits_is_written_as_it_was_read(text: str) -> None:
    found = loads(f'{{"a": [{text}]}}')

    assert isinstance(found["a"][0], float)
    assert dumps(found) == f'{{"a":[{text}]}}'.encode()


@pytest.mark.parametrize("number", INTEGERS)
def test_an_integer_of_any_size_keeps_its_digits(number: int) -> None:
    assert loads(str(number).encode()) == number
    assert loads(dumps({"a": [number, True]})) == {"a": [number, True]}


@pytest.mark.parametrize(
    "text", ["1e309", "1" * 400, "1e-400", "0." + "1" * 1000, "0." + "0" * 400 + "1", "0e9999999999999999999"]
)
def test_a_number_that_is_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(orjson.JSONDecodeError):
        loads(text)


@pytest.mark.parametrize("text", ['{"a":1e-400}', '{"a" : -1.5E-0400}', "[0,\n2e-999]", " 1e-400"])
def test_a_number_that_is_too_small_is_refused_wherever_it_stands(text: str) -> None:
    with pytest.raises(orjson.JSONDecodeError):
        loads(text)
    with pytest.raises(orjson.JSONDecodeError):
        loads(text.encode())


def test_an_id_that_looks_like_a_small_number_is_a_text() -> None:
    assert loads('{"id": "019ad00e-7123-70e-400"}') == {"id": "019ad00e-7123-70e-400"}


def test_numbers_of_one_value_are_equal_whatever_they_look_like() -> None:
    same = [loads(text) for text in ("18446744073709551617", "18446744073709551617.0", "1844674407370955161.70e1")]

    assert len(set(same)) == 1
    assert loads("18446744073709551617.0") != float("18446744073709551617")
    assert LongFloat("0.12345678901234567890") == LongFloat("0.1234567890123456789")
    assert LongFloat("1.00000000000000000000001") != True  # noqa: E712 JSON's true is no number


@examples(200)
@given(st.recursive(st.none() | st.booleans() | st.integers(-(10**40), 10**40) | st.text(), st.lists, max_leaves=8))
def test_what_is_written_is_read_again(value: Any) -> None:
    assert loads(dumps(value)) == loads(dumps(value).decode()) == json.loads(dumps(value)) == value


@examples(200)
@given(st.decimals(allow_nan=False, allow_infinity=False, places=20, min_value=-(10**20), max_value=10**20))
def test_a_decimal_keeps_its_value(number: Decimal) -> None:
    assert Decimal(dumps(loads(f"{number:f}")).decode()) == number


@given(st.decimals(allow_nan=False, allow_infinity=False, places=7, min_value=-(10**8), max_value=10**8))
@examples(200)
def test_a_short_number_is_a_double_of_the_same_value(number: Decimal) -> None:
    (found, _) = loads(f"[{number:f}, 0.12345678901234567890]")

    assert type(found) is float
    assert Decimal(repr(found)) == number
