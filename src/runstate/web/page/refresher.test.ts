import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { Refresher } from "./refresher.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

it("runs nothing without a change", async () => {
  const job = vi.fn(async () => {});
  const refresher = new Refresher(job, 1000, () => false);
  await refresher.now();
  await vi.advanceTimersByTimeAsync(60_000);
  expect(job).toHaveBeenCalledTimes(1);
});

it("runs once for many changes, then at most once in a gap", async () => {
  const job = vi.fn(async () => {});
  const refresher = new Refresher(job, 1000, () => false);
  for (let time = 0; time < 3000; time += 10) {
    refresher.touch();
    await vi.advanceTimersByTimeAsync(10);
  }
  await vi.advanceTimersByTimeAsync(5000);
  expect(job.mock.calls.length).toBeGreaterThanOrEqual(3);
  expect(job.mock.calls.length).toBeLessThanOrEqual(4);
});

it("does not miss a change during the job, and waits while the page is hidden", async () => {
  let isHidden = false;
  let finish = () => {};
  const job = vi.fn(() => new Promise<void>((resolve) => (finish = resolve)));
  const refresher = new Refresher(job, 1000, () => isHidden);
  void refresher.now();
  refresher.touch();
  isHidden = true;
  finish();
  await vi.advanceTimersByTimeAsync(5000);
  expect(job).toHaveBeenCalledTimes(1);
  isHidden = false;
  refresher.resume();
  await vi.advanceTimersByTimeAsync(2000);
  expect(job).toHaveBeenCalledTimes(2);
});

it("does nothing after it was stopped", async () => {
  const job = vi.fn(async () => {});
  const refresher = new Refresher(job, 10, () => false);
  refresher.touch();
  refresher.stop();
  await vi.advanceTimersByTimeAsync(1000);
  expect(job).not.toHaveBeenCalled();
});
