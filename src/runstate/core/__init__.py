"""State orchestration: states, rules, policies, the batches that write states, and commands."""
