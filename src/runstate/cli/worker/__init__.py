"""`runstate worker`: claims runs of a work pool of type `process` and executes each as a command."""
