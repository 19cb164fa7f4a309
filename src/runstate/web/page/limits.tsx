// Concurrency limits: who holds slots, who waits, and since when.
import { action, release } from "./doing.ts";
import { LimitsDocument, type LimitsQuery } from "./documents.ts";
import { duration, plural, secondsSince } from "./format.ts";
import { useNow } from "./now.ts";
import { Ago, Items, RunLink } from "./parts.tsx";
import { useQuery } from "./query.ts";
import { may } from "./rights.ts";
import { href, place } from "./router.ts";
import { useTitle } from "./shell.tsx";
import { useSignal } from "./signal.ts";

type Limit = LimitsQuery["concurrencyLimits"]["nodes"][number];
type Lease = Limit["leases"]["nodes"][number];
type Waiter = Limit["waiting"]["nodes"][number];

const SUSPICIOUS = 20; // times the average after which a holder may be dead

export function Limits() {
  useTitle("Limits");
  const { params } = useSignal(place);
  const query = useQuery(LimitsDocument, {}, { main: true, gap: 700, matters: () => true, events: ["runstate.concurrency-limit.*"] });
  return (
    <>
      <h1>Limits</h1>
      <Items
        query={query}
        of={({ concurrencyLimits: { nodes } }) => [...nodes].sort((a, b) => b.waitingCount - a.waitingCount)}
        name={params.name}
        empty={
          <>
            No limits. A task with a tag is limited by the limit <code>tag:…</code>, created with createConcurrencyLimit.
          </>
        }
      >
        {(limit) => <OneLimit limit={limit} reload={query.reload} />}
      </Items>
    </>
  );
}

function OneLimit({ limit, reload }: { limit: Limit; reload: () => void }) {
  const { name, activeSlots, averageSlotOccupancySeconds: average, waitingCount, leases, waiting } = limit;
  const rights = useSignal(may);
  return (
    <>
      <h2>
        <span>{name}</span>
        <meter min={0} max={Math.max(1, limit.limit)} value={activeSlots} aria-label={`${activeSlots} of ${limit.limit} slots held`} />
        <span>
          {activeSlots} of {limit.limit}
        </span>
        {!limit.active && <span class="warning">off</span>}
        <span class="faint">held on average {duration(average)}</span>
        <span class={waitingCount ? "warning" : "faint"}>{waitingCount ? `${plural(waitingCount, "run waits", "runs wait")}` : "nobody waits"}</span>
      </h2>
      {leases.nodes.length > 0 && (
        <table>
          <thead>
            <tr>
              <th scope="col">held by</th>
              <th scope="col" class="number">
                slots
              </th>
              <th scope="col">since</th>
              <th scope="col" class="wide">
                until
              </th>
              <th scope="col">
                <span class="unseen">action</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {leases.nodes.map((lease) => (
              <Holder key={lease.id} lease={lease} average={average} free={rights.propose ? () => giveBack(lease, name, reload) : undefined} />
            ))}
          </tbody>
        </table>
      )}
      {waiting.nodes.length > 0 && (
        <table>
          <thead>
            <tr>
              <th scope="col">waits</th>
              <th scope="col">since</th>
              <th scope="col" class="number">
                asked
              </th>
              <th scope="col" class="wide">
                why
              </th>
            </tr>
          </thead>
          <tbody>
            {waiting.nodes.map((waiter) => (
              <tr key={waiter.id}>
                <th scope="row">
                  <Who held={waiter} />
                </th>
                <td>
                  <Ago time={waiter.created} />
                </td>
                <td class="number">{waiter.run?.lastAnswer ? `${waiter.run.lastAnswer.attempts} ×` : "–"}</td>
                <td class="wide why-cell">{waiter.run?.lastAnswer?.reason}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {waitingCount > waiting.nodes.length && <p class="faint">The first {waiting.nodes.length} of {waitingCount} that wait.</p>}
    </>
  );
}

/** A slot that a state of a run has acquired is given back by the next state of the run. */
function giveBack({ id: lease, automatic, run }: Lease, name: string, reload: () => void): void {
  if (!automatic || !run) return release.set({ lease, name, reload });
  const { id, version, stateType } = run;
  action.set({ verb: "what-if", type: "CRASHED", subject: { kind: run.__typename === "TaskRun" ? "taskRun" : "flowRun", id, name: run.name, version, stateType } });
}

function Holder({ lease, average, free }: { lease: Lease; average: number; free: (() => void) | undefined }) {
  const now = useNow();
  const seconds = secondsSince(lease.created, now);
  const factor = average ? seconds / average : 0;
  return (
    <tr>
      <th scope="row">
        <Who held={lease} />
      </th>
      <td class="number">{lease.slots}</td>
      <td>
        <Ago time={lease.created} />
        {factor > SUSPICIOUS && seconds > 60 && <span class="warning"> {factor.toFixed(0)} × the average: is it alive?</span>}
      </td>
      <td class="wide">{lease.expires ? <Ago time={lease.expires} /> : <span class="faint">{lease.automatic ? "it leaves the state" : "it is released"}</span>}</td>
      <td>
        {free && (
          <button type="button" class="small" onClick={free}>
            {lease.automatic && lease.run ? "End the run …" : "Release …"}
          </button>
        )}
      </td>
    </tr>
  );
}

function Who({ held }: { held: Lease | Waiter }) {
  const { run, flowRun } = held;
  if (!run) return <span>{("holder" in held && held.holder) || "unknown"}</span>;
  if (run.__typename === "TaskRun" && flowRun) {
    return (
      <a href={href(["runs", flowRun.id], { task: run.id })}>
        <span class="faint">
          {flowRun.flow.name} › {flowRun.name} ›{" "}
        </span>
        {run.name}
      </a>
    );
  }
  return <RunLink run={flowRun ?? run} />;
}
