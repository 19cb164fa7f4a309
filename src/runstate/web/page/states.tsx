// The states of a run: when, by whom, by which rule, and why.
import type { StateRowFragment } from "./documents.ts";
import { duration } from "./format.ts";
import { Ago, At, State } from "./parts.tsx";
import { href } from "./router.ts";

type Waiting = { lastAnswer?: { reason: string; rule: string; status: string; at: string; attempts: number; limits: { id: string; name: string }[] } | null };

/** The answer to the last proposal that wrote nothing. */
export function Why({ run }: { run: Waiting }) {
  const answer = run.lastAnswer;
  if (!answer) return null;
  return (
    <p class="waits">
      <b>{answer.status.toLowerCase()}</b> by <code>{answer.rule}</code>: {answer.reason} <span class="faint">asked {answer.attempts} times, last </span>
      <Ago time={answer.at} />{" "}
      {answer.limits.map(({ id, name }) => (
        <a key={id} href={href(["limits"], { name })}>
          {name}
        </a>
      ))}
    </p>
  );
}

export function States({ states }: { states: readonly StateRowFragment[] }) {
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label="States">
      <table class="states" role="table">
        <thead>
          <tr>
            <th scope="col" class="number">
              v
            </th>
            <th scope="col">state</th>
            <th scope="col">when</th>
            <th scope="col" class="number">
              after
            </th>
            <th scope="col">by</th>
            <th scope="col">rule</th>
            <th scope="col">why</th>
          </tr>
        </thead>
        <tbody>
          {states.map((state, index) => (
            <tr key={state.version} role="row">
              <td class="number">{state.version}</td>
              <td>
                <State run={{ stateType: state.type, stateName: state.name }} />
              </td>
              <td>
                <At time={state.timestamp} precise />
              </td>
              <td class="number faint">{after(states[index - 1], state)}</td>
              <td>{state.actor ?? "…"}</td>
              <td>
                <Rule decision={state.decision} />
              </td>
              <td class="why-cell">
                <Reason state={state} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function after(before: StateRowFragment | undefined, state: StateRowFragment): string {
  if (!before) return "";
  return `+${duration((Date.parse(state.timestamp) - Date.parse(before.timestamp)) / 1000)}`;
}

/** A state that is known from its transition only has no decision yet. */
function Rule({ decision }: { decision?: StateRowFragment["decision"] | undefined }) {
  if (!decision) return <span class="faint">…</span>;
  const rules = [...(decision.rule ? [decision.rule] : []), ...decision.amendedBy];
  if (!rules.length) return <span class="faint">–</span>;
  return (
    <>
      {rules.map((rule) => (
        <code key={rule} title={decision.rule === rule ? decision.status : "amended the state"}>
          {rule}
          {decision.rule === rule ? "" : " ✎"}
        </code>
      ))}
    </>
  );
}

function Reason({ state }: { state: StateRowFragment }) {
  const { proposed, reason } = state.decision ?? {};
  return (
    <>
      {proposed && proposed.type !== state.type && <span class="faint">proposed {proposed.name} → </span>}
      {reason && <span>{reason} </span>}
      {state.message && <q class="message">{state.message}</q>}
      {state.details?.scheduledTime && (
        <span class="faint">
          {" "}
          for <At time={state.details.scheduledTime} />
        </span>
      )}
    </>
  );
}
