// Prints what a client is told, a line of JSON each: node told.mjs ws|sse URL PAYLOAD [CONNECTION_PARAMS].
// After each batch of transitions the next connection goes on at its cursor.
import { createClient as createEvents } from "graphql-sse";
import { createClient as createSocket } from "graphql-ws";

const [transport, url, text, connectionParams = "null"] = process.argv.slice(2);
const payload = { variables: {}, ...JSON.parse(text) };
const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);
const often = { retryAttempts: 1000 };

const client =
  transport === "ws"
    ? createSocket({
        url: url.replace(/^http/, "ws"),
        connectionParams: JSON.parse(connectionParams) ?? undefined,
        shouldRetry: () => true, // unless told, it comes back after a close, but not after an error of the network
        retryWait: () => Promise.resolve(),
        ...often,
      })
    : createEvents({ url, retry: () => Promise.resolve(), ...often });

client.subscribe(payload, {
  next(result) {
    const cursor = result.data?.transitions?.cursor;
    if (cursor) payload.variables.after = cursor;
    say({ next: result });
  },
  error(error) {
    say({ error: Array.isArray(error) ? error : { code: error?.code, message: String(error?.message ?? error) } });
    process.exitCode = 1;
  },
  complete: () => say({ complete: true }),
});
