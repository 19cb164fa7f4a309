"""JSON values are returned as they were written, on both databases: numbers, and texts that look like numbers."""

import json
from typing import Any

import pytest

from tests.client import Ask
from tests.graphql.mutations import PROBLEM, do, flow_run, make_flow, make_flow_run, propose
from tests.subscribing import Socket, Subscription

LARGEST = 2**64 - 1
DECIMALS = ["0.12345678901234567890", "-98765432109876543210.5"]
"""Numbers with more digits than a double holds."""
SMALLEST = -(2**63)
VALUES: list[Any] = [
    0,
    5,
    12345678901234567890,
    LARGEST,
    SMALLEST,
    2**64,
    -(2**63) - 1,
    2**64 + 1,
    10**300 + 1,
    1.0,
    -2.50,
    0.1,
    0.1 + 0.2,
    1e300,
    1e16,
    -1.5e20,
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


async def posted(ask: Ask, document: str, variables: str = "{}") -> str:
    """Send variables as they are written; the answer as it is written."""
    body = f'{{"query": {json.dumps(document)}, "variables": {variables}}}'
    return (await ask.client.post("/graphql", content=body, headers={"Content-Type": "application/json"})).text


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


@pytest.mark.parametrize("number", [str(2**64), str(10**300 + 1), *DECIMALS])
@pytest.mark.parametrize(
    ("declared", "given", "variable"), [(", $p: JSON", "$p", '{{"n": [{}]}}'), ("", "{{ n: [{}] }}", "null")]
)
async def test_a_number_keeps_its_digits_on_every_way(
    ask: Ask, number: str, declared: str, given: str, variable: str
) -> None:
    flow = await make_flow(ask)
    create = f"createFlowRun(input: {{ flowId: $f, parameters: {given.format(number)} }})"
    document = (
        f"mutation($f: ID!{declared}) {{ {create} {{ ... on CreateFlowRunPayload {{ flowRun {{ parameters }} }} }} }}"
    )
    made = await posted(ask, document, f'{{"f": "{flow}", "p": {variable.format(number)}}}')
    condition = '{{ parameters: {{ path: ["n"], contains: {} }} }}'
    found = f"{{{{ flowRuns(where: {condition}) {{{{ totalCount nodes {{{{ parameters }}}} }}}} }}}}"
    read = await posted(ask, found.format(number))
    other = await posted(ask, found.format(f"{number}1"))

    for answer in (made, read):
        assert f'"parameters":{{"n":[{number}]}}' in answer.replace(" ", "")
    assert '"totalCount":0' in other


@pytest.mark.parametrize("number", ["1e400", "1e-400", "1" * 400])
async def test_a_number_that_is_out_of_range_is_refused(ask: Ask, number: str) -> None:
    literal = 'mutation {{ createVariable(input: {{ name: "v", value: {} }}) {{ __typename }} }}'
    assert '"code":"BAD_USER_INPUT"' in await posted(ask, literal.format(number))
    query = "query($v: JSON) { variables(where: { value: { eq: $v } }) { totalCount } }"
    assert '"code":"BAD_REQUEST"' in await posted(ask, query, f'{{"v": {number}}}')


@pytest.mark.parametrize("number", ["1e23", "100000000000000000000000", "100000000000000000000000.0"])
async def test_numbers_of_one_value_are_the_same(ask: Ask, number: str) -> None:
    run = await make_flow_run(ask)
    for place, value in enumerate((1e23, 10**23, [1e23], [10**23], [{"n": 1e23}])):
        await write(ask, run, f"key-{place}", value)
    count = '{{ it: flowRun(id: "{}") {{ inputs(where: {{ value: {} }}) {{ totalCount }} }} }}'
    for condition, expected in (
        ("{{ eq: {} }}", 2),
        ("{{ contains: {} }}", 4),
        ("{{ contains: [{{ n: {} }}] }}", 1),
        ("{{ eq: [{}] }}", 2),
    ):
        answer = await posted(ask, count.format(run, condition.format(number)))
        assert f'"totalCount":{expected}' in answer


async def test_variables_of_a_subscription_keep_their_digits(live: Ask, socket: Socket) -> None:
    run = await make_flow_run(live)
    await write(live, run, "key", 2**64)
    selection = "flowRun(id: $run) { inputs(where: { value: { eq: $value } }) { totalCount } }"
    document = f"subscription($run: ID!, $value: JSON) {{ {selection} }}"
    for place, (value, count) in enumerate([(2**64, 1), (2**64 + 1, 0)]):
        payload = {"query": document, "variables": {"run": run, "value": value}}
        await socket.say(json.dumps({"type": "subscribe", "id": str(place), "payload": payload}))
        stream = Subscription(socket, str(place))
        assert await stream.next() == {"flowRun": {"inputs": {"totalCount": count}}}
