// The newest known state of each run. Of two versions of a run, the greater one is newer; nothing else decides.
export type Versioned = { id: string; version: number };

export type RunState = Versioned & {
  stateType?: string | null;
  stateName?: string | null;
  stateTimestamp?: string | null;
  startTime?: string | null;
  endTime?: string | null;
  state?: { message?: string | null } | null;
};

export type Change = {
  runId: string;
  runKind: string;
  flowRunId?: string | null;
  flowId?: string | null;
  version: number;
  occurred: string;
  previousStateType?: string | null;
  previousStateName?: string | null;
  stateType: string;
  stateName: string;
  message?: string | null;
};

export const FINAL: ReadonlySet<string> = new Set(["COMPLETED", "FAILED", "CANCELLED", "CRASHED"]);

/** Return a run after a change; the run itself if the change is not newer. */
export function changed<Run extends RunState>(run: Run, change: Change): Run {
  if (change.version <= run.version) return run;
  const starts = change.stateType === "RUNNING" && !run.startTime;
  const ends = FINAL.has(change.stateType);
  return {
    ...run,
    version: change.version,
    stateType: change.stateType,
    stateName: change.stateName,
    stateTimestamp: change.occurred,
    startTime: starts ? change.occurred : run.startTime,
    endTime: ends ? change.occurred : null,
    state: { ...run.state, message: change.message ?? null },
  };
}

export class Store {
  private readonly runs = new Map<string, Change>();
  private readonly limit: number;

  constructor(limit = 50_000) {
    this.limit = limit;
  }

  /** Keep changes that are newer than what is known. Returns these. */
  apply(changes: readonly Change[]): Change[] {
    const newer = changes.filter((change) => change.version > (this.runs.get(change.runId)?.version ?? 0));
    for (const change of newer) {
      const known = this.runs.get(change.runId);
      if (known && known.version >= change.version) continue;
      // Deleted first, so that the map is in the order of the changes.
      this.runs.delete(change.runId);
      this.runs.set(change.runId, change);
    }
    for (const id of this.runs.keys()) {
      if (this.runs.size <= this.limit) break;
      this.runs.delete(id);
    }
    return newer;
  }

  /** Return a run in its newest known state. */
  newest<Run extends RunState>(run: Run): Run {
    const change = this.runs.get(run.id);
    return change ? changed(run, change) : run;
  }

  get size(): number {
    return this.runs.size;
  }
}

/** Put the newest page of a list in front of the rows that were loaded after it. */
export function withFirstPage<Row extends { id: string }>(rows: readonly Row[], page: readonly Row[]): Row[] {
  const ids = new Set(page.map(({ id }) => id));
  const last = page.at(-1);
  const position = last ? rows.findIndex(({ id }) => id === last.id) : -1;
  const rest = position < 0 ? [] : rows.slice(position + 1);
  return [...page, ...rest.filter(({ id }) => !ids.has(id))];
}
