"""Scenarios: what is kept together, and what is taken back."""

from __future__ import annotations

from tests.conformance.scenario import call, on, scenario, together

_FAIL = ["raise", "Error", "because of this"]

TRANSACTIONS = [
    scenario(
        "A transaction keeps what was written in it",
        call(["transaction", ["put", "a", 1], ["sql", "CREATE TABLE t(x)"], ["get", "a"]]),
        call(["list"], ["sql", "SELECT * FROM t"]),
    ),
    scenario(
        "A transaction that is left by an error takes its writes back, and nothing else",
        call(
            ["put", "before", 1],
            ["try", ["transaction", ["put", "in", 1], ["delete", "before"], _FAIL]],
            ["put", "after", 1],
        ),
        call(["list"]),
    ),
    scenario(
        "A transaction takes tables back too",
        call(
            ["sql", "CREATE TABLE t(x)"],
            ["try", ["transaction", ["sql", "CREATE TABLE u(x)"], ["sql", "DROP TABLE t"], _FAIL]],
            ["try", ["sql", "SELECT * FROM u"]],
            ["sql", "SELECT * FROM t"],
        ),
    ),
    scenario(
        "The very first write may be taken back, and made again",
        call(["try", ["transaction", ["put", "a", 1], _FAIL]], ["list"], ["put", "a", 2]),
        call(["list"]),
    ),
    scenario(
        "Transactions nest, and an inner one may fail alone",
        call(
            [
                "transaction",
                ["put", "outer", 1],
                ["try", ["transaction", ["put", "inner", 1], _FAIL]],
                ["transaction", ["put", "second", 1]],
                ["list"],
            ]
        ),
        call(["list"]),
    ),
    scenario(
        "An outer transaction takes back what an inner one kept",
        call(["try", ["transaction", ["put", "outer", 1], ["transaction", ["put", "inner", 1]], _FAIL]], ["list"]),
    ),
    scenario(
        "Transactions nest 10 deep",
        call(
            [
                "transaction",
                [
                    "transaction",
                    [
                        "transaction",
                        [
                            "transaction",
                            [
                                "transaction",
                                [
                                    "transaction",
                                    [
                                        "transaction",
                                        ["transaction", ["transaction", ["transaction", ["put", "deep", 1]]]],
                                    ],
                                ],
                            ],
                        ],
                    ],
                ],
            ]
        ),
        call(["get", "deep"]),
    ),
    scenario(
        "A statement that fails inside a transaction need not end it",
        call(
            ["sql", "CREATE TABLE t(x UNIQUE)"],
            [
                "transaction",
                ["sql", "INSERT INTO t VALUES(1)"],
                ["try", ["sql", "INSERT INTO t VALUES(1)"]],
                ["sql", "INSERT INTO t VALUES(2)"],
            ],
            ["sql", "SELECT * FROM t"],
        ),
    ),
    scenario(
        "A call that raises keeps what it wrote", call(["put", "a", 1], _FAIL), call(["list"]), differs="roll-back"
    ),
    scenario(
        "A call that raises after a wait keeps what it wrote before the wait",
        call(["put", "a", 1], ["pause", 20], _FAIL),
        call(["list"]),
    ),
    scenario(
        "A call that raises after a wait keeps what it wrote since",
        call(["put", "a", 1], ["pause", 20], ["put", "b", 1], _FAIL),
        call(["list"]),
        differs="roll-back",
    ),
    scenario(
        "A call that catches its error keeps what it wrote",
        call(["put", "a", 1], ["try", ["put", "b", 1], _FAIL]),
        call(["list"]),
    ),
    scenario("Memory is not taken back", call(["remember", "it", 1], _FAIL), call(["recall", "it"])),
    scenario(
        "An abort takes back what was written since the last wait",
        call(["put", "a", 1], ["sync"], ["put", "b", 1], ["abort", "because I must"]),
        call(["list"]),
    ),
    scenario(
        "An abort before anything is durable keeps nothing",
        call(["put", "a", 1], ["sql", "CREATE TABLE t(x)"], ["abort", "because I must"]),
        call(["list"], ["try", ["sql", "SELECT * FROM t"]]),
    ),
    scenario(
        "An asynchronous transaction that raises is taken back, and the object lives on",
        call(["remember", "it", 1], ["try", ["transaction_async", ["put", "a", 1], _FAIL]]),
        call(["list"], ["recall", "it"]),
        differs="asynchronous transactions",
    ),
    scenario(
        "An asynchronous transaction is kept when it ends well",
        call(["transaction_async", ["put", "a", 1], ["pause", 20], ["put", "b", 1]]),
        call(["list"]),
    ),
    scenario(
        "A transaction that is rolled back leaves nothing, and returns",
        call(["put", "a", 1], ["transaction_rolled_back", ["put", "a", 2], ["put", "b", 1]], ["list"]),
        call(["list"]),
    ),
    scenario(
        "Nobody comes between the parts of an asynchronous transaction",
        together(call(["transaction_async", ["log", "in"], ["pause", 50], ["log", "out"]]), call(["log", "other"])),
    ),
    scenario(
        "Two calls at once are taken back one by one",
        together(
            call(["put", "a", 1]),
            call(["put", "b", 1], ["try", ["transaction", ["put", "c", 1], _FAIL]]),
            call(["put", "d", 1]),
        ),
        call(["list"]),
    ),
    scenario(
        "An alarm is taken back with its transaction",
        call(["set_alarm", 60_000], ["try", ["transaction", ["set_alarm", 90_000], _FAIL]], ["get_alarm"]),
        call(["get_alarm"]),
    ),
    scenario(
        "An alarm that was set in a transaction is set",
        call(["transaction", ["set_alarm", 60_000], ["put", "k", 1]]),
        call(["get_alarm"]),
    ),
    scenario(
        "What a constructor wrote before it raised is taken back",
        on("start", [["put", "a", 1], _FAIL], []),
        call(["list"]),
        call(["list"]),
        differs="errors of who is reset",
    ),
    scenario(
        "A synchronous transaction that waits is over at its first wait, and what comes after is kept all the same",
        call(["try", ["transaction_waiting", ["put", "a", 1], ["pause", 20], ["put", "b", 1]]], ["pause", 100]),
        call(["list"]),
        differs="waiting in a transaction",
    ),
    scenario(
        "What was written before a call to another object is kept, whatever comes after",
        call(["put", "k", 1], ["call", "b", ["log", "b"]], ["put", "l", 1], ["abort", "because I must"]),
        call(["list"]),
    ),
    scenario(
        "A call sees what it wrote itself",
        call(
            ["put", "k", 1],
            ["list"],
            ["sql", "CREATE TABLE t(x)"],
            ["sql", "INSERT INTO t VALUES(1)"],
            ["sql", "SELECT * FROM t"],
        ),
    ),
]
