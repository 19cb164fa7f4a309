import { describe, expect, it } from "vitest";
import { ghostOf } from "./compare.ts";
import { bar, layers, ticks, withChanges } from "./timeline.ts";

const at = (seconds: number) => new Date(1_767_225_600_000 + seconds * 1000).toISOString();
const now = Date.parse(at(100));
const state = (version: number, type: string, seconds: number, name = type, proposed = type) => ({
  version,
  type,
  name,
  timestamp: at(seconds),
  decision: { proposed: { type: proposed } },
});

describe("the bar of a run", () => {
  it("shows each attempt, the waits between them and where each failed", () => {
    const shown = bar(
      [
        state(1, "PENDING", 0),
        state(2, "RUNNING", 1),
        state(3, "SCHEDULED", 4, "AwaitingRetry", "FAILED"),
        state(4, "RUNNING", 6, "Retrying"),
        state(5, "FAILED", 9),
      ],
      now,
    );
    expect(shown.segments.map(({ part, from, to }) => [part, (to - from) / 1000])).toEqual([
      ["waiting", 1],
      ["running", 3],
      ["retry-wait", 2],
      ["retrying", 3],
    ]);
    expect(shown.marks.map((mark) => [mark.failed, mark.state.version])).toEqual([
      [true, 3],
      [true, 5],
    ]);
    expect(shown.attempts).toBe(2);
  });

  it("lasts until now while the run has not ended", () => {
    const [segment] = bar([state(1, "RUNNING", 40)], now).segments;
    expect(segment).toMatchObject({ open: true, to: now });
  });

  it("does not take the retry of a run by its user for a failure", () => {
    const retried = { ...state(2, "SCHEDULED", 2, "AwaitingRetry"), decision: { proposed: null } };
    expect(bar([state(1, "COMPLETED", 1), retried], now).marks.map(({ failed }) => failed)).toEqual([false]);
  });

  it("includes states that are known from transitions only, once", () => {
    const known = [state(1, "PENDING", 0)];
    const change = (version: number) => ({ runId: "a", version, occurred: at(version), stateType: "RUNNING", stateName: "Running" });
    expect(withChanges(known, [change(3), change(1), change(2)]).map(({ version }) => version)).toEqual([1, 2, 3]);
  });
});

it("the axis has round times", () => {
  expect(ticks(Date.parse(at(3)), Date.parse(at(63)), 6).map((time) => (time - Date.parse(at(0))) / 1000)).toEqual([10, 20, 30, 40, 50, 60]);
});

it("a node is to the right of all that it depends on", () => {
  const nodes = [
    { id: "d", parents: ["b", "c"] },
    { id: "a", parents: [] },
    { id: "b", parents: ["a"] },
    { id: "c", parents: ["b"] },
  ];
  expect([...layers(nodes)].sort()).toEqual([
    ["a", 0],
    ["b", 1],
    ["c", 2],
    ["d", 3],
  ]);
});

it("a compared run is moved to the same start, and its task runs are found by their keys", () => {
  const states = (seconds: number) => ({ nodes: [{ version: 1, type: "RUNNING", name: "Running", timestamp: at(seconds) }] }) as never;
  const task = (dynamicKey: string, seconds: number) => ({ taskKey: "load", dynamicKey, states: states(seconds) });
  const good = { id: "g", name: "g", startTime: at(10), states: states(10), taskRuns: { nodes: [task("0", 12), task("1", 14)] } };
  expect(ghostOf(good, at(50))?.[0]?.timestamp).toBe(at(50));
  expect(ghostOf(good, at(50), { taskKey: "load", dynamicKey: "1" })?.[0]?.timestamp).toBe(at(54));
  expect(ghostOf(good, at(50), { taskKey: "other", dynamicKey: "0" })).toBeUndefined();
  expect(ghostOf(good, null)).toBeUndefined();
});
