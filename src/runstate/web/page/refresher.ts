// Runs a job after changes: soon after the first, then at most once in `gap` milliseconds, never twice at a time. A job that
// takes long is run less often, so that a view never keeps the server busy for more than a tenth of the time.
const SHARE = 10;
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
    this.timer = setTimeout(this.now, Math.max(SOON, this.last + Math.max(this.gap, SHARE * this.took) - Date.now()));
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
