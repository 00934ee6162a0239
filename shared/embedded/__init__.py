"""Postgres and Valkey (a Redis) run from their wheels, under a small supervisor of child processes.

For one machine and for tests; where `SLUICE_DATABASE_URL` and `SLUICE_REDIS_URL` are set, nothing here is used but
`children`.
"""
