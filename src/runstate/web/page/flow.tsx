// One flow: how long its runs take, how they end, day by day and task by task.
import { cancelUnfinished } from "./doing.ts";
import { FlowDocument, type FlowQuery } from "./documents.ts";
import { clock, duration, percent, plural, secondsOf, utc } from "./format.ts";
import { useKeys } from "./keyboard.ts";
import { Ago, Empty, Loaded, Tags } from "./parts.tsx";
import { useQuery } from "./query.ts";
import { may } from "./rights.ts";
import { href, place } from "./router.ts";
import { useTitle } from "./shell.tsx";
import { useSignal } from "./signal.ts";
import { lookOf, toneOf } from "./states.ts";

const RANGES = ["24h", "7d", "30d"];

type OneFlow = NonNullable<FlowQuery["flow"]>;

export function Flow({ name }: { name: string }) {
  useTitle(name);
  const { params } = useSignal(place);
  const range = params.range && RANGES.includes(params.range) ? params.range : "30d";
  const unit = range === "24h" ? "HOUR" : "DAY";
  const timeZone = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
  const query = useQuery(
    FlowDocument,
    { by: { name }, seconds: secondsOf(range) ?? 0, day: { calendar: { unit, timeZone } }, where: { flow: { name: { eq: name } } } },
    { main: true, gap: 2000, matters: ({ runKind }) => runKind === "FLOW_RUN" },
  );
  return (
    <Loaded query={query}>
      {({ flow, whole, days }) =>
        flow ? (
          <>
            <div class="line">
              <h1>{flow.name}</h1>
              <Tags tags={flow.tags} />
              <nav class="ranges" aria-label="Time range">
                {RANGES.map((each) => (
                  <a key={each} href={href(["flows", name], { range: each })} aria-current={each === range ? "true" : undefined}>
                    {each}
                  </a>
                ))}
              </nav>
            </div>
            <Facts flow={flow} whole={whole[0]} range={range} />
            <Durations flow={flow} whole={whole[0]} />
            <Grid flow={flow} />
            <Days days={days} unit={unit} flow={flow.name} />
          </>
        ) : (
          <Empty>There is no flow {name}.</Empty>
        )
      }
    </Loaded>
  );
}

type Whole = FlowQuery["whole"][number];

function Facts({ flow, whole, range }: { flow: OneFlow; whole: Whole | undefined; range: string }) {
  const rights = useSignal(may);
  useKeys({ C: () => rights.propose && cancelUnfinished(flow) });
  return (
    <p class="line facts">
      <a href={href(["runs"], { flow: flow.name, expected: range })}>{plural(whole?.count ?? 0, "run")}</a>
      <span>ok {percent(whole?.successRate)}</span>
      <span>
        took p50 <b>{duration(whole?.runTimeSeconds.p50)}</b>, p95 <b>{duration(whole?.runTimeSeconds.p95)}</b>, longest{" "}
        <b>{duration(whole?.runTimeSeconds.max)}</b>
      </span>
      <span>late p95 {duration(whole?.latenessSeconds.p95)}</span>
      {whole !== undefined && whole.failed + whole.crashed > 0 && (
        <a href={href(["runs"], { flow: flow.name, state: "failed,crashed", ended: range })}>{plural(whole.failed + whole.crashed, "failure")}</a>
      )}
      {flow.deployments.nodes.map(({ id, name, paused }) => (
        <span key={id}>
          deployment <a href={href(["deployments"], { name })}>{name}</a> {paused && "(paused)"}
        </span>
      ))}
      <a href={href(["runs"], { flow: flow.name, sort: "-totalRunTimeSeconds" })}>slowest runs</a>
      {rights.propose && (
        <button type="button" class="small" onClick={() => cancelUnfinished(flow)}>
          Cancel {plural(flow.unfinished.totalCount, "unfinished run")} … <kbd>C</kbd>
        </button>
      )}
    </p>
  );
}

/** A dot for each of the last 100 runs, with the band between p50 and p95. */
function Durations({ flow, whole }: { flow: OneFlow; whole: Whole | undefined }) {
  const isUtc = useSignal(utc);
  const runs = flow.flowRuns.nodes.filter(({ startTime }) => startTime).reverse();
  if (!runs.length) return <Empty>No run of this flow has started.</Empty>;
  const { p50, p95 } = whole?.runTimeSeconds ?? {};
  const longest = Math.max(p95 ?? 0, ...runs.map(({ totalRunTimeSeconds }) => totalRunTimeSeconds)) * 1.1 || 1;
  // One run that took very long does not press the others together: it is drawn at the top.
  const most = p95 ? Math.min(longest, p95 * 3) : longest;
  const times = runs.map(({ startTime }) => Date.parse(startTime ?? ""));
  const [first, last] = [Math.min(...times), Math.max(...times)];
  const y = (seconds: number) => 100 * (1 - Math.min(seconds / most, 0.96));
  // By order where all started together, by time otherwise.
  const x = (index: number) => 1 + (98 * index) / Math.max(1, runs.length - 1);
  return (
    <figure class="durations">
      <figcaption>
        <span>
          Durations of the last {runs.length} runs, {clock(new Date(first).toISOString(), isUtc)} to {clock(new Date(last).toISOString(), isUtc)}
        </span>
        <span class="faint">
          top: {duration(most)} · <a href={href(["runs"], { flow: flow.name })}>as a list</a>
        </span>
      </figcaption>
      <div class="plot" aria-hidden="true">
        {p50 !== null && p50 !== undefined && p95 !== null && p95 !== undefined && (
          <>
            <span class="band" style={{ top: `${y(p95)}%`, bottom: `${100 - y(p50)}%` }} />
            <span class="band-label" style={{ top: `${y(p95)}%` }}>
              p95 {duration(p95)}
            </span>
            <span class="band-label" style={{ top: `${y(p50)}%` }}>
              p50 {duration(p50)}
            </span>
          </>
        )}
        {runs.map((run, index) => (
          <a
            tabIndex={-1}
            key={run.id}
            href={href(["runs", run.id])}
            class={`spot ${toneOf(run.stateType)}`}
            style={{ left: `${x(index)}%`, top: `${y(run.totalRunTimeSeconds)}%` }}
            title={`${run.name}: ${run.stateName}, ${duration(run.totalRunTimeSeconds)}`}
          >
            {lookOf(run.stateType).shape}
          </a>
        ))}
      </div>
    </figure>
  );
}

function Days({ days, unit, flow }: { days: FlowQuery["days"]; unit: string; flow: string }) {
  const isUtc = useSignal(utc);
  return (
    <section aria-labelledby="days">
      <h2 id="days">By {unit === "DAY" ? "day" : "hour"}</h2>
      {!days.length && <Empty>No runs ended in this range.</Empty>}
      <div class="scroll" tabIndex={0} role="region" aria-label="Success by time">
        <table>
          <thead>
            <tr>
              <th scope="col">{unit === "DAY" ? "day" : "hour"}</th>
              <th scope="col" class="number">
                ok
              </th>
              <th scope="col">runs</th>
              <th scope="col" class="number">
                failed
              </th>
              <th scope="col" class="number">
                p50
              </th>
              <th scope="col" class="number">
                p95
              </th>
            </tr>
          </thead>
          <tbody>
            {[...days].reverse().map((day) => {
              const bad = day.failed + day.crashed;
              const where = JSON.stringify({ endTime: { gte: day.start } });
              return (
                <tr key={day.start}>
                  <th scope="row">
                    <a href={href(["runs"], { flow, where })}>{unit === "DAY" ? (day.start ?? "").slice(0, 10) : clock(day.start, isUtc)}</a>
                  </th>
                  <td class="number">{percent(day.successRate)}</td>
                  <td>
                    <span class="share" title={`${day.completed} completed, ${bad} failed, ${day.cancelled} cancelled`}>
                      {(
                        [
                          ["COMPLETED", day.completed],
                          ["FAILED", day.failed],
                          ["CRASHED", day.crashed],
                          ["CANCELLED", day.cancelled],
                        ] as const
                      ).map(([type, count]) => (
                        <span key={type} class={`fill ${toneOf(type)}`} style={{ width: `${(100 * count) / Math.max(1, day.count)}%` }} />
                      ))}
                    </span>{" "}
                    {day.count}
                  </td>
                  <td class="number">{bad}</td>
                  <td class="number">{duration(day.runTimeSeconds.p50)}</td>
                  <td class="number">{duration(day.runTimeSeconds.p95)}</td>
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>
    </section>
  );
}

/** Tasks in rows, the last runs in columns, newest on the right. */
function Grid({ flow }: { flow: OneFlow }) {
  const runs = [...flow.grid.nodes].reverse();
  return (
    <section aria-labelledby="grid">
      <h2 id="grid">Tasks × last {runs.length} runs</h2>
      {!flow.tasks.length && <Empty>No task runs.</Empty>}
      <div class="scroll" tabIndex={0} role="region" aria-label="Tasks by run">
        <table class="grid">
          <tbody>
            {flow.tasks.map(({ key }) => (
              <tr key={key}>
                <th scope="row">{key}</th>
                {runs.map((run) => {
                  const task = run.taskRuns.nodes.find(({ taskKey }) => taskKey === key);
                  return (
                    <td key={run.id}>
                      {task ? (
                        <a
                          class={`square ${toneOf(task.stateType)}`}
                          href={href(["runs", run.id], { task: task.id })}
                          title={`${task.stateName}, ${duration(task.totalRunTimeSeconds)}${task.runCount > 1 ? `, ${task.runCount} attempts` : ""}`}
                        >
                          <i aria-hidden="true">{task.runCount > 1 ? task.runCount : lookOf(task.stateType).shape}</i>
                          <span class="unseen">
                            {task.stateName}, {task.runCount} attempts
                          </span>
                        </a>
                      ) : (
                        <span class="square is-none" />
                      )}
                    </td>
                  );
                })}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <p class="faint">
        A number is the number of attempts. Newest run: <Ago time={flow.flowRuns.nodes[0]?.stateTimestamp} />
      </p>
    </section>
  );
}
