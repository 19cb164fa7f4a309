// The filter of the list of runs: the address, its chips, and the condition of the query are one and the same.
import type { FlowRunOrderBy, FlowRunWhere, StateType } from "./documents.ts";
import { secondsOf } from "./format.ts";
import type { Params } from "./router.ts";
import { TYPES } from "./states.ts";

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
export const list = (text: string) => text.split(",").map((each) => each.trim()).filter(Boolean);
export const since = (text: string) => {
  const seconds = secondsOf(text);
  return seconds === undefined ? undefined : { secondsAgo: { lte: seconds } };
};

function searched(text: string): FlowRunWhere {
  if (UUID.test(text)) return { id: { eq: text } };
  return { or: [{ name: { contains: text } }, { flow: { name: { contains: text } } }] };
}

type Filter<Where> = { label: string; hint: string; where: (text: string) => Where | undefined };
/** Each filter by the name of its parameter. */
export type Filters<Where> = Record<string, Filter<Where>>;

export const FILTERS: Filters<FlowRunWhere> = {
  state: {
    label: "state",
    hint: "failed,crashed",
    where: (text) => {
      const types = list(text.toUpperCase()).filter((each): each is StateType => TYPES.includes(each));
      const names = list(text).filter((each) => !TYPES.includes(each.toUpperCase()));
      if (!names.length) return { stateType: { in: types } };
      return { or: [{ stateType: { in: types } }, { stateName: { in: names } }] };
    },
  },
  flow: { label: "flow", hint: "etl", where: (text) => ({ flow: { name: { in: list(text) } } }) },
  deployment: { label: "deployment", hint: "nightly", where: (text) => ({ deployment: { name: { in: list(text) } } }) },
  tag: { label: "tag", hint: "nightly", where: (text) => ({ tags: { all: list(text) } }) },
  "not-tag": { label: "not tag", hint: "test", where: (text) => ({ tags: { none: list(text) } }) },
  "not-flow": { label: "not flow", hint: "health-check", where: (text) => ({ not: { flow: { name: { in: list(text) } } } }) },
  ended: { label: "ended in the last", hint: "1h", where: (text) => ({ endTime: since(text) ?? {} }) },
  started: { label: "started in the last", hint: "24h", where: (text) => ({ startTime: since(text) ?? {} }) },
  expected: { label: "expected in the last", hint: "24h", where: (text) => ({ expectedStartTime: since(text) ?? {} }) },
  late: {
    label: "late",
    hint: "yes",
    where: () => ({ stateType: { eq: "SCHEDULED" }, nextScheduledStartTime: { secondsAgo: { gt: 0 } } }),
  },
  longer: {
    label: "took longer than",
    hint: "10m",
    where: (text) => ({ totalRunTimeSeconds: { gt: secondsOf(text) ?? 0 } }),
  },
  message: {
    label: "message contains",
    hint: "reset",
    where: (text) => ({
      or: [
        { states: { some: { message: { contains: text } } } },
        { taskRuns: { some: { states: { some: { message: { contains: text } } } } } },
      ],
    }),
  },
  pool: { label: "work pool", hint: "default", where: (text) => ({ workQueue: { workPool: { name: { eq: text } } } }) },
  queue: { label: "work queue", hint: "default", where: (text) => ({ workQueueName: { eq: text } }) },
  q: { label: "search", hint: "etl", where: searched },
  where: { label: "condition", hint: '{"runCount": {"gt": 1}}', where: parsed },
};

function parsed(text: string): FlowRunWhere | undefined {
  try {
    return JSON.parse(text) as FlowRunWhere;
  } catch {
    return undefined;
  }
}

export function whereBy<Where extends { and?: Where[] | null | undefined }>(filters: Filters<Where>, params: Params): Where {
  const conditions = Object.entries(filters).flatMap(([name, { where }]) => {
    const text = params[name];
    const condition = text ? where(text) : undefined;
    return condition ? [condition] : [];
  });
  const [only] = conditions;
  if (!only) return {} as Where;
  return conditions.length === 1 ? only : ({ and: conditions } as Where);
}

export const whereOf = (params: Params): FlowRunWhere => whereBy(FILTERS, params);

export const SORTS: Record<string, string> = {
  "-expectedStartTime": "newest first",
  expectedStartTime: "oldest first",
  "-endTime": "ended last",
  "-startTime": "started last",
  "-totalRunTimeSeconds": "took longest",
  name: "by name",
};
export const DEFAULT_SORT = "-expectedStartTime";

export function orderOf(sort: string | undefined): FlowRunOrderBy[] {
  const text = sort && sort in SORTS ? sort : DEFAULT_SORT;
  const field = text.replace("-", "");
  return [{ [field]: text.startsWith("-") ? "DESC" : "ASC" } as unknown as FlowRunOrderBy];
}
