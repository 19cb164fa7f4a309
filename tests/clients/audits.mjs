// Prints the results of the audits of GraphQL over HTTP as JSON: node audits.mjs URL [HEADERS].
import { auditServer } from "graphql-http";

const [url, headers = "{}"] = process.argv.slice(2);
const more = JSON.parse(headers);
const fetchFn = (to, init = {}) => fetch(to, { ...init, headers: { ...init.headers, ...more } });
const results = await auditServer({ url, fetchFn });
process.stdout.write(JSON.stringify(results.map(({ id, name, status, reason }) => ({ id, name, status, reason }))));
