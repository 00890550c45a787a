"""Durable workflows: code that outlives its process, because every step it takes is in a journal.

A workflow instance is an actor whose SQLite file is that journal. If you are here to read the code: `journal` says what
is kept, `history` folds it, `run` is one execution of a body against it, `steps` and `attempts` take its steps, and
`workflow` is the actor around all that. `instances` and `instance` are what callers hold.
"""
