"""The checks of `runstate verify`: a module for each subject, whose `CHECKS` are found by being here."""
