"""The engine: actors, each one thread of control and one SQLite file.

To read it, start with `actor` (what a user writes), then `host` (how one live actor runs messages and
commits), `storage`, `durability`, `stub` (what a caller holds) and `node` (one data directory).
Nothing here imports from the other packages of the house.
"""
