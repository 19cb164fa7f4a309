// Work pools with their queues and workers.
import { PoolsDocument, type PoolsQuery } from "./documents.ts";
import { Ago, Empty, Items } from "./parts.tsx";
import { useQuery } from "./query.ts";
import { href } from "./router.ts";
import { useTitle } from "./shell.tsx";

type Pool = PoolsQuery["workPools"]["nodes"][number];

export function Pools() {
  useTitle("Work pools");
  const query = useQuery(PoolsDocument, {}, { main: true, gap: 2000, matters: ({ runKind }) => runKind === "FLOW_RUN", events: ["runstate.work-*"] });
  return (
    <>
      <h1>Work pools</h1>
      <Items query={query} of={({ workPools }) => workPools.nodes} empty="No work pools. createWorkPool makes one.">
        {(pool) => <OnePool pool={pool} />}
      </Items>
    </>
  );
}

const SHAPES: Record<string, [shape: string, tone: string]> = {
  READY: ["✓", "is-completed"],
  ONLINE: ["✓", "is-completed"],
  PAUSED: ["‖", "is-paused"],
  NOT_READY: ["✗", "is-failed"],
  OFFLINE: ["✗", "is-failed"],
};

function Status({ status }: { status: string }) {
  const [shape, tone] = SHAPES[status] ?? ["·", ""];
  return (
    <span class={`state ${tone}`}>
      <i aria-hidden="true">{shape}</i> {status.toLowerCase().replace("_", " ")}
    </span>
  );
}

const used = (slots: number, limit: number | null) => `${slots} of ${limit ?? "∞"}`;

function OnePool({ pool: { name, type, status, description, slotsInUse, concurrencyLimit, workQueues, workers } }: { pool: Pool }) {
  return (
    <>
      <h2>
        <span>{name}</span> <Status status={status} />
        <span class="faint">{type}</span>
        <span>{used(slotsInUse, concurrencyLimit)} slots</span>
        <a href={href(["runs"], { pool: name })}>runs</a>
        {description && <span class="faint">{description}</span>}
      </h2>
      <div class="columns">
        <table>
          <thead>
            <tr>
              <th scope="col">queue</th>
              <th scope="col">status</th>
              <th scope="col" class="number">
                priority
              </th>
              <th scope="col" class="number">
                slots
              </th>
              <th scope="col" class="number">
                late
              </th>
              <th scope="col">polled</th>
            </tr>
          </thead>
          <tbody>
            {workQueues.nodes.map((queue) => (
              <tr key={queue.id}>
                <th scope="row">
                  <a href={href(["runs"], { pool: name, queue: queue.name })}>{queue.name}</a>
                </th>
                <td>
                  <Status status={queue.status} />
                </td>
                <td class="number">{queue.priority}</td>
                <td class="number">{used(queue.slotsInUse, queue.concurrencyLimit)}</td>
                <td class={queue.health.lateRunsCount ? "number warning" : "number"}>{queue.health.lateRunsCount}</td>
                <td>
                  <Ago time={queue.lastPolled} />
                </td>
              </tr>
            ))}
          </tbody>
        </table>
        {workers.nodes.length ? (
          <table>
            <thead>
              <tr>
                <th scope="col">worker</th>
                <th scope="col">status</th>
                <th scope="col">last heartbeat</th>
              </tr>
            </thead>
            <tbody>
              {workers.nodes.map((worker) => (
                <tr key={worker.id}>
                  <th scope="row">{worker.name}</th>
                  <td>
                    <Status status={worker.status} />
                  </td>
                  <td>
                    <Ago time={worker.lastHeartbeatTime} />
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        ) : (
          <Empty>No workers.</Empty>
        )}
      </div>
    </>
  );
}
