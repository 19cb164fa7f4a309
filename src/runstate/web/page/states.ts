// How states look: a shape and a word beside each colour.
export type Look = { shape: string; letter: string; label: string };

export const LOOKS: Record<string, Look> = {
  SCHEDULED: { shape: "◷", letter: "S", label: "scheduled" },
  PENDING: { shape: "◌", letter: "P", label: "pending" },
  RUNNING: { shape: "▶", letter: "R", label: "running" },
  PAUSED: { shape: "‖", letter: "Z", label: "paused" },
  CANCELLING: { shape: "⊖", letter: "L", label: "cancelling" },
  COMPLETED: { shape: "✓", letter: "C", label: "completed" },
  FAILED: { shape: "✗", letter: "F", label: "failed" },
  CANCELLED: { shape: "⊘", letter: "X", label: "cancelled" },
  CRASHED: { shape: "☠", letter: "D", label: "crashed" },
};

export const TYPES = Object.keys(LOOKS);
const NONE: Look = { shape: "·", letter: "?", label: "no state" };

export const lookOf = (type: string | null | undefined): Look => (type && LOOKS[type]) || NONE;

export const toneOf = (type: string | null | undefined): string => `is-${(type ?? "none").toLowerCase()}`;
