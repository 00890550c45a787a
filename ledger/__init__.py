"""The ledger: entities that keep append-only, hash-chained facts, and projections folded from them.

To read it, start with `fact` (what a fact is), then `chain` and `query` (pure), `projection`, `ledger`
(one entity's facts) and `entity` (what a user writes).
"""
