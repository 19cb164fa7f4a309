"""The workspace over HTTP, on both databases."""

import asyncio

from tests.client import Ask
from tests.graphql.mutations import PROBLEM, do

FIELDS = "accountHandle accountId accountName apiUrl description handle uiUrl workspaceHandle workspaceId workspaceName"
UPDATED = f"{PROBLEM} ... on UpdateWorkspacePayload {{ workspace {{ {FIELDS} }} }}"


async def test_a_server_has_names_and_addresses(ask: Ask) -> None:
    found = (await ask(f"{{ workspace {{ {FIELDS} }} }}"))["workspace"]

    assert found["accountId"] != found["workspaceId"]
    assert {key: value for key, value in found.items() if not key.endswith("Id")} == {
        "accountHandle": "local",
        "accountName": "",
        "apiUrl": "http://127.0.0.1:4200/graphql",
        "description": "",
        "handle": "local/default",
        "uiUrl": "http://127.0.0.1:4200/",
        "workspaceHandle": "default",
        "workspaceName": "",
    }


async def test_concurrent_changes_of_different_names_are_kept(ask: Ask) -> None:
    given = [{"accountHandle": "a"}, {"workspaceHandle": "w"}, {"description": "d"}, {"workspaceName": "n"}]
    await asyncio.gather(*(do(ask, "updateWorkspace", "UpdateWorkspaceInput", UPDATED, **each) for each in given))
    found = (await ask(f"{{ workspace {{ {FIELDS} }} }}"))["workspace"]

    assert (found["handle"], found["description"], found["workspaceName"]) == ("a/w", "d", "n")


async def test_invalid_names_are_refused(ask: Ask) -> None:
    for field, value in (("accountHandle", "A b"), ("workspaceName", None)):
        refused = await do(ask, "updateWorkspace", "UpdateWorkspaceInput", UPDATED, **{field: value})
        assert (refused["__typename"], refused["path"]) == ("InvalidInput", [field])


async def test_the_settings_of_the_server_are_not_deleted(ask: Ask) -> None:
    key = 'query { configuration(key: "runstate.workspace") { id } }'
    found = (await ask(key))["configuration"]
    document = "mutation($id: ID!) { deleteConfiguration(id: $id) { __typename } }"

    assert (await ask(document, id=found["id"]))["deleteConfiguration"] == {"__typename": "NotFound"}
    assert (await ask(key))["configuration"] == found
