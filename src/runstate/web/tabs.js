// The example queries, one in each tab. Their variables are looked up on this server when the page is first opened.
const queries = import.meta.glob("./queries/*.graphql", { query: "?raw", import: "default", eager: true });
const NEWEST = "{ flows(first: 1) { nodes { id } } flowRuns(first: 1) { nodes { id } } }";
const DAY = 86_400_000;

export async function readyTabs(url) {
  const known = await variables(url);
  return Object.entries(queries).map(([, query]) => ({ query, variables: wanted(query, known) }));
}

async function variables(url) {
  const { flows, flowRuns } = await newest(url);
  const now = Date.now();
  return {
    flow: flows?.nodes[0]?.id ?? "the id of a flow",
    run: flowRuns?.nodes[0]?.id ?? "the id of a flow run",
    since: new Date(now - DAY).toISOString(),
    until: new Date(now + DAY / 24).toISOString(),
  };
}

// Without a key the lookup may fail; the variables are then placeholders.
async function newest(url) {
  const headers = { "content-type": "application/json" };
  try {
    const answer = await fetch(url, { method: "POST", headers, body: JSON.stringify({ query: NEWEST }) });
    return (await answer.json()).data ?? {};
  } catch {
    return {};
  }
}

function wanted(query, known) {
  const names = Object.keys(known).filter((name) => query.includes(`$${name}:`));
  return names.length ? JSON.stringify(Object.fromEntries(names.map((name) => [name, known[name]])), null, 2) : "";
}
