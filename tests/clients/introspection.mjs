// Prints the documents with which GraphiQL and graphql-codegen ask for a schema, as a JSON list.
import { getIntrospectionQuery } from "graphql";

const everything = {
  descriptions: true,
  specifiedByUrl: true,
  directiveIsRepeatable: true,
  schemaDescription: true,
  inputValueDeprecation: true,
  oneOf: true,
};
process.stdout.write(JSON.stringify([getIntrospectionQuery(), getIntrospectionQuery(everything)]));
