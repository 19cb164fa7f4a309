"""Operations on the IP allowlist, of which there is only one."""

from typing import Any

from tests.oracle.stores import Answer, Step, Stores, operation

ACCESS = "query($address: String) { it: myIpAccess(address: $address) { allowed } }"


async def _set(play: Stores, entries: list[Any]) -> Any:
    given = [{"ipNetwork": each["network"], "enabled": each.get("enabled", True)} for each in entries]
    fields = "{ entries { ipNetwork } }"
    answer = await play.ask(
        "mutation($input: SetIPAllowlistInput!) { it: setIpAllowlist(input: $input) { __typename "
        f"... on InvalidInput {{ path }} ... on SetIPAllowlistPayload {{ ipAllowlist {fields} }} }} }}",
        input={"enforced": False, "force": True, "entries": given},
    )
    return answer["ipAllowlist"]["entries"]


@operation
async def ip_entry(play: Stores, step: Step) -> Answer:
    """Set a network."""
    (entry,) = await _set(play, [{"network": step["network"]}])
    return {"ok": True, "network": entry["ipNetwork"]}


@operation
async def ip_access(play: Stores, step: Step) -> Answer:
    """Ask about addresses."""
    await _set(play, step["entries"])
    return {"allowed": [(await play.ask(ACCESS, address=each))["allowed"] for each in step["addresses"]]}
