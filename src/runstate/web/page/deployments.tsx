// Deployments: what is scheduled when, and how the last runs ended.
import { doDeployment } from "./doing.ts";
import { DeploymentsDocument, type DeploymentsQuery } from "./documents.ts";
import { duration, full } from "./format.ts";
import { Ago, Empty, Loaded, Squares, Tags } from "./parts.tsx";
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
    { main: true, gap: 3000, matters: ({ runKind }) => runKind === "FLOW_RUN" },
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
      <Loaded query={query}>
        {({ deployments: { nodes, totalCount } }) =>
          nodes.length ? (
            <div class="scroll" tabIndex={0} role="region" aria-label="Deployments">
              <table class="deployments">
                <thead>
                  <tr>
                    <th scope="col">deployment</th>
                    <th scope="col">last runs</th>
                    <th scope="col">schedules</th>
                    <th scope="col">next dates</th>
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
          ) : (
            <Empty>No deployments. createDeployment makes one.</Empty>
          )
        }
      </Loaded>
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
        <div>
          <Tags tags={tags} /> {concurrencyLimit !== null && <span class="faint">at most {concurrencyLimit} at a time</span>}
        </div>
      </th>
      <td>
        <Squares runs={[...flowRuns.nodes].reverse()} label={`Last runs of ${name}`} />
      </td>
      <td>
        {schedules.nodes.map((schedule) => (
          <div key={schedule.id} title={schedule.slug ?? ""}>
            <code>{said(schedule)}</code> {!schedule.active && <span class="warning">off</span>}
            {schedule.problem && <span class="problem"> {schedule.problem}</span>}
          </div>
        ))}
        {!schedules.nodes.length && <span class="faint">none</span>}
      </td>
      <td>
        {schedules.nodes.flatMap((schedule) =>
          schedule.active ? schedule.nextDates.map((date) => (
            <div key={`${schedule.id}${date}`} title={full(date)}>
              <Ago time={date} />
            </div>
          )) : [],
        )}
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

function said({ schedule }: Schedule): string {
  if (schedule.__typename === "CronSchedule") return `${schedule.cron} ${schedule.timeZone}`;
  if (schedule.__typename === "IntervalSchedule") return `every ${duration(schedule.intervalSeconds)}`;
  return schedule.rrule;
}
