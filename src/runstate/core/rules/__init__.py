"""The rules: one module a subject, one function a rule. Policies put them in order."""
