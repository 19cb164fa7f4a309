"""Execution of operations: plans answer stored data, graphql-core answers everything else."""
