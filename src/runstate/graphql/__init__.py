"""The GraphQL API. No other package imports Strawberry and graphql-core."""
