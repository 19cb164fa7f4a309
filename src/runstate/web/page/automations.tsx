// Automations with their newest firings, and the actions of each firing.
import { AutomationsDocument, type AutomationsQuery } from "./documents.ts";
import { duration, plural } from "./format.ts";
import { Ago, Items } from "./parts.tsx";
import { useQuery } from "./query.ts";
import { href, place } from "./router.ts";
import { useTitle } from "./shell.tsx";
import { useSignal } from "./signal.ts";

type Automation = AutomationsQuery["automations"]["nodes"][number];
type Firing = Automation["firings"]["nodes"][number];
type ActionRun = Firing["actionRuns"][number];

const RUN = "runstate.flow-run."; // prefix of the resources of flow runs

export function Automations() {
  useTitle("Automations");
  const { params } = useSignal(place);
  const query = useQuery(AutomationsDocument, {}, { main: true, events: ["runstate.automation.*"] });
  return (
    <>
      <h1>Automations</h1>
      <Items query={query} of={({ automations }) => automations.nodes} name={params.name} empty="No automations. createAutomation makes one.">
        {(automation) => <OneAutomation automation={automation} />}
      </Items>
    </>
  );
}

function OneAutomation({ automation }: { automation: Automation }) {
  const { name, description, enabled, trigger, actions, firings } = automation;
  const [last] = firings.nodes;
  return (
    <>
      <h2>
        <span>{name}</span>
        <span class={enabled ? "good" : "warning"}>{enabled ? "enabled" : "disabled"}</span>
        <span>{conditionOf(trigger)}</span>
        <span class="faint">{actions.map(labelOf).join(", ")}</span>
        <span>{last ? <>fired <Ago time={last.fired} />, {plural(firings.totalCount, "firing")}</> : "has not fired"}</span>
        {description && <span class="faint">{description}</span>}
      </h2>
      {last && <Firings firings={firings.nodes} />}
    </>
  );
}

function Firings({ firings }: { firings: readonly Firing[] }) {
  return (
    <table class="firings">
      <thead>
        <tr>
          <th scope="col">fired</th>
          <th scope="col">event</th>
          <th scope="col">actions</th>
        </tr>
      </thead>
      <tbody>
        {firings.map((firing) => (
          <tr key={firing.id}>
            <td>
              <Ago time={firing.fired} />
            </td>
            <td class="why-cell">
              <Cause firing={firing} />
            </td>
            <td class="why-cell">
              <ul>
                {firing.actionRuns.map((run) => (
                  <li key={run.id}>
                    <Outcome run={run} />
                  </li>
                ))}
              </ul>
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** The event of a firing, or the values for which there was none. */
function Cause({ firing: { event, labels } }: { firing: Firing }) {
  if (!event) return <>no event {labels.map(({ label, value }) => `${label}: ${value}`).join(", ")}</>;
  const { resourceId, name } = event.resource;
  return (
    <>
      <a href={href(["events"], { event: event.id })}>{event.name}</a> <span class="faint">of</span>{" "}
      {resourceId.startsWith(RUN) ? <a href={href(["runs", resourceId.slice(RUN.length)])}>{name ?? resourceId}</a> : (name ?? resourceId)}
    </>
  );
}

const LOOKS: Record<ActionRun["status"], [shape: string, tone: string]> = {
  EXECUTED: ["✓", "is-completed"],
  FAILED: ["✗", "is-failed"],
  PENDING: ["…", "is-pending"],
};

function Outcome({ run: { status, attempts, reason, nextAttempt, action } }: { run: ActionRun }) {
  const [shape, tone] = LOOKS[status];
  return (
    <>
      <span class={`state ${tone}`}>
        <i aria-hidden="true">{shape}</i> {labelOf(action)} {status.toLowerCase()}
      </span>
      {attempts > 1 && ` after ${attempts} attempts`}
      {reason && `: ${reason}`}
      {status === "PENDING" && nextAttempt && attempts > 0 && <span class="faint"> next <Ago time={nextAttempt} /></span>}
    </>
  );
}

/** CallWebhookAction → call webhook */
const labelOf = ({ __typename }: { __typename: string }) => words(__typename.replace(/Action$/, ""));
const words = (name: string) => name.replace(/(?<=.)[A-Z]/g, " $&").toLowerCase();

function conditionOf(trigger: Automation["trigger"]): string {
  if (trigger.__typename !== "EventTrigger") return words(trigger.__typename);
  const { posture, threshold, expect, withinSeconds } = trigger;
  const within = withinSeconds ? ` within ${duration(withinSeconds)}` : "";
  const names = expect.length ? expect.join(", ") : "any event";
  return posture === "PROACTIVE" ? `fewer than ${threshold} of ${names}${within}` : `${threshold} of ${names}${within}`;
}
