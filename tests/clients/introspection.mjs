// Prints the introspection documents of GraphiQL and graphql-codegen as a JSON list.
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
