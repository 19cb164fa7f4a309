// Writes page/documents.ts: the documents of page/documents.graphql as strings, with the types of their answers.
import { readFile, writeFile } from "node:fs/promises";
import { codegen } from "@graphql-codegen/core";
import * as documentNodes from "@graphql-codegen/typed-document-node";
import * as operations from "@graphql-codegen/typescript-operations";
import { parse } from "graphql";

const read = async (name) => parse(await readFile(new URL(name, import.meta.url), "utf8"));
const location = "page/documents.graphql";
const common = {
  scalars: { DateTime: "string", JSON: "unknown" },
  strictScalars: true,
  useTypeImports: true,
  enumType: "string-literal",
  enumsAsTypes: true,
  skipTypename: true,
  documentMode: "string",
};
const code = await codegen({
  filename: "documents.ts",
  schema: await read("../../../schema.graphql"),
  documents: [{ location, document: await read(location) }],
  config: common,
  plugins: [{ operations: {} }, { documentNodes: {} }],
  pluginMap: { operations, documentNodes },
});
await writeFile(new URL("page/documents.ts", import.meta.url), `// @ts-nocheck\n${code}`);
