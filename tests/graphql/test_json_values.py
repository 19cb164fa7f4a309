"""JSON values are returned as they were written, on both databases: numbers, and texts that look like numbers."""

from typing import Any

from tests.client import Ask
from tests.graphql.mutations import PROBLEM, do, flow_run, make_flow_run, propose

LARGEST = 2**64 - 1
SMALLEST = -(2**63)
VALUES: list[Any] = [
    0,
    5,
    12345678901234567890,
    LARGEST,
    SMALLEST,
    1.0,
    -2.50,
    0.1,
    0.1 + 0.2,
    1e300,
    5e-324,
    True,
    False,
    "text",
    "5",
    "1.0",
    "null",
    "",
    [],
    {},
    [1.0, LARGEST, None, {"a": 1e300}],
]
WRITTEN = f"{PROBLEM} ... on CreateFlowRunInputPayload {{ created flowRunInput {{ value }} }}"


def exactly(value: Any) -> Any:
    """Return a value that distinguishes 1, 1.0 and true."""
    if isinstance(value, list):
        return [exactly(each) for each in value]
    if isinstance(value, dict):
        return {key: exactly(each) for key, each in value.items()}
    return type(value), value


async def write(ask: Ask, run: str, key: str, value: Any) -> Any:
    """Write an input of a flow run; return the value in the answer."""
    given = {"flowRunId": run, "key": key, "value": value}
    return (await do(ask, "createFlowRunInput", "CreateFlowRunInputInput", WRITTEN, **given))["flowRunInput"]["value"]


async def test_the_value_of_an_input_is_returned_exactly(ask: Ask) -> None:
    run = await make_flow_run(ask)
    keys = [f"key-{place}" for place in range(len(VALUES))]
    written = [await write(ask, run, key, value) for key, value in zip(keys, VALUES, strict=True)]
    again = [await write(ask, run, key, "another") for key in keys]
    found = await flow_run(ask, run, "inputs(first: 100) { nodes { key value } }")
    listed = {each["key"]: each["value"] for each in found["inputs"]["nodes"]}

    assert exactly(written) == exactly(VALUES)
    assert exactly(again) == exactly(VALUES)
    assert exactly([listed[key] for key in keys]) == exactly(VALUES)


async def test_the_data_of_a_state_are_returned_exactly(ask: Ask) -> None:
    run = await make_flow_run(ask)
    values = [*VALUES, None]
    states = [{"type": "RUNNING", "data": value} for value in values]
    proposed = [(await propose(ask, run, state, force=True))["state"]["data"] for state in states]
    found = await flow_run(ask, run, "states(first: 100) { nodes { data } }")

    assert exactly(proposed) == exactly(values)
    assert exactly([each["data"] for each in found["states"]["nodes"][1:]]) == exactly(values)


async def test_an_input_is_found_by_its_value(ask: Ask) -> None:
    run = await make_flow_run(ask)
    for place, value in enumerate(VALUES):
        await write(ask, run, f"key-{place}", value)
    selection = "inputs(where: {value: {eq: $value}}) { nodes { value } }"
    document = f"query($run: ID!, $value: JSON) {{ it: flowRun(id: $run) {{ {selection} }} }}"
    found = [(await ask(document, run=run, value=value))["it"]["inputs"]["nodes"] for value in VALUES]

    assert exactly([[each["value"] for each in nodes] for nodes in found]) == exactly([[value] for value in VALUES])
