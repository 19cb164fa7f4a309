// The example queries, one in each tab, and values for their variables from this server.
const files = import.meta.glob("./queries/*.graphql", { query: "?raw", import: "default", eager: true });
const EXAMPLES = Object.values(files);
const LOOKUP = `query Lookup($since: DateTime!) {
  flow(by: { name: "hello" }) { id }
  workPools(first: 1) { nodes { name } }
  newest: flowRuns(first: 1) { nodes { id } }
  oldest: flowRuns(
    first: 1
    where: { expectedStartTime: { gte: $since } }
    orderBy: [{ expectedStartTime: ASC }]
  ) { nodes { expectedStartTime } }
}`;
const DAY = 86_400;
const LENGTHS = [60, 300, 900, 3600]; // possible lengths of an interval, in seconds
const MOST_INTERVALS = 24;

const created = {}; // ids of the flow and the run that this page created last

export const GREETING = EXAMPLES[0];

export const isExample = (query) => EXAMPLES.includes(query);

export const exampleTabs = () => EXAMPLES.map((query) => ({ query }));

// Keep the ids of created objects as variables of other examples.
export function remember(data) {
  created.flow = data?.createFlow?.flow?.id ?? created.flow;
  created.run = data?.createFlowRun?.flowRun?.id ?? created.run;
}

export async function valuesOf(url, headers = {}) {
  const now = Math.floor(Date.now() / 1000);
  const { flow, workPools, newest, oldest } = await lookup(url, headers, { since: instant(now - DAY) });
  return {
    flow: created.flow ?? flow?.id ?? "Run FirstFlow first.",
    run: created.run ?? newest?.nodes[0]?.id ?? "Run FirstRun first.",
    pool: workPools?.nodes[0]?.name ?? "demo",
    ...intervals(oldest?.nodes[0]?.expectedStartTime, now),
  };
}

// Without a key the lookup may fail; the variables are then placeholders.
async function lookup(url, headers, variables) {
  const body = JSON.stringify({ query: LOOKUP, variables });
  try {
    const answer = await fetch(url, { method: "POST", headers: { ...headers, "content-type": "application/json" }, body });
    return (await answer.json()).data ?? {};
  } catch {
    return {};
  }
}

// Intervals begin at full minutes or hours, the first one with the first run.
function intervals(oldest, now) {
  const first = oldest ? Math.min(Date.parse(oldest) / 1000, now) : now;
  const seconds = LENGTHS.find((length) => now - first < MOST_INTERVALS * length) ?? LENGTHS.at(-1);
  const since = Math.floor(first / seconds) * seconds;
  const until = (Math.floor(now / seconds) + 1) * seconds;
  return { since: instant(since), until: instant(until), seconds };
}

const instant = (seconds) => new Date(seconds * 1000).toISOString();

export function variablesOf(query, values) {
  const names = Object.keys(values).filter((name) => query.includes(`$${name}:`));
  return names.length ? JSON.stringify(Object.fromEntries(names.map((name) => [name, values[name]])), null, 2) : "";
}
