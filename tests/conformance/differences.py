"""Where z0 ends differently on purpose, and why: one entry for each `differs` of the scenarios."""

DIFFERENCES: dict[str, str] = {}
