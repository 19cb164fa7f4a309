// The overview: counts, runs by time, what needs a look, what runs now, how the flows do.
import {
  OverviewDocument,
  OverviewFlowsDocument,
  type OverviewFlowsQuery,
  type OverviewQuery,
} from "./documents.ts";
import { duration, percent, plural, relative, secondsOf, secondsSince } from "./format.ts";
import { History } from "./history.tsx";
import { narrow, useNow } from "./now.ts";
import { Ago, Empty, Loaded, RunLink, Squares, State } from "./parts.tsx";
import { useQuery } from "./query.ts";
import { href, place } from "./router.ts";
import { useTitle } from "./shell.tsx";
import { useSignal } from "./signal.ts";
import { lookOf, TYPES, toneOf } from "./states.ts";
import type { Change } from "./store.ts";
import { useChangesSince, useStored } from "./stored.ts";

export const RANGES: Record<string, number> = { "1h": 120, "6h": 900, "24h": 3600, "7d": 21_600, "30d": 86_400 };
const DEFAULT = "24h";

export function Overview() {
  useTitle("");
  const { params } = useSignal(place);
  const range = params.range && params.range in RANGES ? params.range : DEFAULT;
  const seconds = secondsOf(range) ?? 86_400;
  const step = (RANGES[range] ?? 3600) * (useSignal(narrow) ? 2 : 1);
  const overview = useQuery(
    OverviewDocument,
    () => {
      const until = (Math.floor(Date.now() / 1000 / step) + 1) * step;
      const instant = (at: number) => new Date(at * 1000).toISOString();
      return { since: instant(until - Math.ceil(seconds / step) * step), until: instant(until), interval: { seconds: step }, seconds };
    },
    { key: `${range} ${step}`, matters: () => true, main: true },
  );
  const flows = useQuery(
    OverviewFlowsDocument,
    { seconds },
    { skip: !overview.data, gap: 5000, matters: ({ runKind, previousStateType, stateType }) => runKind === "FLOW_RUN" && previousStateType !== stateType },
  );
  return (
    <div class="overview">
      <div class="line">
        <h1 class="unseen">Overview</h1>
        <Counts range={range} intervals={overview.data?.flowRunHistory} />
        <nav class="ranges" aria-label="Time range">
          {Object.keys(RANGES).map((each) => (
            <a key={each} href={href([], { range: each })} aria-current={each === range ? "true" : undefined}>
              {each}
            </a>
          ))}
        </nav>
      </div>
      <Loaded query={overview}>
        {(data) => (
          <>
            <History intervals={data.flowRunHistory} step={step} />
            <div class="columns">
              <Attention data={data} range={range} />
              <Running runs={data.running.nodes} flows={flows.data} />
            </div>
          </>
        )}
      </Loaded>
      {flows.data && <Flows data={flows.data} range={range} />}
    </div>
  );
}

type Count = { stateType: string | null; stateName: string | null; count: number };
type Intervals = OverviewQuery["flowRunHistory"];

/** Counts by state from the intervals, with the changes since they were read. */
export function counted(intervals: Intervals, changes: readonly Change[]): Count[] {
  const counts = new Map<string, Count>();
  const add = (stateType: string | null, stateName: string | null, count: number) => {
    const key = `${stateType} ${stateName}`;
    counts.set(key, { stateType, stateName, count: (counts.get(key)?.count ?? 0) + count });
  };
  for (const { states } of intervals) for (const { stateType, stateName, count } of states) add(stateType, stateName, count);
  for (const change of changes) {
    if (change.runKind !== "FLOW_RUN") continue;
    if (change.previousStateType) add(change.previousStateType, change.previousStateName ?? null, -1);
    add(change.stateType, change.stateName, 1);
  }
  return [...counts.values()].filter(({ count }) => count > 0);
}

function Counts({ range, intervals }: { range: string; intervals: Intervals | undefined }) {
  const changes = useChangesSince(intervals);
  const counts = intervals && counted(intervals, changes);
  const sorted = [...(counts ?? [])].sort((a, b) => TYPES.indexOf(a.stateType ?? "") - TYPES.indexOf(b.stateType ?? ""));
  if (counts && !counts.length) {
    return (
      <p class="counts">
        No runs in this range. <code>runstate demo</code> makes some.
      </p>
    );
  }
  return (
    <ul class="counts" aria-label="Runs by state">
      {sorted.map(({ stateType, stateName, count }) => (
        <li key={`${stateType}${stateName}`}>
          <a href={href(["runs"], { state: stateName ?? "", expected: range })} class={`state ${toneOf(stateType)}`}>
            <i aria-hidden="true">{lookOf(stateType).shape}</i> <b>{count.toLocaleString("en")}</b> <span>{(stateName ?? "no state").toLowerCase()}</span>
          </a>
        </li>
      ))}
    </ul>
  );
}

type Failed = OverviewQuery["failed"]["nodes"][number];

const causeOf = (run: Failed) => {
  const [task] = run.failed.nodes;
  return task ? `${task.taskKey}: ${task.state?.message ?? "no message"}` : (run.state?.message ?? "");
};

/** Messages that occur more than once. */
function repeated(runs: readonly Failed[]): [message: string, count: number][] {
  const counts = new Map<string, number>();
  for (const run of runs) {
    const message = run.failed.nodes[0]?.state?.message;
    if (message) counts.set(message, (counts.get(message) ?? 0) + 1);
  }
  return [...counts].filter(([, count]) => count > 1);
}

function Attention({ data, range }: { data: OverviewQuery; range: string }) {
  const now = useNow();
  const full = data.concurrencyLimits.nodes.filter(({ waitingCount }) => waitingCount);
  const isCalm = !data.failed.nodes.length && !data.late.nodes.length && !data.paused.nodes.length && !full.length;
  return (
    <section aria-labelledby="attention">
      <h2 id="attention">Needs a look</h2>
      {isCalm && <Empty>Nothing failed, is late, paused or waiting.</Empty>}
      <ul class="list">
        {data.late.nodes.map((run) => (
          <li key={run.id}>
            <State run={run} short />
            <RunLink run={run} />
            <span class="why">
              late by {duration(Math.max(0, secondsSince(run.nextScheduledStartTime ?? "", now)))}
              {run.lastAnswer ? `: ${run.lastAnswer.reason}` : ""}
            </span>
            <Ago time={run.nextScheduledStartTime} />
          </li>
        ))}
        {data.paused.nodes.map((run) => (
          <li key={run.id}>
            <State run={run} short />
            <RunLink run={run} />
            <span class="why">{run.state?.message ?? "waits to be resumed"}</span>
            <Ago time={run.stateTimestamp} />
          </li>
        ))}
        {full.map(({ id, name, limit, activeSlots, waitingCount }) => (
          <li key={id}>
            <span class="state is-late" aria-hidden="true">
              <i>⌛</i>
            </span>
            <a href={href(["limits"], { name })}>{name}</a>
            <span class="why">
              {plural(waitingCount, "run waits", "runs wait")} ({activeSlots} of {limit} held)
            </span>
            <span />
          </li>
        ))}
        {data.failed.nodes.map((run) => (
          <li key={run.id}>
            <State run={run} short />
            <RunLink run={run} />
            <span class="why">{causeOf(run)}</span>
            <Ago time={run.endTime} />
          </li>
        ))}
      </ul>
      <p class="more">
        {repeated(data.failed.nodes).map(([message, count]) => (
          <a key={message} href={href(["runs"], { message, ended: range })}>
            same failure ×{count}: “{message}”
          </a>
        ))}
        {data.failed.nodes.length > 0 && <a href={href(["runs"], { state: "failed,crashed", ended: range, sort: "-endTime" })}>all failures</a>}
      </p>
    </section>
  );
}

type Statistics = OverviewFlowsQuery["flowRunStatistics"][number];

function Running({ runs, flows }: { runs: OverviewQuery["running"]["nodes"]; flows: OverviewFlowsQuery | undefined }) {
  const now = useNow();
  const rows = useStored(runs);
  const usual = new Map(flows?.flowRunStatistics.map((each) => [each.flowId, each]));
  return (
    <section aria-labelledby="running">
      <h2 id="running">Running now</h2>
      {!rows.length && <Empty>Nothing is running.</Empty>}
      <ul class="list is-running-list">
        {rows.map((run) => (
          <li key={run.id}>
            <State run={run} short />
            <RunLink run={run} />
            <Progress ended={run.ended.totalCount} all={run.all.totalCount} />
            <span class="took">{duration(run.startTime ? Math.max(0, secondsSince(run.startTime, now)) : 0)}</span>
            <Usual seconds={run.startTime ? secondsSince(run.startTime, now) : 0} usual={usual.get(run.flow.id)} />
          </li>
        ))}
      </ul>
    </section>
  );
}

function Usual({ seconds, usual }: { seconds: number; usual: Statistics | undefined }) {
  const { p50, p95 } = usual?.runTimeSeconds ?? {};
  if (!p50 || !p95) return null;
  return (
    <span class="usual faint">
      usually {duration(p50)} (p95 {duration(p95)})
      {seconds > p95 * 1.5 && <b class="warning"> ⚠ {(seconds / p50).toFixed(0)} × longer</b>}
    </span>
  );
}

export function Progress({ ended, all }: { ended: number; all: number }) {
  return (
    <span class="progress">
      <progress value={ended} max={Math.max(all, 1)} aria-label={`${ended} of ${all} tasks ended`} />
      <span>
        {ended}/{all}
      </span>
    </span>
  );
}

function Flows({ data, range }: { data: OverviewFlowsQuery; range: string }) {
  const now = useNow();
  const statistics = new Map(data.flowRunStatistics.map((each) => [each.flowId, each]));
  if (!data.flows.nodes.length) return null;
  return (
    <section aria-labelledby="by-flow">
      <h2 id="by-flow">By flow</h2>
      <div class="scroll" tabIndex={0} role="region" aria-label="Flows">
        <table>
          <thead>
            <tr>
              <th scope="col">flow</th>
              <th scope="col">last 20 runs</th>
              <th scope="col" class="number">
                runs in {range}
              </th>
              <th scope="col" class="number">
                ok
              </th>
              <th scope="col" class="number">
                p50
              </th>
              <th scope="col" class="number">
                p95
              </th>
              <th scope="col" class="number">
                last
              </th>
            </tr>
          </thead>
          <tbody>
            {data.flows.nodes.map(({ id, name, flowRuns }) => {
              const known = statistics.get(id);
              const last = flowRuns.nodes.reduce((newest, { stateTimestamp }) => ((stateTimestamp ?? "") > newest ? (stateTimestamp ?? "") : newest), "");
              return (
                <tr key={id}>
                  <th scope="row">
                    <a href={href(["flows", name])}>{name}</a>
                  </th>
                  <td>
                    <Squares runs={[...flowRuns.nodes].reverse()} label={`Last runs of ${name}`} />
                  </td>
                  <td class="number">{known?.count.toLocaleString("en") ?? 0}</td>
                  <td class="number">{percent(known?.successRate)}</td>
                  <td class="number">{duration(known?.runTimeSeconds.p50)}</td>
                  <td class="number">{duration(known?.runTimeSeconds.p95)}</td>
                  <td class="number faint">{relative(last, now)}</td>
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>
    </section>
  );
}
