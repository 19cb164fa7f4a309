// Deployments: what is scheduled when, and how the last runs ended.
import { doDeployment } from "./doing.ts";
import { DeploymentsDocument, type DeploymentsQuery } from "./documents.ts";
import { duration } from "./format.ts";
import { Ago, At, Listed, Squares, Tags } from "./parts.tsx";
import { useQuery } from "./query.ts";
import { may } from "./rights.ts";
import { href, place } from "./router.ts";
import { useTitle } from "./shell.tsx";
import { useSignal } from "./signal.ts";

type Deployment = DeploymentsQuery["deployments"]["nodes"][number];
type Schedule = Deployment["schedules"]["nodes"][number];

export function Deployments() {
  useTitle("Deployments");
  const { params } = useSignal(place);
  const query = useQuery(
    DeploymentsDocument,
    { first: 100, after: null, where: params.name ? { name: { eq: params.name } } : {} },
    { main: true, gap: 3000, matters: ({ runKind }) => runKind === "FLOW_RUN", events: ["runstate.deployment.*"] },
  );
  return (
    <>
      <div class="line">
        <h1>Deployments</h1>
        {params.name && (
          <span class="chip">
            <span class="faint">name:</span> {params.name} <a href="#/deployments" aria-label="All deployments">×</a>
          </span>
        )}
      </div>
      <Listed query={query} of={({ deployments }) => deployments.nodes} empty="No deployments. createDeployment makes one.">
        {(nodes, { deployments: { totalCount } }) => (
          <div class="scroll" tabIndex={0} role="region" aria-label="Deployments">
            <table class="deployments">
              <thead>
                <tr>
                  <th scope="col">deployment</th>
                  <th scope="col">last runs</th>
                  <th scope="col">schedules and next dates</th>
                  <th scope="col">pool</th>
                  <th scope="col">
                    <span class="unseen">actions</span>
                  </th>
                </tr>
              </thead>
              <tbody>
                {nodes.map((deployment) => (
                  <Row key={deployment.id} deployment={deployment} reload={query.reload} />
                ))}
              </tbody>
            </table>
            {totalCount > nodes.length && <p class="faint">The first {nodes.length} of {totalCount}.</p>}
          </div>
        )}
      </Listed>
    </>
  );
}

function Row({ deployment, reload }: { deployment: Deployment; reload: () => void }) {
  const rights = useSignal(may);
  const { id, name, paused, flow, tags, schedules, flowRuns, workPool, workQueueName, concurrencyLimit, parameterSchema, parameters } = deployment;
  return (
    <tr>
      <th scope="row">
        <a class="faint" href={href(["flows", flow.name])}>
          {flow.name}
        </a>
        <span class="faint"> › </span>
        <a href={href(["runs"], { deployment: name, flow: flow.name })}>{name}</a>
        {paused && <span class="warning"> ‖ paused</span>}
        {(tags.length > 0 || concurrencyLimit !== null) && (
          <div>
            <Tags tags={tags} /> {concurrencyLimit !== null && <span class="faint">at most {concurrencyLimit} at a time</span>}
          </div>
        )}
      </th>
      <td>
        <Squares runs={[...flowRuns.nodes].reverse()} label={`Last runs of ${name}`} />
      </td>
      <td>
        <ul class="schedules">
          {schedules.nodes.map((schedule) => (
            <li key={schedule.id}>
              <Dates schedule={schedule} isPaused={paused} />
            </li>
          ))}
        </ul>
        {!schedules.nodes.length && <span class="faint">no schedule</span>}
      </td>
      <td>{workPool ? <a href={href(["pools"])}>{`${workPool.name} / ${workQueueName ?? ""}`}</a> : <span class="faint">–</span>}</td>
      <td class="buttons">
        {rights.propose && (
          <button type="button" class="small" onClick={() => doDeployment.set({ verb: "run", id, name, parameterSchema, parameters, reload })}>
            Run …
          </button>
        )}
        {rights.admin && schedules.nodes.length > 0 && (
          <button type="button" class="small" onClick={() => doDeployment.set({ verb: paused ? "resume" : "pause", id, name, parameterSchema, parameters, reload })}>
            {paused ? "Resume" : "Pause"}
          </button>
        )}
      </td>
    </tr>
  );
}

function Dates({ schedule, isPaused }: { schedule: Schedule; isPaused: boolean }) {
  const { slug, active, problem, nextDates } = schedule;
  const [first] = nextDates;
  return (
    <>
      <code>{said(schedule)}</code> {slug && <span class="faint">{slug}</span>} {!active && <span class="warning">off</span>}
      {problem && <span class="problem"> {problem}</span>}
      {active && !isPaused && first && (
        <div>
          <Ago time={first} />
          <span class="faint">
            {nextDates.map((date) => (
              <>
                {" · "}
                <At time={date} />
              </>
            ))}
          </span>
        </div>
      )}
    </>
  );
}

function said({ schedule }: Schedule): string {
  if (schedule.__typename === "CronSchedule") return `${schedule.cron} ${schedule.timeZone}`;
  if (schedule.__typename === "IntervalSchedule") return `every ${duration(schedule.intervalSeconds)}`;
  return schedule.rrule;
}
