// Task runs as a table, and grouped by task if there are many.
import { useState } from "preact/hooks";
import { ask } from "./client.ts";
import { TaskGroupsDocument, TaskPageDocument } from "./documents.ts";
import { duration, plural } from "./format.ts";
import { Empty, Loaded, RunLink, State } from "./parts.tsx";
import { useQuery } from "./query.ts";
import { setParams } from "./router.ts";
import type { OneRun, TaskRun } from "./run.tsx";
import { lookOf, TYPES, toneOf } from "./states.ts";
import { isFailure } from "./timeline.ts";

/** The key of the task, which says more than a name that was made up from it; with the dynamic key where it has several runs. */
export function labelOf({ name, taskKey, dynamicKey }: TaskRun, tasks: readonly TaskRun[]): string {
  if (!name.startsWith(`${taskKey}-`)) return name;
  return tasks.filter((each) => each.taskKey === taskKey).length > 1 ? `${taskKey} ${dynamicKey}` : taskKey;
}

export function TaskTable({ tasks }: { tasks: readonly TaskRun[] }) {
  if (!tasks.length) return <Empty>No task runs.</Empty>;
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label="Task runs">
      <table>
        <thead>
          <tr>
            <th scope="col">task run</th>
            <th scope="col">state</th>
            <th scope="col" class="number">
              ran
            </th>
            <th scope="col" class="wide number">
              attempts
            </th>
            <th scope="col" class="wide">
              runs
            </th>
            <th scope="col">why</th>
          </tr>
        </thead>
        <tbody>
          {tasks.map((task) => (
            <tr key={task.id}>
              <th scope="row">
                <button type="button" class="link" onClick={() => setParams({ task: task.id })}>
                  {labelOf(task, tasks)}
                </button>
              </th>
              <td>
                <State run={task} />
              </td>
              <td class="number">{duration(task.totalRunTimeSeconds)}</td>
              <td class="wide number">{task.runCount}</td>
              <td class="wide">{task.childFlowRun && <RunLink run={task.childFlowRun} flow={false} />}</td>
              <td class="why-cell">{task.lastAnswer?.reason ?? lastFailure(task)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

const lastFailure = (task: TaskRun) => task.states.nodes.findLast(isFailure)?.message ?? task.states.nodes.at(-1)?.message ?? "";

/** One line for each task: how many runs in which state, and how long they took. */
export function Groups({ run }: { run: OneRun }) {
  const query = useQuery(TaskGroupsDocument, { id: run.id }, { gap: 1000, matters: ({ flowRunId }) => flowRunId === run.id });
  return (
    <Loaded query={query}>
      {({ taskRunCounts, taskRunStatistics }) => (
        <ul class="groups">
          {grouped(taskRunCounts).map(([task, states]) => {
            const { p50, p95, max } = taskRunStatistics.find(({ taskKey }) => taskKey === task)?.runTimeSeconds ?? {};
            const times = `p50 ${duration(p50)} · p95 ${duration(p95)} · max ${duration(max)}`;
            const count = states.reduce((sum, each) => sum + each.count, 0);
            return <Group key={task} run={run.id} task={task} count={count} times={times} states={states} />;
          })}
        </ul>
      )}
    </Loaded>
  );
}

type Counted = { taskKey: string | null; stateType: string | null; count: number };

function grouped(counts: readonly Counted[]): [task: string, states: Counted[]][] {
  const groups = new Map<string, Counted[]>();
  for (const each of counts) groups.set(each.taskKey ?? "", [...(groups.get(each.taskKey ?? "") ?? []), each]);
  return [...groups].sort(([a], [b]) => a.localeCompare(b, undefined, { numeric: true }));
}

type GroupProps = { run: string; task: string; count: number; times: string; states: Counted[] };

function Group({ run, task, count, times, states }: GroupProps) {
  const [tasks, setTasks] = useState<TaskRun[]>([]);
  const [after, setAfter] = useState<string | null>(null);
  const more = async () => {
    const where = { flowRunId: { eq: run }, taskKey: { eq: task } };
    const { taskRuns } = await ask(TaskPageDocument, { where, after });
    setTasks((before) => [...before, ...taskRuns.nodes]);
    setAfter(taskRuns.pageInfo.hasNextPage ? taskRuns.pageInfo.endCursor : null);
  };
  const sorted = [...states].sort((a, b) => TYPES.indexOf(a.stateType ?? "") - TYPES.indexOf(b.stateType ?? ""));
  return (
    <li>
      <details onToggle={(event) => event.currentTarget.open && !tasks.length && void more()}>
        <summary>
          <b>{task}</b>
          <span class="share" aria-hidden="true">
            {sorted.map((each) => (
              <span key={each.stateType} class={`fill ${toneOf(each.stateType)}`} style={{ width: `${(100 * each.count) / count}%` }} />
            ))}
          </span>
          <span>{plural(count, "run")}</span>
          <span class="states-said">
            {sorted.map((each) => (
              <span key={each.stateType} class={`state ${toneOf(each.stateType)}`}>
                <i aria-hidden="true">{lookOf(each.stateType).shape}</i> {each.count.toLocaleString("en")} {lookOf(each.stateType).label}
              </span>
            ))}
          </span>
          <span class="faint">{times}</span>
        </summary>
        {tasks.length > 0 && <TaskTable tasks={tasks} />}
        {after && (
          <button type="button" onClick={() => void more()}>
            100 more
          </button>
        )}
      </details>
    </li>
  );
}
