"""Settings in the database, over HTTP, on both databases."""

from typing import Any

from tests.client import Ask
from tests.graphql.mutations import PROBLEM, do

READ = "query($key: String!) { configuration(key: $key) { id key value } }"


async def put(ask: Ask, key: str, value: Any) -> Any:
    """Set a value; return the setting or the problem."""
    fields = f"{PROBLEM} ... on SetConfigurationPayload {{ configuration {{ id key value }} }}"
    return await do(ask, "setConfiguration", "SetConfigurationInput", fields, key=key, value=value)


async def test_the_last_value_of_a_key_is_kept(ask: Ask) -> None:
    first = (await put(ask, "k", {"a": 1}))["configuration"]
    second = (await put(ask, "k", {"b": [None]}))["configuration"]

    assert second == {"id": first["id"], "key": "k", "value": {"b": [None]}}
    assert (await ask(READ, key="k"))["configuration"] == second
    await ask("mutation($id: ID!) { deleteConfiguration(id: $id) { __typename } }", id=first["id"])
    assert (await ask(READ, key="k"))["configuration"] is None


async def test_keys_of_the_server_and_large_values_are_refused(ask: Ask) -> None:
    reserved, large, no_object = [
        await put(ask, key, value) for key, value in (("runstate.workspace", {}), ("k", {"a": "x" * 65536}), ("k", [1]))
    ]

    assert (reserved["__typename"], reserved["path"]) == ("InvalidInput", ["key"])
    assert (large["__typename"], large["path"]) == ("InvalidInput", ["value"])
    assert (no_object["__typename"], no_object["path"]) == ("InvalidInput", ["value"])
