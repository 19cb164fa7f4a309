import { describe, expect, it, vi } from "vitest";

vi.stubGlobal("localStorage", { getItem: () => null, setItem: () => {} });
const { orderOf, whereOf } = await import("./filters.ts");
const { eventsWhere, patternsOf } = await import("./event_filters.ts");
const { href, parse } = await import("./router.ts");
const { duration, relative } = await import("./format.ts");

describe("the filter of events", () => {
  it("is a condition, and patterns of names to follow", () => {
    const params = { name: "order.*,runstate.flow-run.Failed", resource: "order.17", event: "e", sort: "x" };
    expect(eventsWhere(params)).toEqual({ and: [{ nameMatches: ["order.*", "runstate.flow-run.Failed"] }, { anyResource: { resourceId: { in: ["order.17"] } } }] });
    expect(patternsOf(params)).toEqual(["order.*", "runstate.flow-run.Failed"]);
    expect([eventsWhere({}), patternsOf({})]).toEqual([{}, []]);
  });
});

describe("the filter in the address", () => {
  it("is the condition of the query", () => {
    expect(whereOf({ state: "failed,crashed", flow: "etl", ended: "1h" })).toEqual({
      and: [{ stateType: { in: ["FAILED", "CRASHED"] } }, { flow: { name: { in: ["etl"] } } }, { endTime: { secondsAgo: { lte: 3600 } } }],
    });
  });

  it("has no condition without parameters, and ignores what it does not know", () => {
    expect(whereOf({})).toEqual({});
    expect(whereOf({ tab: "logs", where: "{" })).toEqual({});
  });

  it("takes names of states and any condition of the API", () => {
    expect(whereOf({ state: "Late" })).toEqual({ or: [{ stateType: { in: [] } }, { stateName: { in: ["Late"] } }] });
    expect(whereOf({ where: '{"runCount":{"gt":1}}' })).toEqual({ runCount: { gt: 1 } });
  });

  it("survives the way through an address", () => {
    const params = { state: "failed,crashed", where: '{"name":{"contains":"a&b=c?#"}}' };
    expect(parse(href(["runs"], params))).toEqual({ path: ["runs"], params });
    expect(parse(href(["flows", "a/b c"]))).toEqual({ path: ["flows", "a/b c"], params: {} });
  });

  it("sorts by a known field only", () => {
    expect(orderOf("-endTime")).toEqual([{ endTime: "DESC" }]);
    expect(orderOf("nothing")).toEqual([{ expectedStartTime: "DESC" }]);
  });
});

describe("a duration", () => {
  it("has at most two units", () => {
    expect([0.0123, 3.25, 59, 61, 3725, 90_000, 172_800].map(duration)).toEqual(["12 ms", "3.3 s", "59 s", "1 m 1 s", "1 h 2 m", "1 d 1 h", "2 d"]);
  });

  it("is relative to the present", () => {
    const now = Date.parse("2026-01-01T12:00:00Z");
    expect(["2026-01-01T11:57:30Z", "2026-01-01T13:30:00Z", "2026-01-01T12:00:00Z"].map((time) => relative(time, now))).toEqual([
      "2 m ago",
      "in 1 h 30 m",
      "now",
    ]);
  });
});
