// What this client may do now: by the scopes of its key, and only while it is connected.
import { connection } from "./client.ts";
import { viewer } from "./live.ts";
import { Signal } from "./signal.ts";

export type Rights = { propose: boolean; admin: boolean };

function rights(): Rights {
  const scopes = connection.value.state === "away" ? [] : (viewer.value?.scopes ?? []);
  return { propose: scopes.includes("PROPOSE") || scopes.includes("ADMIN"), admin: scopes.includes("ADMIN") };
}

export const may = new Signal<Rights>(rights());

function update(): void {
  const next = rights();
  if (next.propose !== may.value.propose || next.admin !== may.value.admin) may.set(next);
}

connection.listen(update);
viewer.listen(update);
