// What is asked of the user before something is done; the dialogs listen to these.
import type { FlowRunWhere, StateType } from "./documents.ts";
import { Signal } from "./signal.ts";

export type Verb = "retry" | "cancel" | "delete";
export type Bulk = { verb: Verb; where: FlowRunWhere; count: number };
export const bulk = new Signal<Bulk | undefined>(undefined);

/** Ask whether all runs of a flow that have not ended are to be cancelled. */
export function cancelUnfinished({ name, unfinished }: { name: string; unfinished: { totalCount: number } }): void {
  const where: FlowRunWhere = { flow: { name: { eq: name } }, stateType: { in: ["SCHEDULED", "PENDING", "RUNNING", "PAUSED"] } };
  bulk.set({ verb: "cancel", where, count: unfinished.totalCount });
}

export type Subject = {
  kind: "flowRun" | "taskRun";
  id: string;
  name: string;
  version: number;
  stateType?: string | null;
  deployment?: { id: string } | null;
  /** The input that a paused run waits for, with its JSON schema. */
  input?: { schema: unknown; description: string } | undefined;
};
/** `type` is the state that "what if" asks about first. */
export type Action = { verb: "retry" | "cancel" | "pause" | "resume" | "what-if"; subject: Subject; type?: StateType };
export const action = new Signal<Action | undefined>(undefined);

const FINAL = new Set(["COMPLETED", "FAILED", "CANCELLED", "CRASHED"]);

/** The actions that the rules would accept for a flow run, in the order of their buttons. */
export function actionsOf({ kind, stateType, deployment }: Subject): Action["verb"][] {
  if (kind === "taskRun") return ["what-if"];
  const isFinal = FINAL.has(stateType ?? "");
  return [
    ...(isFinal && deployment ? ["retry" as const] : []),
    ...(stateType === "PAUSED" ? ["resume" as const] : []),
    ...(stateType === "RUNNING" ? ["pause" as const] : []),
    ...(!isFinal && stateType !== "CANCELLING" && stateType ? ["cancel" as const] : []),
    "what-if",
  ];
}

export type Released = { lease: string; name: string; reload: () => void };
export const release = new Signal<Released | undefined>(undefined);

export type DeploymentAction = {
  verb: "run" | "pause" | "resume";
  id: string;
  name: string;
  parameterSchema: unknown;
  parameters: unknown;
  reload: () => void;
};
export const doDeployment = new Signal<DeploymentAction | undefined>(undefined);
