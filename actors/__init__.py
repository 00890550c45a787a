"""The engine: actors, each one thread of control and one SQLite file.

To read it, start with `actor` (what a user writes), then `host` (how one live actor runs messages and
commits), `storage`, `durability`, `stub` (what a caller holds) and `node` (one data directory). Alarms are
`alarms` (what one actor has set), `alarm_runs` (its runs) and `wakeups` (whose turn it is, beside `alarm_index`).
Nothing here imports from the other packages of the house.
"""
