// The last good run of the same flow, moved to the start of the run that is shown.
import type { LastGoodQuery } from "./documents.ts";
import type { TimedState } from "./timeline.ts";

export type Good = LastGoodQuery["flowRuns"]["nodes"][number];

type Keyed = { taskKey: string; dynamicKey: string };

const moved = (states: readonly TimedState[], by: number): TimedState[] =>
  states.map((state) => ({ ...state, timestamp: new Date(Date.parse(state.timestamp) + by).toISOString() }));

/** The states of the good run, or of its task run with the same keys, as if it had started with this run. */
export function ghostOf(good: Good | undefined, startTime: string | null, task?: Keyed): TimedState[] | undefined {
  if (!good?.startTime || !startTime) return undefined;
  const by = Date.parse(startTime) - Date.parse(good.startTime);
  if (!task) return moved(good.states.nodes, by);
  const same = good.taskRuns.nodes.filter(({ taskKey }) => taskKey === task.taskKey);
  const found = same.find(({ dynamicKey }) => dynamicKey === task.dynamicKey) ?? same[0];
  return found && moved(found.states.nodes, by);
}
