"""The checks of `runstate verify`. The `CHECKS` of each module in this package are executed."""
