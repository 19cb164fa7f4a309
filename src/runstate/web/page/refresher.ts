// Runs a job after changes: soon after the first, then at most once in `gap` milliseconds, never twice at a time. A job that
// takes long is run less often, so that a view keeps the server busy for at most a fifth of the time.
const SHARE = 4;
const LONGEST = 3000; // milliseconds that a change waits for a job at most
const SOON = 40; // milliseconds in which changes are gathered

type Job = (isCurrent: () => boolean) => Promise<void>;

export class Refresher {
  private dirty = false;
  private busy = false;
  private stopped = false;
  private last = 0;
  private took = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly job: Job,
    private readonly gap: number,
    private readonly hidden: () => boolean = () => document.hidden,
  ) {}

  touch = (): void => {
    this.dirty = true;
    this.resume();
  };

  /** Continue, for example when the page is seen again. */
  resume = (): void => {
    if (!this.dirty || this.busy || this.stopped || this.timer !== undefined || this.hidden()) return;
    this.timer = setTimeout(this.now, Math.max(SOON, this.last + Math.max(this.gap, Math.min(LONGEST, SHARE * this.took)) - Date.now()));
  };

  now = async (): Promise<void> => {
    this.timer = undefined;
    this.dirty = false;
    this.busy = true;
    const began = Date.now();
    await this.job(() => !this.stopped);
    this.busy = false;
    this.last = Date.now();
    this.took = this.last - began;
    this.resume();
  };

  stop(): void {
    this.stopped = true;
    clearTimeout(this.timer);
  }
}
