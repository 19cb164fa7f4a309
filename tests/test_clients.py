"""docs/clients.md: its examples are generated, compiled and run against a server."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
import venv
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest

from tests.client import Ask
from tests.graphql.mutations import make_flow_run, propose
from tests.node import BIN, Packages, alone, lacking
from tests.subscribing import Listening, asking, listening

ROOT = Path(__file__).parent.parent
SNIPPET = re.compile(r"^```\w+ (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SNIPPETS = dict(SNIPPET.findall((ROOT / "docs" / "clients.md").read_text()))
ARIADNE = ("ariadne-codegen[subscriptions]==0.19.0", "graphql-core<3.3")
STRICT = (
    *("--strict", "--noEmit", "--skipLibCheck", "--allowImportingTsExtensions"),
    *("--target", "es2022", "--module", "nodenext", "--types", "node"),
)
STAND_IN = f"""#!{sys.executable}
# A replacement of websocat with these options, used if it is not installed.
import sys
import websockets.sync.client as client
options, protocol, url = sys.argv[1:3], sys.argv[3], sys.argv[4]
assert options == ["--no-close", "--protocol"], options
with client.connect(url, subprotocols=[protocol]) as socket:
    for line in sys.stdin:
        socket.send(line)
    for message in socket:
        print(message, flush=True)
"""


@pytest.fixture
def kind() -> str:
    """Return `sqlite`: these tests do not depend on the database."""
    return "sqlite"


@pytest.fixture
async def server(url: str) -> AsyncIterator[Listening]:
    """Yield a server in this process."""
    async with listening(url) as server:
        yield server


@pytest.fixture
async def live(server: Listening) -> AsyncIterator[Ask]:
    """Yield a client of the server over HTTP."""
    async with asking(server) as live:
        yield live


@dataclass(frozen=True, slots=True)
class Workshop:
    """A directory with the schema and the page's examples as files."""

    directory: Path
    environment: dict[str, str]

    async def run(self, *command: str | Path) -> str:
        """Return the output of a command; AssertionError: it failed."""
        async with self.started(*command) as process, asyncio.timeout(120):
            output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()
        return output.decode()

    @asynccontextmanager
    async def started(self, *command: str | Path) -> AsyncIterator[asyncio.subprocess.Process]:
        """Yield a running command; its process group is killed at the end."""
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=self.directory,
            env=self.environment,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                os.killpg(process.pid, 9)
            await process.communicate()


@pytest.fixture
def workshop(tmp_path: Path, server: Listening, clients: Packages) -> Workshop:
    """Return a directory with the page's examples."""
    place = server.address.removesuffix("/graphql")
    for name, text in SNIPPETS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text.replace("127.0.0.1:4200", place))
    shutil.copy(ROOT / "schema.graphql", tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "node_modules").symlink_to(clients.directory / "node_modules")
    return Workshop(tmp_path, {**clients.environment, "PYTHONPATH": str(tmp_path)})


async def line(process: asyncio.subprocess.Process) -> str:
    """Return the next line of a process."""
    assert process.stdout
    async with asyncio.timeout(60):
        return (await process.stdout.readline()).decode().strip()


def test_every_example_is_run() -> None:
    mine = Path(__file__).read_text()
    assert [name for name in SNIPPETS if f'"{name}"' not in mine] == []


async def test_curl_sends_a_query(workshop: Workshop, live: Ask) -> None:
    await make_flow_run(live, name="otter")
    answer = orjson.loads(await workshop.run("sh", "ask.sh"))

    assert answer["data"]["flowRuns"]["nodes"] == [{"name": "otter", "stateName": "Pending"}]


async def test_curl_receives_events(workshop: Workshop, live: Ask) -> None:
    async with workshop.started("sh", "events.sh") as process:
        assert await line(process) == "event: next"
        assert '"runCounts":[]' in await line(process)
        await make_flow_run(live)
        while "Pending" not in (said := await line(process)):
            assert said in {"", "event: next", ":"}


async def test_websocat_receives_events(workshop: Workshop) -> None:
    if not shutil.which("websocat"):
        (workshop.directory / "websocat").write_text(STAND_IN)
        (workshop.directory / "websocat").chmod(0o755)
    workshop.environment["PATH"] += f"{os.pathsep}{workshop.directory}"
    async with workshop.started("sh", "socket.sh") as process:
        assert orjson.loads(await line(process)) == {"type": "connection_ack"}
        event = orjson.loads(await line(process))

    assert event == {"type": "next", "id": "1", "payload": {"data": {"runCounts": []}}}


@pytest.mark.parametrize("command", [(sys.executable, "follow.py"), (BIN / "node", "follow.ts")], ids=["py", "ts"])
async def test_a_follower_misses_nothing(
    workshop: Workshop, server: Listening, command: tuple[str | Path, str]
) -> None:
    async with asking(server) as ask:
        run = await make_flow_run(ask)
    async with workshop.started(*command) as process:
        while not server.hub.subscribers:
            await server.hub.join()
            await asyncio.sleep(0)
        seen: list[str] = []
        for state in ("RUNNING", "PENDING", "RUNNING"):
            async with asking(server) as ask:
                await propose(ask, run, state, force=True)
            seen.append(await line(process))
            for connection in list(server.server_state.connections):
                connection.transport.abort()

    assert seen == ["2 Running", "3 Pending", "4 Running"]


def ariadne() -> Path:
    """Return the programs of an environment with ariadne-codegen, which needs an older graphql-core than the server."""
    home = ROOT / "build" / "ariadne-codegen"
    home.mkdir(parents=True, exist_ok=True)
    stamp = home / "installed"
    with alone(home):
        if not stamp.exists() or stamp.read_text() != "\n".join(ARIADNE):
            venv.create(home, with_pip=True, clear=True)
            install = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", *ARIADNE]
            done = subprocess.run(install, capture_output=True, text=True, check=False)  # noqa: S603
            if done.returncode:
                lacking(f"ariadne-codegen cannot be installed here: {done.stderr[-500:]}")
            stamp.write_text("\n".join(ARIADNE))
    return home / "bin"


async def test_ariadne_codegen_generates_a_working_client(workshop: Workshop, live: Ask) -> None:
    programs = ariadne()
    (workshop.directory / "relay").rename(workshop.directory / "other")
    await make_flow_run(live)
    assert {"pyproject.toml", "queries.graphql", "typed.py"} <= set(SNIPPETS)
    await workshop.run(programs / "ariadne-codegen")

    said = await workshop.run(programs / "python", "typed.py")

    assert said.split("\n") == ["ACCEPT", "ACCEPT", "1 Pending", "2 Running", "3 Completed", ""]


async def test_code_generator_generates_correct_types(workshop: Workshop, live: Ask) -> None:
    await make_flow_run(live)
    await workshop.run("graphql-codegen", "--config", "codegen.ts")
    await workshop.run(
        "tsc", *STRICT, "--allowImportingTsExtensions", "codegen.ts", "runs.ts", "follow.ts", "apollo.ts"
    )

    said = await workshop.run("node", "runs.ts")

    told = [
        {"version": version, "stateName": name} for version, name in enumerate(("Pending", "Running", "Completed"), 1)
    ]
    lines = said.splitlines()
    assert lines[:2] == ["ACCEPT", "ACCEPT"]
    assert [orjson.loads(each)["runTransitions"] for each in lines[2:]] == told


async def test_apollo_client_sends_queries_mutations_and_subscriptions(workshop: Workshop, live: Ask) -> None:
    run = await make_flow_run(live)
    said = await workshop.run("node", "apollo.ts")

    mutated, told = map(orjson.loads, said.splitlines())
    assert mutated["cancelFlowRun"]["run"] == {"__typename": "FlowRun", "id": run, "stateName": "Cancelling"}
    assert told["flowRun"]["stateName"] == "Cancelling"


async def test_urql_sends_queries_and_subscriptions(workshop: Workshop, live: Ask) -> None:
    await make_flow_run(live, name="otter")
    await workshop.run("tsc", *STRICT, "urql.ts")

    asked, told = map(orjson.loads, (await workshop.run("node", "urql.ts")).splitlines())

    assert asked["flowRuns"]["nodes"] == [{"name": "otter", "stateName": "Pending"}]
    assert told["runCounts"] == [{"stateName": "Pending", "count": 1}]


GET = """
import { Client, fetchExchange } from "@urql/core";
const headers = { "GraphQL-Require-Preflight": "1" };
const url = "http://127.0.0.1:4200/graphql";
const ask = async (options: object) => {
  const client = new Client({ url, exchanges: [fetchExchange], ...options });
  const { data, error } = await client.query("{ __typename }", {}).toPromise();
  console.log(JSON.stringify([data ?? null, error?.message ?? null]));
};
await ask({ fetchOptions: { headers } });
await ask({});
"""


async def test_urql_sends_queries_with_get_if_the_header_is_sent(workshop: Workshop, server: Listening) -> None:
    place = server.address.removesuffix("/graphql")
    (workshop.directory / "get.ts").write_text(GET.replace("127.0.0.1:4200", place))

    answered, refused = map(orjson.loads, (await workshop.run("node", "get.ts")).splitlines())

    assert answered == [{"__typename": "Query"}, None]
    assert "GraphQL-Require-Preflight" in refused[1]


PERSISTED = """
import { createHash } from "node:crypto";
import { ApolloClient, HttpLink, InMemoryCache, gql } from "@apollo/client";
import { PersistedQueryLink } from "@apollo/client/link/persisted-queries";
const bodies: string[] = [];
const counted: typeof fetch = (url, options) => { bodies.push(String(options!.body)); return fetch(url, options); };
const persisted = new PersistedQueryLink({ sha256: (text) => createHash("sha256").update(text).digest("hex") });
const link = persisted.concat(new HttpLink({ uri: "http://127.0.0.1:4200/graphql", fetch: counted }));
const client = new ApolloClient({ link, cache: new InMemoryCache() });
for (const query of [gql`query A { a: flowRunCount }`, gql`query B { b: transitionCursor }`])
  console.log(JSON.stringify((await client.query({ query })).data));
console.log(JSON.stringify(bodies.map((body) => "query" in JSON.parse(body))));
"""


async def test_apollos_persisted_query_link_falls_back_to_documents(workshop: Workshop, server: Listening) -> None:
    place = server.address.removesuffix("/graphql")
    (workshop.directory / "persisted.ts").write_text(PERSISTED.replace("127.0.0.1:4200", place))

    first, second, documents = map(orjson.loads, (await workshop.run("node", "persisted.ts")).splitlines())

    assert first == {"a": 0}
    assert second["b"]
    assert documents == [False, True, True]


FETCH = """
import RelayRuntime from "relay-runtime";
import { environment } from "./environment.ts";
import RunsQuery from "./__generated__/RunsQuery.graphql.ts";
const data = await RelayRuntime.fetchQuery(environment, RunsQuery, { first: 1 }).toPromise();
const runs = environment.getStore().getSource().toJSON();
console.log(JSON.stringify(Object.values(runs).filter((each) => each.__typename === "FlowRun")));
"""


async def test_relay_compiles_and_sends_queries(workshop: Workshop, live: Ask) -> None:
    run = await make_flow_run(live, name="otter")
    assert {"relay.config.json", "relay/environment.ts", "relay/Runs.ts"} <= set(SNIPPETS)
    (workshop.directory / "relay" / "__generated__").mkdir()
    await workshop.run("relay-compiler", "relay.config.json")
    assert len(list((workshop.directory / "relay" / "__generated__").iterdir())) == 5
    await workshop.run("tsc", *STRICT, "relay/environment.ts", "relay/Runs.ts")
    (workshop.directory / "relay" / "fetch.ts").write_text(FETCH)

    (kept,) = orjson.loads(await workshop.run("node", "relay/fetch.ts"))

    assert (kept["id"], kept["name"], kept["stateName"]) == (run, "otter", "Pending")


async def test_the_schema_passes_its_linter(workshop: Workshop) -> None:
    assert "0 errors detected" in await workshop.run("graphql-schema-linter", "schema.graphql")
