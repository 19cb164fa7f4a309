// The palette: search runs and flows, go to places, act on the run that is shown.
import { useEffect, useState } from "preact/hooks";
import { ask } from "./client.ts";
import { RunByIdDocument, SearchDocument } from "./documents.ts";
import { toggleUtc } from "./format.ts";
import { go, href } from "./router.ts";
import { Dialog, nextTheme, opened, PLACES } from "./shell.tsx";
import { lookOf, toneOf } from "./states.ts";

const PAUSE = 120; // milliseconds without a key before the server is asked
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

type Choice = { label: string; hint: string; do: () => void; type?: string | null };

const COMMANDS: Choice[] = [
  ...PLACES.map(([key, name, label]) => ({ label: `Go to ${label}`, hint: `g ${key}`, do: () => go(href(name ? [name] : [])) })),
  { label: "Failed in the last hour, and why", hint: "", do: () => go(href(["runs"], { state: "failed,crashed", ended: "1h", sort: "-endTime" })) },
  { label: "Running now", hint: "", do: () => go(href(["runs"], { state: "running", sort: "-startTime" })) },
  { label: "Late runs", hint: "", do: () => go(href(["runs"], { late: "yes", sort: "expectedStartTime" })) },
  { label: "Slowest runs of the last day", hint: "", do: () => go(href(["runs"], { ended: "24h", sort: "-totalRunTimeSeconds" })) },
  { label: "What changed: the stream of transitions", hint: "l", do: () => opened.set("live") },
  { label: "Ask: GraphiQL", hint: "g a", do: () => location.assign("graphiql/") },
  { label: "Keys", hint: "?", do: () => opened.set("help") },
  { label: "Local time or UTC", hint: "t", do: toggleUtc },
  { label: "Next theme", hint: "T", do: nextTheme },
];

async function found(text: string): Promise<Choice[]> {
  if (UUID.test(text)) {
    const { node } = await ask(RunByIdDocument, { id: text });
    if (node?.__typename === "FlowRun") return [{ label: node.name, hint: "flow run", do: () => go(href(["runs", node.id])) }];
    const flowRun = node?.__typename === "TaskRun" ? node.flowRunId : undefined;
    if (node?.__typename === "TaskRun" && flowRun) {
      return [{ label: node.name, hint: "task run", do: () => go(href(["runs", flowRun], { task: node.id })) }];
    }
    return [];
  }
  const { flows, flowRuns } = await ask(SearchDocument, { text, flows: { name: { contains: text } } });
  return [
    ...flows.nodes.map(({ name }) => ({ label: name, hint: "flow", do: () => go(href(["flows", name])) })),
    ...flowRuns.nodes.map(({ id, name, flow, stateType, stateName }) => ({
      label: `${flow.name} › ${name}`,
      hint: stateName ?? "",
      type: stateType,
      do: () => go(href(["runs", id])),
    })),
    { label: `Runs that match “${text}”`, hint: "list", do: () => go(href(["runs"], { q: text })) },
    { label: `Runs with “${text}” in a message`, hint: "list", do: () => go(href(["runs"], { message: text })) },
  ];
}

export function Palette() {
  const [text, setText] = useState("");
  const [answers, setAnswers] = useState<Choice[]>([]);
  const [index, setIndex] = useState(0);
  const wanted = text.trim().toLowerCase();
  useEffect(() => {
    setIndex(0);
    if (!wanted) return setAnswers([]);
    let isCurrent = true;
    const timer = setTimeout(() => {
      found(text.trim()).then(
        (choices) => isCurrent && setAnswers(choices),
        () => isCurrent && setAnswers([]),
      );
    }, PAUSE);
    return () => {
      isCurrent = false;
      clearTimeout(timer);
    };
  }, [wanted]);
  const choices = [...COMMANDS.filter(({ label }) => label.toLowerCase().includes(wanted)), ...(wanted ? answers : [])];
  const close = () => opened.set(undefined);
  const take = (choice: Choice | undefined) => {
    if (!choice) return;
    close();
    choice.do();
  };
  const chosen = Math.min(index, choices.length - 1);
  const onKeyDown = (event: KeyboardEvent) => {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (by) setIndex(Math.max(0, Math.min(choices.length - 1, chosen + by)));
    else if (event.key === "Enter") take(choices[chosen]);
    else return;
    event.preventDefault();
  };
  return (
    <Dialog title="Search" close={close}>
      <div class="palette">
        <input
          role="combobox"
          aria-expanded="true"
          aria-controls="choices"
          aria-activedescendant={choices.length ? `choice-${chosen}` : undefined}
          aria-label="Search runs, flows and commands"
          placeholder="Name or id of a run, a flow, a command"
          autofocus
          value={text}
          onInput={(event) => setText(event.currentTarget.value)}
          onKeyDown={onKeyDown}
        />
        <div id="choices" role="listbox" aria-label="Choices">
          {choices.map((choice, at) => (
            <div key={`${choice.label}${choice.hint}${at}`} id={`choice-${at}`} role="option" aria-selected={at === chosen} onClick={() => take(choice)}>
              {choice.type && (
                <i class={`state ${toneOf(choice.type)}`} aria-hidden="true">
                  {lookOf(choice.type).shape}
                </i>
              )}
              <span>{choice.label}</span>
              <span class="faint">{choice.hint}</span>
            </div>
          ))}
        </div>
        {!choices.length && <p class="empty">Nothing matches.</p>}
      </div>
    </Dialog>
  );
}
