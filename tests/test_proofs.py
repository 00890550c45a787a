"""Proofs do as much as they are told, and always the same."""

from __future__ import annotations

import pytest

from tests.proofs import AMOUNTS, Amount, Proof


@pytest.mark.parametrize(("amount", "many", "few"), [("quick", 20, 1), ("full", 200, 3), ("torture", 4_000, 60)])
def test_an_amount_says_how_many_seeds_a_proof_goes_through(amount: Amount, many: int, few: int) -> None:
    proof = Proof(amount)
    assert len(list(proof.seeds(200))) == proof.of(200) == many
    assert len(list(proof.seeds(3))) == few


def test_seeds_are_the_same_in_each_run_and_new_when_torturing() -> None:
    assert list(Proof("quick").seeds(30)) == list(Proof("quick").seeds(30)) == [0, 1, 2]
    assert next(Proof("torture").seeds(1)) != next(Proof("torture").seeds(1))


def test_one_seed_can_be_tried_again() -> None:
    assert [list(Proof(amount, seed=7).seeds(30)) for amount in AMOUNTS] == [[7]] * 3


def test_a_proof_out_of_time_ends_and_says_so() -> None:
    proof = Proof("torture", seconds=-1)
    assert list(proof.seeds(30)) == []
    assert proof.cut_short
