import { describe, expect, it } from "vitest";
import { type Change, changed, Store, withFirstPage } from "./store.ts";

const change = (runId: string, version: number, stateType = "RUNNING"): Change => ({
  runId,
  runKind: "FLOW_RUN",
  version,
  occurred: `2026-01-01T00:00:0${version}Z`,
  stateType,
  stateName: stateType,
});
const run = (id: string, version: number) => ({ id, version, stateType: "PENDING", stateName: "Pending", startTime: null, endTime: null });

describe("a change of a run", () => {
  it("replaces the state if its version is greater", () => {
    expect(changed(run("a", 1), change("a", 2))).toMatchObject({ version: 2, stateType: "RUNNING", startTime: "2026-01-01T00:00:02Z", endTime: null });
  });

  it("is ignored if its version is not greater", () => {
    const known = run("a", 3);
    expect(changed(known, change("a", 3))).toBe(known);
    expect(changed(known, change("a", 2))).toBe(known);
  });

  it("keeps the first start, and has an end only while the state is final", () => {
    const ended = changed(changed(run("a", 1), change("a", 2)), change("a", 3, "FAILED"));
    expect(ended).toMatchObject({ startTime: "2026-01-01T00:00:02Z", endTime: "2026-01-01T00:00:03Z" });
    expect(changed(ended, change("a", 4)).endTime).toBeNull();
    expect(changed(ended, change("a", 4)).startTime).toBe("2026-01-01T00:00:02Z");
  });
});

describe("the store", () => {
  it("ends the same in whatever order and however often changes arrive", () => {
    const changes = [change("a", 2), change("a", 3, "FAILED"), change("b", 2), change("a", 4, "SCHEDULED"), change("b", 3, "COMPLETED")];
    const orders = [changes, [...changes].reverse(), [...changes, ...changes], changes.slice(2).concat(changes.slice(0, 2))];
    for (const order of orders) {
      const store = new Store();
      for (const each of order) store.apply([each]);
      expect(store.newest(run("a", 1))).toMatchObject({ version: 4, stateType: "SCHEDULED" });
      expect(store.newest(run("b", 1))).toMatchObject({ version: 3, stateType: "COMPLETED" });
    }
  });

  it("does not make an answer of the server older", () => {
    const store = new Store();
    store.apply([change("a", 2)]);
    const answered = run("a", 5);
    expect(store.newest(answered)).toBe(answered);
  });

  it("returns the changes that were new", () => {
    const store = new Store();
    store.apply([change("a", 2)]);
    expect(store.apply([change("a", 1), change("a", 2), change("a", 3)])).toEqual([change("a", 3)]);
  });

  it("forgets the runs that changed first, beyond its limit", () => {
    const store = new Store(2);
    store.apply([change("a", 2), change("b", 2), change("c", 2), change("b", 3)]);
    expect(store.size).toBe(2);
    expect(store.newest(run("a", 1)).version).toBe(1);
    expect(store.newest(run("b", 1)).version).toBe(3);
  });
});

describe("a list whose first page is read again", () => {
  const ids = (rows: { id: string }[]) => rows.map(({ id }) => id).join("");

  it("keeps the rows that were loaded after the page", () => {
    const rows = ["a", "b", "c", "d"].map((id) => run(id, 1));
    expect(ids(withFirstPage(rows, [run("x", 1), run("a", 2), run("b", 1)]))).toBe("xabcd");
  });

  it("has each run once, also if it has moved", () => {
    const rows = ["a", "b", "c", "d"].map((id) => run(id, 1));
    expect(ids(withFirstPage(rows, [run("d", 2), run("a", 1), run("b", 1)]))).toBe("dabc");
  });

  it("begins anew if it has nothing in common with the page", () => {
    expect(ids(withFirstPage([run("a", 1)], [run("x", 1), run("y", 1)]))).toBe("xy");
    expect(ids(withFirstPage([run("a", 1)], []))).toBe("");
  });
});
