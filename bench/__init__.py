"""The benchmark: what z0 costs beyond the bare thing, measured on your own machine.

Every case runs beside its floor (bare apsw, bare fdatasync, a bare coroutine) in the same process, on the
same disk, in shuffled rounds, because absolute figures move with the machine and ratios hold. Run it with
`z0 bench`.

Read in this order: `cli` (what can be asked), `workload` (the entity and the facts), `floors` (what we
compare with), `append_case` (the main question), `measure` and `stats` (how a figure is made), `report`
(how it is shown).
"""
