"""The bound of the size of an answer is not below its size."""

from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from runstate.graphql.execution.answer_size import most_bytes
from runstate.graphql.types.scalars import dumped

VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.uuids()
    | st.datetimes(timezones=st.just(UTC), min_value=datetime(1, 1, 2))  # noqa: DTZ001 the strategy sets the zone
)
ANSWERS = st.recursive(VALUES, lambda each: st.lists(each) | st.dictionaries(st.text(), each))


@given(ANSWERS)
def test_the_bound_of_an_answer_is_not_below_its_size(answer: Any) -> None:
    assert most_bytes(answer) >= len(dumped(answer))
