"""The front door: HTTP in, Postgres and Redis out. It never calls a provider."""
