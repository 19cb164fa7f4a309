// The connection to the server: queries over HTTP, subscriptions and mutations over one WebSocket.
import { type Client, createClient, type Sink } from "graphql-ws";
import type { TypedDocumentString } from "./documents.ts";
import { Signal } from "./signal.ts";

const KEY = "runstate.key";
const LONGEST_PAUSE = 5000; // milliseconds between two attempts to connect
const PING = 10_000; // milliseconds between two pings

export const endpoint = new URL("graphql", document.baseURI);
const socket = new URL(endpoint);
socket.protocol = endpoint.protocol.replace("http", "ws");

export type Connection = { state: "connecting" | "live" | "away"; since: number; delay?: number };
export const connection = new Signal<Connection>({ state: "connecting", since: Date.now() });
export const keyWanted = new Signal<string | undefined>(undefined);

export class GraphQLError extends Error {
  constructor(
    message: string,
    readonly code: string,
  ) {
    super(message);
  }
}

export type Asked = { query: string; variables: object };

function authorization(): Record<string, string> {
  const key = sessionStorage.getItem(KEY);
  if (!key) return {};
  return { Authorization: key.includes(":") ? `Basic ${btoa(key)}` : `Bearer ${key}` };
}

export const hasKey = () => Boolean(sessionStorage.getItem(KEY));

export function setKey(key: string | undefined): void {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
  location.reload();
}

export async function ask<Data, Variables extends object>(
  document: TypedDocumentString<Data, Variables>,
  variables: Variables,
  signal?: AbortSignal,
): Promise<Data> {
  const headers = {
    ...authorization(),
    "content-type": "application/json",
    accept: "application/graphql-response+json",
  };
  const body = JSON.stringify({ query: document, variables });
  const answer = await fetch(endpoint, { method: "POST", headers, body, signal: signal ?? null });
  if (!answer.headers.get("content-type")?.includes("json")) throw new GraphQLError(answer.statusText, "INTERNAL");
  return dataOf<Data>(await answer.json());
}

type Answer = { data?: unknown; errors?: readonly { message: string; extensions?: { code?: unknown } }[] };

function dataOf<Data>({ data, errors }: Answer): Data {
  const [error] = errors ?? [];
  if (!error) return data as Data;
  const code = String(error.extensions?.code ?? "INTERNAL");
  if (code === "UNAUTHENTICATED") keyWanted.set(hasKey() ? "This key is not valid." : "This server needs a key.");
  throw new GraphQLError(error.message, code);
}

let pinged = 0;
const client: Client = createClient({
  url: socket.href,
  connectionParams: authorization,
  retryAttempts: 0, // `follow` connects again, with the newest cursor
  keepAlive: PING,
  on: {
    connected: () => connection.set({ state: "live", since: Date.now() }),
    ping: (received) => {
      if (!received) pinged = performance.now();
    },
    pong: (received) => {
      if (received) connection.set({ ...connection.value, delay: performance.now() - pinged });
    },
    closed: (event) => {
      if ((event as CloseEvent).code === 4403) keyWanted.set("This key is not valid.");
      if (connection.value.state !== "away") connection.set({ state: "away", since: Date.now() });
    },
  },
});

/** Execute a mutation. Over the WebSocket it needs no CSRF token. */
export function mutate<Data, Variables extends object>(
  document: TypedDocumentString<Data, Variables>,
  variables: Variables,
): Promise<Data> {
  return new Promise((resolve, reject) => {
    let data: Data;
    const sink: Sink<Answer> = {
      next: (answer) => {
        try {
          data = dataOf<Data>(answer);
        } catch (error) {
          reject(error);
        }
      },
      error: (error) => reject(problemOf(error)),
      complete: () => resolve(data),
    };
    client.subscribe(payload(document, variables), sink as unknown as Sink<never>);
  });
}

/** Follow a subscription through lost connections. `variables` is called for each attempt. Returns a function that ends it. */
export function follow<Data, Variables extends object>(
  document: TypedDocumentString<Data, Variables>,
  variables: () => Variables | Promise<Variables>,
  next: (data: Data) => void,
  failed: (error: GraphQLError) => void | Promise<void> = () => {},
): () => void {
  let ended = false;
  let stop = () => {};
  let attempt = 0;
  async function begin(): Promise<void> {
    try {
      const given = await variables();
      if (ended) return;
      await new Promise<void>((resolve, reject) => {
        const sink: Sink<Answer> = {
          next: (answer) => {
            try {
              next(dataOf<Data>(answer));
              attempt = 0;
            } catch (error) {
              reject(error);
            }
          },
          error: reject,
          complete: resolve,
        };
        stop = client.subscribe(payload(document, given), sink as unknown as Sink<never>);
      });
    } catch (error) {
      if (!ended) await failed(problemOf(error));
    }
    if (ended || keyWanted.value) return;
    setTimeout(begin, pause(attempt++));
  }
  void begin();
  return () => {
    ended = true;
    stop();
  };
}

// At once after the first loss, then later and later, not all clients at the same time.
const pause = (attempt: number) => (attempt ? Math.min(LONGEST_PAUSE, 100 * 2 ** attempt) * (0.5 + Math.random() / 2) : 50);

const payload = (document: object, variables: object) => ({
  query: document.toString(),
  variables: variables as Record<string, unknown>,
});

function problemOf(error: unknown): GraphQLError {
  if (error instanceof GraphQLError) return error;
  const [first] = Array.isArray(error) ? error : [error];
  return new GraphQLError(first?.message ?? first?.reason ?? "The connection was lost.", String(first?.extensions?.code ?? "LOST"));
}

export const inGraphiQL = ({ query, variables }: Asked) =>
  `graphiql/#${new URLSearchParams({ query: query.trim(), variables: JSON.stringify(variables, null, 2) })}`;

export const asCurl = ({ query, variables }: Asked) => {
  const body = JSON.stringify({ query, variables }).replaceAll("'", "'\\''");
  return `curl -s ${endpoint.href} -H 'Content-Type: application/json' -d '${body}'`;
};
