"""Durable workflows: code that outlives its process, because every step it takes is in a journal.

A workflow instance will be an actor whose SQLite file is that journal, built on `z0.actors` and `z0.ledger`
alone. These are the next rooms of the house; nothing lives here yet.
"""
