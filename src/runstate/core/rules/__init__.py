"""Rules: a module for each subject, a function for each rule. Policies order them."""
