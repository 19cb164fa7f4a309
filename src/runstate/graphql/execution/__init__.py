"""Execution of accepted operations. Three ways lead to the same answer; tests compare them over generated documents.

`operation` decides everything else first: which operation, validation, scopes, limits, cost. Then one of these runs:

1. **The fast path** (`fast_path`) for a mutation of one field whose arguments are variables, from its second execution
   on: it reads the variables into documents, calls the resolver, and writes the answer by plans.
2. **Plans** (`planner`, `plans`, `related_plans`), within the executor (`executor`): selections of rows, lists of
   objects and connections, written as JSON column by column.
3. **graphql-core** for everything else, and for all that a plan or the fast path does not handle (`fallbacks`). Nothing
   is done twice: plans have no side effects, and the outcome of a resolver that was called is used.

`RUNSTATE_PLANS=false` leaves everything to graphql-core. `runstate_plan_fallbacks_total` counts fallbacks by reason.
"""
