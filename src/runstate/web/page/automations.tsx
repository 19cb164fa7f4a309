// Automations with their newest firings, and the actions of each firing.
import { useEffect } from "preact/hooks";
import { follow } from "./client.ts";
import { AutomationEventsDocument, AutomationsDocument, type AutomationsQuery } from "./documents.ts";
import { duration, plural } from "./format.ts";
import { Ago, Empty, Loaded } from "./parts.tsx";
import { type Query, useQuery } from "./query.ts";
import { href } from "./router.ts";
import { useTitle } from "./shell.tsx";

type Automation = AutomationsQuery["automations"]["nodes"][number];
type Firing = Automation["firings"]["nodes"][number];
type ActionRun = Firing["actionRuns"][number];

const RUN = "runstate.flow-run."; // prefix of the resources of flow runs
const SOON = 2000; // milliseconds in which an action is usually executed

export function Automations() {
  useTitle("Automations");
  const query = useQuery(AutomationsDocument, {}, { main: true, gap: 1000 });
  useFirings(query.reload);
  usePending(query);
  return (
    <>
      <h1>Automations</h1>
      <Loaded query={query}>
        {({ automations: { nodes } }) =>
          nodes.length ? (
            <ul class="limits">
              {nodes.map((automation) => (
                <OneAutomation key={automation.id} automation={automation} />
              ))}
            </ul>
          ) : (
            <Empty>No automations. createAutomation makes one.</Empty>
          )
        }
      </Loaded>
    </>
  );
}

/** Call a function after each firing. */
function useFirings(reload: () => void): void {
  useEffect(() => {
    let cursor: string | null = null;
    return follow(
      AutomationEventsDocument,
      () => ({ after: cursor }),
      ({ events }) => {
        cursor = events.cursor;
        if (events.events.length) reload();
      },
      () => {
        cursor = null; // it may have expired
      },
    );
  }, []);
}

/** Read again when actions that are pending may have ended, because no event tells that. */
function usePending({ data, reload }: Query<AutomationsQuery>): void {
  useEffect(() => {
    const firings = data?.automations.nodes.flatMap((each) => each.firings.nodes) ?? [];
    const pending = firings.flatMap((each) => each.actionRuns).filter(({ status }) => status === "PENDING");
    if (!pending.length) return;
    const next = Math.min(...pending.map(({ nextAttempt }) => Date.parse(nextAttempt ?? "") || 0));
    const timer = setTimeout(reload, Math.max(SOON, next - Date.now() + SOON));
    return () => clearTimeout(timer);
  }, [data]);
}

function OneAutomation({ automation: { name, description, enabled, trigger, actions, firings } }: { automation: Automation }) {
  const [last] = firings.nodes;
  return (
    <li>
      <h2>
        <span>{name}</span>
        <span class={enabled ? "good" : "warning"}>{enabled ? "enabled" : "disabled"}</span>
        <span>{conditionOf(trigger)}</span>
        <span class="faint">{actions.map(labelOf).join(", ")}</span>
        <span>{last ? <>fired <Ago time={last.fired} />, {plural(firings.totalCount, "firing")}</> : "has not fired"}</span>
        {description && <span class="faint">{description}</span>}
      </h2>
      {last && <Firings firings={firings.nodes} />}
    </li>
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
      {event.name} <span class="faint">of</span>{" "}
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
