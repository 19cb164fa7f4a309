// Prints the events of a subscription as lines of JSON: node subscriber.mjs ws|sse URL PAYLOAD [CONNECTION_PARAMS].
// A new connection resumes at the cursor of the last batch of transitions.
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
        shouldRetry: () => true, // by default it reconnects after a close, but not after a network error
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
