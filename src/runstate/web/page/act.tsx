// Dialogs that do something to one object, after the rules have said what would happen.
import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { mutate } from "./client.ts";
import {
  CancelDocument,
  PauseDeploymentDocument,
  PauseDocument,
  ProposeDocument,
  type ProposeMutation,
  ReleaseDocument,
  ResumeDeploymentDocument,
  ResumeDocument,
  RetryDocument,
  RunDeploymentDocument,
  type RunRef,
  type StateType,
} from "./documents.ts";
import { type Action, action, type DeploymentAction, doDeployment, type Released, release, type Subject } from "./doing.ts";
import { go, href } from "./router.ts";
import { defaults, SchemaForm } from "./schema_form.tsx";
import { Dialog } from "./shell.tsx";
import { lookOf, TYPES, toneOf } from "./states.ts";

type Result = ProposeMutation["result"];
type Decided = Extract<Result, { __typename: "OrchestrationResult" }>;

const VERDICTS: Record<string, string> = { PASS: "✓", AMEND: "✎", REJECT: "✗", WAIT: "⏳", ABORT: "⛔" };

/** What the rules said, as a list. */
function Verdict({ result, dry }: { result: Result; dry: boolean }) {
  if (result.__typename !== "OrchestrationResult") return <p class="problem">{result.message}</p>;
  const { status, reason, proposed, considered, rule } = result;
  return (
    <div class="verdict" role="status">
      <p>
        <b class={status === "ACCEPT" ? "good" : "warning"}>{statusSaid(status, dry)}</b>
        {proposed && (
          <>
            {" "}
            → <span class={`state ${toneOf(proposed.type)}`}>{`${lookOf(proposed.type).shape} ${proposed.name}`}</span>
          </>
        )}
        {reason && <> {reason}</>}
      </p>
      {dry && (
        <ul class="considered" aria-label="Rules that were considered">
          {considered.map((each) => (
            <li key={each.rule} class={each.rule === rule ? "is-current" : ""}>
              <span aria-hidden="true">{VERDICTS[each.verdict]}</span>
              <code>{each.rule}</code>
              <span class="faint">
                {each.verdict.toLowerCase()}
                {each.reason ? `: ${each.reason}` : ""}
              </span>
            </li>
          ))}
          {!considered.length && <li class="faint">No rule applies.</li>}
        </ul>
      )}
    </div>
  );
}

const statusSaid = (status: Decided["status"], dry: boolean): string =>
  ({
    ACCEPT: dry ? "It would be accepted" : "Accepted",
    REJECT: dry ? "Another state would be written" : "Another state was written",
    WAIT: dry ? "It would have to wait" : "It has to wait",
    ABORT: dry ? "It would be refused" : "Refused",
  })[status];

const refOf = ({ kind, id }: Subject): RunRef => (kind === "flowRun" ? { flowRunId: id } : { taskRunId: id });

const TITLES: Record<Action["verb"], string> = { retry: "Retry", cancel: "Cancel", pause: "Pause", resume: "Resume", "what-if": "What if" };

export function ActionDialog({ verb, subject, type }: Action) {
  const close = () => action.set(undefined);
  return (
    <Dialog title={`${TITLES[verb]}: ${subject.name}`} close={close}>
      {verb === "what-if" ? <WhatIf subject={subject} first={type ?? "RUNNING"} /> : <Doing verb={verb} subject={subject} close={close} />}
    </Dialog>
  );
}

/** Choose a state, see what the rules say, then propose it. */
function WhatIf({ subject, first }: { subject: Subject; first: StateType }) {
  const [type, setType] = useState<StateType>(first);
  const [force, setForce] = useState(false);
  const [asked, setAsked] = useState<Result>();
  const [done, setDone] = useState<Result>();
  const [problem, setProblem] = useState("");
  const propose = (dryRun: boolean, given: { expectedVersion?: number } = {}) =>
    mutate(ProposeDocument, { input: { run: refOf(subject), state: { type }, dryRun, force, ...given } }).then(({ result }) => result);
  useEffect(() => {
    let isCurrent = true;
    setProblem("");
    propose(true).then(
      (result) => isCurrent && setAsked(result),
      (error: Error) => isCurrent && setProblem(error.message),
    );
    return () => {
      isCurrent = false;
    };
  }, [type, force]);
  // The version of the dialog's run: a run that has moved on is refused.
  const submit = () => propose(false, { expectedVersion: subject.version }).then(setDone, (error: Error) => setProblem(error.message));
  return (
    <Form submit={submit} label="Propose it" disabled={Boolean(done)} focused={false}>
      <fieldset class="types">
        <legend>if this state were proposed</legend>
        {TYPES.map((each) => (
          <label key={each} class={`inline state ${toneOf(each)}`}>
            <input type="radio" name="type" value={each} autofocus={type === each} checked={type === each} onChange={() => setType(each as StateType)} />
            {lookOf(each).shape} {lookOf(each).label}
          </label>
        ))}
      </fieldset>
      <label class="inline">
        <input type="checkbox" checked={force} onChange={(event) => setForce(event.currentTarget.checked)} /> force: write it without the rules
      </label>
      {problem && <p class="problem">{problem}</p>}
      {done ? <Verdict result={done} dry={false} /> : asked && <Verdict result={asked} dry />}
    </Form>
  );
}

const EXPLAINED: Record<Exclude<Action["verb"], "what-if">, string> = {
  retry: "The run is scheduled again. Its completed task runs with persisted results are not repeated.",
  cancel: "A run with a process becomes Cancelling until the process has ended; another one is cancelled at once.",
  pause: "The run is paused until it is resumed, or until the pause expires after an hour.",
  resume: "The run continues.",
};

function Doing({ verb, subject, close }: { verb: Exclude<Action["verb"], "what-if">; subject: Subject; close: () => void }) {
  const [message, setMessage] = useState("");
  const [values, setValues] = useState<Record<string, unknown>>(() => defaults(subject.input?.schema, {}));
  const [isInvalid, setInvalid] = useState(false);
  const [result, setResult] = useState<Result>();
  const [problem, setProblem] = useState("");
  const common = { id: subject.id, ...(message ? { message } : {}) };
  const send = async () => {
    if (verb === "retry") return (await mutate(RetryDocument, { input: common })).result;
    if (verb === "cancel") return (await mutate(CancelDocument, { input: common })).result;
    if (verb === "pause") return (await mutate(PauseDocument, { input: { ...common, timeoutSeconds: 3600 } })).result;
    const runInput = subject.input ? { runInput: values } : {};
    return (await mutate(ResumeDocument, { input: { ...common, ...runInput } })).result;
  };
  const submit = () =>
    send().then(
      (answer) => {
        setResult(answer);
        if (answer.__typename === "OrchestrationResult" && answer.status === "ACCEPT") close();
      },
      (error: Error) => setProblem(error.message),
    );
  return (
    <Form submit={submit} label={TITLES[verb]} disabled={isInvalid}>
      <p>{EXPLAINED[verb]}</p>
      {verb === "resume" && subject.input && (
        <>
          {subject.input.description && <p>{subject.input.description}</p>}
          <SchemaForm schema={subject.input.schema} value={values} onChange={setValues} onInvalid={setInvalid} />
        </>
      )}
      <label>
        Message (optional)
        <input value={message} onInput={(event) => setMessage(event.currentTarget.value)} />
      </label>
      {problem && <p class="problem">{problem}</p>}
      {result && <Verdict result={result} dry={false} />}
    </Form>
  );
}

export function ReleaseDialog({ lease, name, reload }: Released) {
  const [problem, setProblem] = useState("");
  const close = () => release.set(undefined);
  const submit = () =>
    mutate(ReleaseDocument, { input: { leaseIds: [lease] } }).then(
      ({ result }) => {
        if (result.__typename !== "ReleaseConcurrencySlotsPayload") return setProblem(result.message);
        if (!result.leaseIds.length) return setProblem("The slot was released already.");
        reload();
        close();
      },
      (error: Error) => setProblem(error.message),
    );
  return (
    <Dialog title={`Release a slot of ${name}`} close={close}>
      <Form submit={submit} label="Release">
        <p>Another run can take the slot at once, even if its holder still works.</p>
        {problem && <p class="problem">{problem}</p>}
      </Form>
    </Dialog>
  );
}

export function DeploymentDialog({ verb, id, name, parameterSchema, parameters, reload }: DeploymentAction) {
  const [values, setValues] = useState(() => defaults(parameterSchema, parameters));
  const [isInvalid, setInvalid] = useState(false);
  const [problem, setProblem] = useState("");
  const close = () => doDeployment.set(undefined);
  const send = async (): Promise<string | undefined> => {
    if (verb === "run") {
      const { result } = await mutate(RunDeploymentDocument, { input: { deploymentId: id, parameters: values } });
      if (result.__typename !== "CreateFlowRunPayload") return result.message;
      go(href(["runs", result.flowRun.id]));
      return undefined;
    }
    if (verb === "pause") {
      const { result } = await mutate(PauseDeploymentDocument, { id });
      return result.__typename === "PauseDeploymentPayload" ? undefined : result.message;
    }
    const { result } = await mutate(ResumeDeploymentDocument, { id });
    return "message" in result ? result.message : undefined;
  };
  const submit = () =>
    send().then(
      (refused) => {
        if (refused) return setProblem(refused);
        reload();
        close();
      },
      (error: Error) => setProblem(error.message),
    );
  const explained = { run: "A run is created with these parameters.", pause: "Its schedules create no runs; their runs that have not started are deleted.", resume: "Its schedules create runs again." };
  return (
    <Dialog title={`${{ run: "Run", pause: "Pause", resume: "Resume" }[verb]} ${name}`} close={close}>
      <Form submit={submit} label={{ run: "Run", pause: "Pause", resume: "Resume" }[verb]} disabled={isInvalid}>
        <p>{explained[verb]}</p>
        {verb === "run" && <SchemaForm schema={parameterSchema} value={values} onChange={setValues} onInvalid={setInvalid} />}
        {problem && <p class="problem">{problem}</p>}
      </Form>
    </Dialog>
  );
}

type FormProps = { submit: () => Promise<unknown>; label: string; disabled?: boolean; focused?: boolean; children: ComponentChildren };

/** A form with one button, which is off while it is sent. It keeps the focus then, which a disabled button would lose. */
export function Form({ submit, label, disabled = false, focused = true, children }: FormProps) {
  const [isBusy, setBusy] = useState(false);
  const isOff = isBusy || disabled;
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        if (isOff) return;
        setBusy(true);
        void submit().finally(() => setBusy(false));
      }}
    >
      {children}
      <button type="submit" class="primary" autofocus={focused} aria-disabled={isOff}>
        {label}
      </button>
    </form>
  );
}
