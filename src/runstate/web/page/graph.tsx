// The task runs by their dependencies: layers from left to right.
import { duration } from "./format.ts";
import { Empty } from "./parts.tsx";
import { setParams } from "./router.ts";
import type { TaskRun } from "./run.tsx";
import { lookOf, toneOf } from "./states.ts";
import { labelOf } from "./tasks.tsx";
import { layers } from "./timeline.ts";

const WIDTH = 190;
const GAP = 50;
const HEIGHT = 40;
const STEP = 54;

type Placed = { task: TaskRun; parents: string[]; x: number; y: number };

export function placed(tasks: readonly TaskRun[]): Map<string, Placed> {
  const nodes = tasks.map((task) => ({ task, id: task.id, parents: parentsOf(task) }));
  const columns = layers(nodes);
  const rows = new Map<number, number>();
  return new Map(
    nodes.map(({ task, id, parents }) => {
      const column = columns.get(id) ?? 0;
      const row = rows.get(column) ?? 0;
      rows.set(column, row + 1);
      return [id, { task, parents, x: column * (WIDTH + GAP), y: row * STEP }];
    }),
  );
}

const parentsOf = (task: TaskRun) => task.arguments.flatMap(({ inputs }) => inputs.flatMap((input) => ("id" in input ? [input.id] : [])));

export function Graph({ tasks, more }: { tasks: readonly TaskRun[]; more: boolean }) {
  if (!tasks.length) return <Empty>No task runs.</Empty>;
  const nodes = placed(tasks);
  const width = Math.max(...[...nodes.values()].map(({ x }) => x)) + WIDTH;
  const height = Math.max(...[...nodes.values()].map(({ y }) => y)) + HEIGHT;
  return (
    <>
      {more && <p class="faint">The first {tasks.length} task runs.</p>}
      <div class="scroll" tabIndex={0} role="region" aria-label="Graph of the task runs">
        <div class="graph" style={{ width: `${width}px`, height: `${height}px` }}>
          <svg width={width} height={height} aria-hidden="true">
            {[...nodes.values()].flatMap((node) =>
              node.parents.map((id) => {
                const parent = nodes.get(id);
                return parent && <path key={`${id}${node.task.id}`} d={edge(parent, node)} />;
              }),
            )}
          </svg>
          {[...nodes.values()].map(({ task, x, y }) => (
            <button
              key={task.id}
              type="button"
              class={`node ${toneOf(task.stateType)}`}
              style={{ left: `${x}px`, top: `${y}px` }}
              onClick={() => setParams({ task: task.id })}
            >
              <i aria-hidden="true">{lookOf(task.stateType).shape}</i>
              <span>{labelOf(task, tasks)}</span>
              <small>{duration(task.totalRunTimeSeconds)}</small>
            </button>
          ))}
        </div>
      </div>
    </>
  );
}

function edge(from: Placed, to: Placed): string {
  const [x1, y1, x2, y2] = [from.x + WIDTH, from.y + HEIGHT / 2, to.x, to.y + HEIGHT / 2];
  const middle = (x1 + x2) / 2;
  return `M${x1} ${y1}C${middle} ${y1} ${middle} ${y2} ${x2} ${y2}`;
}
