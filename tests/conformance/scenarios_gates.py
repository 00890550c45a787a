"""Scenarios: who may run when, and what waits for what."""

from __future__ import annotations

from tests.conformance.scenario import call, on, scenario, together, wait

_FAIL = ["raise", "Error", "because of this"]

GATES = [
    scenario(
        "Calls begin in the order in which they were sent",
        together(*[call(["log", n]) for n in range(10)]),
    ),
    scenario(
        "Nothing comes between the operations of storage",
        together(
            *[call(["log", f"{n} in"], ["put", "k", n], ["get", "k"], ["list"], ["log", f"{n} out"]) for n in range(3)]
        ),
        call(["get", "k"]),
    ),
    scenario(
        "Others come in while a call really waits",
        together(call(["log", "a in"], ["await", "g"], ["log", "a out"]), call(["log", "b"], ["open", "g"])),
    ),
    scenario(
        "A call that waits goes on before it is answered, one after another",
        together(
            call(["await", "g"], ["log", "first"], ["put", "k", 1]),
            call(["await", "g"], ["log", "second"], ["get", "k"]),
            call(["open", "g"], ["log", "opened"]),
        ),
    ),
    scenario(
        "Waiting for a sync lets nothing be lost",
        together(call(["put", "a", 1], ["sync"], ["log", "synced"]), call(["put", "b", 1])),
        call(["list"]),
    ),
    scenario("A sync with nothing to write returns", call(["sync"], ["sync"], ["log", "done"])),
    scenario(
        "Nobody comes in while an object blocks",
        together(call(["block", ["log", "in"], ["pause", 50], ["log", "out"]]), call(["log", "other"])),
    ),
    scenario(
        "Two blocks run one after the other",
        together(
            call(["block", ["log", "1 in"], ["pause", 50], ["log", "1 out"]]),
            call(["block", ["log", "2 in"], ["pause", 20], ["log", "2 out"]]),
            call(["log", "other"]),
        ),
    ),
    scenario(
        "A call that waits does not go on while another blocks",
        together(
            call(["log", "a in"], ["pause", 50], ["log", "a out"]),
            call(["block", ["log", "in"], ["pause", 150], ["log", "out"]]),
        ),
    ),
    scenario(
        "Blocks nest",
        call(["block", ["block", ["log", "inside"], ["pause", 10]], ["log", "between"]], ["log", "after"]),
    ),
    scenario("Blocks nest 60 deep", call(["nest", 60, ["log", "inside"]]), call(["log", "after"])),
    scenario(
        "Blocks do not nest 65 deep",
        call(["remember", "it", 1]),
        call(["try", ["nest", 65, ["log", "inside"]]]),
        call(["log", "after"], ["recall", "it"]),
    ),
    scenario(
        "A block gives back what was done in it",
        call(["put", "k", 1], ["block", ["get", "k"], ["pause", 10], ["get", "k"]]),
    ),
    scenario(
        "A block that fails resets the object, whoever catches the error",
        call(["remember", "it", 1], ["put", "k", 1]),
        call(["try", ["block", ["pause", 10], _FAIL]], ["log", "goes on"]),
        call(["recall", "it"], ["get", "k"]),
        differs="errors of who is reset",
    ),
    scenario(
        "A block that fails keeps what was written before it, and nothing that was written in it",
        call(["put", "before", 1]),
        call(["put", "outside", 1], ["block", ["put", "inside", 1], _FAIL]),
        call(["list"]),
        differs="roll-back",
    ),
    scenario(
        "A block that fails fails those who wait for it",
        call(["remember", "it", 1]),
        together(call(["block", ["pause", 50], _FAIL]), call(["log", "waited"])),
        call(["recall", "it"]),
        differs="errors of who is reset",
    ),
    scenario(
        "A block of over 30 seconds resets the object",
        call(["remember", "it", 1]),
        call(["block", ["pause", 31_000]]),
        call(["recall", "it"]),
    ),
    scenario(
        "Nobody comes in before the constructor is done",
        on("start", [["log", "start"], ["pause", 50], ["log", "started"]]),
        together(call(["log", "first"]), call(["log", "second"])),
    ),
    scenario(
        "An alarm waits while an object blocks",
        on("alarm", [["log", "alarm"]]),
        call(["set_alarm", 50], ["block", ["pause", 300], ["log", "out"]]),
        wait(1_000),
    ),
    scenario(
        "Work that a call leaves behind goes on in the same object",
        call(["wait_until", ["pause", 50], ["log", "behind"], ["put", "k", 1]], ["log", "answered"]),
        wait(300),
        call(["get", "k"]),
    ),
    scenario(
        "Work that a call leaves behind waits while the object blocks",
        call(["wait_until", ["pause", 50], ["log", "behind"]], ["block", ["pause", 300], ["log", "out"]]),
        wait(300),
        differs="work of one's own",
    ),
    scenario(
        "Several waits of one call end in their own time",
        call(
            ["together", [["pause", 200], ["log", "slow"]], [["pause", 50], ["log", "quick"]], [["log", "at once"]]],
            ["log", "all"],
        ),
    ),
    scenario(
        "Counting by reading and writing loses no call",
        together(
            *[
                call(["sql", "CREATE TABLE IF NOT EXISTS n(x); INSERT INTO n SELECT 1 + coalesce(max(x), 0) FROM n"])
                for _ in range(20)
            ]
        ),
        call(["sql", "SELECT max(x), count(*) FROM n"]),
    ),
    scenario(
        "Others come in while an object waits for the answer of another",
        together(call(["log", "a in"], ["call", "b", ["pause", 200]], ["log", "a out"]), call(["log", "between"])),
    ),
    scenario(
        "A call waits for the object that it calls to be done with its block",
        together(
            call(["block", ["pause", 200], ["log", "b"]], to="b"), call(["pause", 50], ["call", "b", ["log", "called"]])
        ),
    ),
    scenario(
        "A call to itself inside a block never comes to pass",
        call(["block", ["call", "a", ["log", "inside"]]]),
        call(["log", "after"]),
        differs="call cycles",
    ),
]
