// One run from all sides.
import { useRef } from "preact/hooks";
import { type Good, ghostOf } from "./compare.ts";
import { LastGoodDocument, RunDocument, type RunQuery } from "./documents.ts";
import { action, actionsOf, type Subject } from "./doing.ts";
import { Details } from "./details.tsx";
import { duration, secondsSince } from "./format.ts";
import { Graph } from "./graph.tsx";
import { useKeys } from "./keyboard.ts";
import { Logs } from "./logs.tsx";
import { useNow } from "./now.ts";
import { Ago, At, brief, Empty, isEmpty, Json, Loaded, RunLink, State, Tags } from "./parts.tsx";
import { useQuery } from "./query.ts";
import { may } from "./rights.ts";
import { back, href, place, setParams } from "./router.ts";
import { useTitle } from "./shell.tsx";
import { useSignal } from "./signal.ts";
import { type Change, changed } from "./store.ts";
import { useChangesSince } from "./stored.ts";
import { States, Why } from "./states.tsx";
import { Groups, labelOf, TaskTable } from "./tasks.tsx";
import { type Lane, Timeline } from "./timeline.tsx";
import { bar, withChanges } from "./timeline.ts";

const TASKS = 200; // task runs that are drawn one by one; more are grouped by task

export type OneRun = NonNullable<RunQuery["flowRun"]>;
export type TaskRun = OneRun["taskRuns"]["nodes"][number];

export function Run({ id }: { id: string }) {
  const query = useQuery(
    RunDocument,
    { id, tasks: TASKS, after: null },
    { main: true, gap: 400, matters: ({ runId, flowRunId }) => runId === id || flowRunId === id },
  );
  const changes = useChangesSince(query.data, ({ runId, flowRunId }) => runId === id || flowRunId === id);
  return (
    <Loaded query={query}>
      {({ flowRun }) =>
        flowRun ? (
          <Shown run={newest(flowRun, changes)} />
        ) : (
          <Empty>
            There is no run with this id. It may have been deleted. <a href="#/runs">All runs</a>
          </Empty>
        )
      }
    </Loaded>
  );
}

type Stateful = { id: string; states: { nodes: OneRun["states"]["nodes"] | TaskRun["states"]["nodes"] } };

function current<Each extends Stateful & Parameters<typeof changed>[0]>(run: Each, changes: readonly Change[]): Each {
  const ours = changes.filter(({ runId }) => runId === run.id);
  if (!ours.length) return run;
  const states = { nodes: withChanges(run.states.nodes, ours) as typeof run.states.nodes };
  return { ...ours.reduce((state, change) => changed(state, change), run), states };
}

function newest(run: OneRun, changes: readonly Change[]): OneRun {
  if (!changes.length) return run;
  const taskRuns = { ...run.taskRuns, nodes: run.taskRuns.nodes.map((task) => current(task, changes)) };
  return { ...current(run, changes), taskRuns };
}

const TABS = ["timeline", "graph", "states", "tasks", "inputs", "artifacts", "logs"] as const;
type Tab = (typeof TABS)[number];

function Shown({ run }: { run: OneRun }) {
  useTitle(run.name);
  const { params } = useSignal(place);
  const tab = TABS.find((each) => each === params.tab) ?? "timeline";
  const tasks = run.taskRuns.nodes;
  const selected = tasks.find((each) => each.id === params.task);
  const labels: Record<Tab, string> = {
    timeline: "Timeline",
    graph: "Graph",
    states: `States ${run.states.nodes.length}`,
    tasks: `Task runs ${run.taskRuns.totalCount.toLocaleString("en")}`,
    inputs: "Parameters & inputs",
    artifacts: `Artifacts ${run.artifacts.nodes.length}`,
    logs: "Logs",
  };
  const subject = subjectOf(run);
  // A transition does not say which input a paused run waits for.
  const isRead = run.states.nodes.at(-1)?.details !== undefined;
  const verbs = actionsOf(subject).filter((verb) => verb !== "resume" || isRead);
  const rights = useSignal(may);
  const isCompared = params.compare === "last";
  const others = { flow: { id: { eq: run.flow.id } }, stateType: { eq: "COMPLETED" as const }, id: { ne: run.id } };
  const compared = useQuery(LastGoodDocument, { where: others }, { skip: !isCompared });
  const good = isCompared ? compared.data?.flowRuns.nodes[0] : undefined;
  const compare = () => setParams({ compare: isCompared ? undefined : "last", tab: undefined });
  const act = (verb: (typeof verbs)[number]) => () => {
    if (rights.propose && verbs.includes(verb)) action.set({ verb, subject });
  };
  const choose = (by: number) => {
    const next = tasks[Math.max(0, Math.min(tasks.length - 1, tasks.findIndex((each) => each.id === params.task) + by))];
    setParams({ task: next?.id });
  };
  const step = (by: number) => () => setParams({ tab: TABS[(TABS.indexOf(tab) + by + TABS.length) % TABS.length] });
  useKeys({
    r: act("retry"),
    c: act("cancel"),
    p: act("pause"),
    ...(isRead ? { u: act("resume") } : {}),
    w: act("what-if"),
    v: compare,
    j: () => choose(1),
    k: () => choose(-1),
    "[": step(-1),
    "]": step(1),
    Escape: () => (params.task ? setParams({ task: undefined }) : back()),
  });
  const isGrouped = run.taskRuns.totalCount > TASKS;
  return (
    <article class="run">
      <Head run={run} />
      <div class="actions" role="group" aria-label="Actions">
        {rights.propose &&
          verbs.map((verb) => (
            <button key={verb} type="button" onClick={act(verb)}>
              {verb === "what-if" ? "What if" : verb[0]?.toUpperCase() + verb.slice(1)} <kbd>{verb === "resume" ? "u" : verb[0]}</kbd>
            </button>
          ))}
        <button type="button" onClick={compare} aria-pressed={isCompared}>
          Compare <kbd>v</kbd>
        </button>
        {isCompared && compared.data && (
          <span class="faint">
            {good ? (
              <>
                behind: <RunLink run={good} flow={false} />, the last completed run
              </>
            ) : (
              "No other run of the flow has completed."
            )}
          </span>
        )}
      </div>
      <Waits run={run} />
      <div class="tabs" role="tablist" aria-label="Sides of the run">
        {TABS.map((each) => (
          <button
            key={each}
            type="button"
            role="tab"
            id={`tab-${each}`}
            aria-selected={each === tab}
            aria-controls="panel"
            tabIndex={each === tab ? 0 : -1}
            onClick={() => setParams({ tab: each })}
            onKeyDown={(event) => {
              const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
              if (!by) return;
              event.stopPropagation();
              step(by)();
              requestAnimationFrame(() => document.querySelector<HTMLElement>('[role="tab"][aria-selected="true"]')?.focus());
            }}
          >
            {labels[each]}
          </button>
        ))}
      </div>
      <div id="panel" role="tabpanel" aria-labelledby={`tab-${tab}`}>
        {tab === "timeline" && (isGrouped ? <Groups run={run} /> : <Timeline lanes={lanesOf(run, good)} selected={params.task} />)}
        {tab === "graph" && <Graph tasks={tasks} more={isGrouped} />}
        {tab === "states" && <States states={run.states.nodes} />}
        {tab === "tasks" && (isGrouped ? <Groups run={run} /> : <TaskTable tasks={tasks} />)}
        {tab === "inputs" && <Inputs run={run} />}
        {tab === "artifacts" && <Details run={run} />}
        {tab === "logs" && <Logs key={run.id} run={run.id} />}
      </div>
      {selected && (tab === "timeline" || tab === "graph" || tab === "tasks") && <Selected task={selected} />}
    </article>
  );
}

export function subjectOf(run: OneRun): Subject {
  const details = run.states.nodes.at(-1)?.details;
  const keys = (details && "runInputKeyset" in details ? details.runInputKeyset : null) as Record<string, string> | null;
  const valueOf = (role: string) => run.inputs.nodes.find(({ key }) => key === keys?.[role])?.value;
  const input = keys && stateIs(run, "PAUSED") ? { schema: valueOf("schema"), description: String(valueOf("description") ?? "") } : undefined;
  const { id, name, version, stateType, deployment } = run;
  return { kind: "flowRun", id, name, version, stateType, deployment, input };
}

const stateIs = ({ stateType }: OneRun, type: string) => stateType === type;

function lanesOf(run: OneRun, good: Good | undefined): Lane[] {
  return [
    { id: run.id, label: run.name, states: run.states.nodes, isWhole: true, ghost: ghostOf(good, run.startTime), run },
    ...run.taskRuns.nodes.map((task) => ({ id: task.id, label: labelOf(task, run.taskRuns.nodes), states: task.states.nodes, isWhole: false, ghost: ghostOf(good, run.startTime, task), run: task })),
  ];
}

function Head({ run }: { run: OneRun }) {
  const now = useNow();
  const { attempts } = bar(run.states.nodes, now);
  const { retries } = run.policy;
  const end = run.endTime ? Date.parse(run.endTime) : now;
  const message = run.states.nodes.at(-1)?.message;
  return (
    <header class="run-head">
      <h1>
        <a class="faint" href={href(["flows", run.flow.name])}>
          {run.flow.name}
        </a>
        <span class="faint"> › </span>
        {run.name}
      </h1>
      <p class="line">
        <State run={run} />
        {message && <q class="message">{message}</q>}
        {attempts > 1 && (
          <span>
            attempt {attempts}
            {retries ? ` of ${retries + 1}` : ""}
          </span>
        )}
        <span>
          <At time={run.startTime} /> → {run.endTime ? <At time={run.endTime} /> : run.startTime ? "now" : "–"}
        </span>
        {run.startTime && <b>{duration(Math.max(0, secondsSince(run.startTime, end)))}</b>}
        {!run.startTime && run.nextScheduledStartTime && (
          <span>
            scheduled <Ago time={run.nextScheduledStartTime} />
          </span>
        )}
      </p>
      <p class="line facts">
        {!isEmpty(run.parameters) && <code>{brief(run.parameters)}</code>}
        <Tags tags={run.tags} />
        {run.deployment && (
          <span>
            deployment <a href={href(["deployments"], { name: run.deployment.name })}>{run.deployment.name}</a>
          </span>
        )}
        {run.workPool && (
          <span>
            pool <a href={href(["pools"])}>{run.workPool.name}</a> / {run.workQueueName}
          </span>
        )}
        {run.createdBy && <span>by {run.createdBy.displayValue ?? run.createdBy.type}</span>}
        {run.parentTaskRun?.flowRun && (
          <span>
            subflow of <RunLink run={run.parentTaskRun.flowRun} />
          </span>
        )}
        <a href={href(["runs"], { flow: run.flow.name })}>other runs</a>
      </p>
    </header>
  );
}

/** What the run and its task runs wait for, from their last answers. */
function Waits({ run }: { run: OneRun }) {
  const waiting = [run, ...run.taskRuns.nodes].filter((each) => each.lastAnswer && !each.endTime);
  if (!waiting.length) return null;
  return (
    <ul class="list waits" aria-label="What is waited for">
      {waiting.slice(0, 5).map(({ id, name, lastAnswer }) => (
        <li key={id}>
          <span class="state is-late">
            <i aria-hidden="true">⏳</i> {name}
          </span>
          <span class="why">
            {lastAnswer?.reason}
            {(lastAnswer?.attempts ?? 0) > 1 && ` (asked ${lastAnswer?.attempts} times)`}{" "}
            {lastAnswer?.limits.map((limit) => (
              <a key={limit.id} href={href(["limits"], { name: limit.name })}>
                {limit.name}
              </a>
            ))}
          </span>
          <Ago time={lastAnswer?.at} />
        </li>
      ))}
    </ul>
  );
}

function Inputs({ run }: { run: OneRun }) {
  return (
    <div class="columns">
      <section>
        <h2>Parameters</h2>
        {isEmpty(run.parameters) ? <Empty>No parameters.</Empty> : <Json value={run.parameters} />}
        {!isEmpty(run.labels) && (
          <>
            <h2>Labels</h2>
            <Json value={run.labels} />
          </>
        )}
      </section>
      <section>
        <h2>Inputs</h2>
        {!run.inputs.nodes.length && <Empty>No inputs.</Empty>}
        {run.inputs.nodes.map(({ id, key, value, sender, created }) => (
          <div key={id}>
            <p>
              <b>{key}</b> <span class="faint">{sender ? `from ${sender}` : ""}</span> <Ago time={created} />
            </p>
            <Json value={value} />
          </div>
        ))}
      </section>
    </div>
  );
}

function Selected({ task }: { task: TaskRun }) {
  const rights = useSignal(may);
  const heading = useRef<HTMLHeadingElement>(null);
  const { id, name, version, stateType } = task;
  return (
    <section class="chosen" aria-labelledby="chosen">
      <h2 id="chosen" ref={heading}>
        {task.taskKey} <State run={task} /> <span class="faint">{task.name}</span>
        {task.childFlowRun && (
          <>
            {" "}
            <span class="faint">runs</span> <RunLink run={task.childFlowRun} flow={false} />
          </>
        )}
        <span class="grow" />
        {rights.propose && (
          <button type="button" class="small" onClick={() => action.set({ verb: "what-if", subject: { kind: "taskRun", id, name, version, stateType } })}>
            What if
          </button>
        )}
        <button type="button" class="small" onClick={() => setParams({ task: undefined })} aria-label="Close the task run">
          ✕
        </button>
      </h2>
      <Why run={task} />
      <States states={task.states.nodes} />
    </section>
  );
}
