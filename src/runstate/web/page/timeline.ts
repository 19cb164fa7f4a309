// A bar of a run, made of its states, so that each attempt shows.
export type TimedState = {
  version: number;
  type: string;
  name: string;
  timestamp: string;
  message?: string | null;
  decision?: { proposed?: { type: string } | null } | null;
};

export type Part = "waiting" | "running" | "retrying" | "retry-wait" | "paused" | "cancelling";
export type Segment = { part: Part; from: number; to: number; state: TimedState; open: boolean };
export type Mark = { at: number; state: TimedState; failed: boolean };
export type Bar = { segments: Segment[]; marks: Mark[]; attempts: number; from: number; to: number };

const FINAL = new Set(["COMPLETED", "FAILED", "CANCELLED", "CRASHED"]);

function partOf(state: TimedState, attempts: number): Part {
  if (state.type === "RUNNING") return attempts > 1 || state.name === "Retrying" ? "retrying" : "running";
  if (state.type === "PAUSED") return "paused";
  if (state.type === "CANCELLING") return "cancelling";
  return state.name === "AwaitingRetry" ? "retry-wait" : "waiting";
}

const BAD = new Set(["FAILED", "CRASHED"]);

/** Whether an attempt failed here: a final state, or one that the rules wrote instead, to retry. */
export const isFailure = ({ type, decision }: TimedState): boolean =>
  BAD.has(type) || (type === "SCHEDULED" && BAD.has(decision?.proposed?.type ?? ""));

/** Return the bar of a run with states in the order of their versions. The last one lasts until now. */
export function bar(states: readonly TimedState[], now: number): Bar {
  const segments: Segment[] = [];
  const marks: Mark[] = [];
  let attempts = 0;
  states.forEach((state, index) => {
    const from = Date.parse(state.timestamp);
    const next = states[index + 1];
    if (state.type === "RUNNING") attempts += 1;
    if (isFailure(state)) marks.push({ at: from, state, failed: true });
    else if (FINAL.has(state.type)) marks.push({ at: from, state, failed: false });
    if (FINAL.has(state.type)) return;
    const to = next ? Date.parse(next.timestamp) : Math.max(now, from);
    segments.push({ part: partOf(state, attempts), from, to, state, open: !next });
  });
  const times = [...segments.flatMap(({ from, to }) => [from, to]), ...marks.map(({ at }) => at)];
  return { segments, marks, attempts, from: Math.min(...times), to: Math.max(...times) };
}

const STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500];
const SECOND = 1000;
const LONG = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800].map(
  (seconds) => seconds * SECOND,
);

/** Return about `count` round times between two instants. */
export function ticks(from: number, to: number, count: number): number[] {
  const wanted = (to - from) / count;
  const step = [...STEPS, ...LONG].find((each) => each >= wanted) ?? wanted;
  const first = Math.ceil(from / step) * step;
  return Array.from({ length: Math.max(0, Math.floor((to - first) / step) + 1) }, (_, index) => first + index * step);
}

type Changed = { runId: string; version: number; occurred: string; stateType: string; stateName: string; message?: string | null };

/** Add the states that are known from transitions only; the next answer of the server replaces them. */
export function withChanges<State extends TimedState>(states: readonly State[], changes: readonly Changed[]): (State | TimedState)[] {
  const last = states.at(-1)?.version ?? 0;
  const newer = changes
    .filter(({ version }) => version > last)
    .sort((a, b) => a.version - b.version)
    .map(({ version, occurred, stateType, stateName, message }) => ({ version, type: stateType, name: stateName, timestamp: occurred, message }));
  return [...states, ...newer];
}

/** Assign each node a column: one more than the last of the nodes that it depends on. */
export function layers(nodes: readonly { id: string; parents: readonly string[] }[]): Map<string, number> {
  const known = new Map(nodes.map((node) => [node.id, node]));
  const found = new Map<string, number>();
  const visit = (id: string, path: ReadonlySet<string>): number => {
    const before = found.get(id);
    if (before !== undefined) return before;
    const parents = (known.get(id)?.parents ?? []).filter((each) => known.has(each) && !path.has(each));
    const layer = Math.max(-1, ...parents.map((each) => visit(each, new Set([...path, id])))) + 1;
    found.set(id, layer);
    return layer;
  };
  for (const { id } of nodes) visit(id, new Set());
  return found;
}
