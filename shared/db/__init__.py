"""Postgres, the truth. A function is a verb, takes the transaction first and never commits; the edge opens it.

Only this package imports SQLAlchemy. Hot statements are written as SQL over arrays, so that any number of rows costs
one round trip; the rest is SQLAlchemy Core.
"""
