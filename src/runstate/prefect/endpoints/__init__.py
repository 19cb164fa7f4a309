"""The endpoints, one module for each subject. A new module is found without being listed."""
