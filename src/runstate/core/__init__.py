"""What may happen: states, rules, policies, and the one writer of states."""
