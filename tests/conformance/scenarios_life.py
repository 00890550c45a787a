"""Scenarios: names, calls, errors; how an object begins and ends."""

from __future__ import annotations

from tests.conformance.scenario import RESTART, call, on, scenario, together, wait

_FAIL = ["raise", "Error", "because of this"]
_REMEMBER = ["remember", "it", 1]
_RECALL = ["recall", "it"]

MESSAGES = [
    scenario("The same name is the same object", call(_REMEMBER, ["put", "k", 1]), call(_RECALL, ["get", "k"])),
    scenario("Another name is another object", call(_REMEMBER, ["put", "k", 1]), call(_RECALL, ["get", "k"], to="b")),
    scenario(
        "The same name in another class is another object",
        call(_REMEMBER, ["put", "k", 1]),
        call(_RECALL, ["get", "k"], to="Other:a"),
    ),
    scenario("An object knows its name", call(["name"], to="Åse/.. ☃"), call(["name"], to="x" * 500)),
    scenario(
        "Names are not normalised, and their case counts",
        call(["put", "k", 1], to="é"),
        call(["get", "k"], to="e\u0301"),
        call(["get", "k"], to="É"),
    ),
    scenario(
        "An object calls another",
        call(["call", "b", ["put", "k", 1], ["name"]], ["call", "Other:b", ["get", "k"]]),
        call(["get", "k"], to="b"),
    ),
    scenario(
        "An object may be called back by the one that it calls",
        call(["remember", "it", 1], ["call", "b", ["log", "b"], ["call", "a", ["log", "a again"], _RECALL]]),
    ),
    scenario("An object may call itself", call(["log", "in"], ["call", "a", ["log", "inside"]], ["log", "out"])),
    scenario(
        "A call back into an object that blocks never comes to pass",
        call(["try", ["block", ["call", "b", ["call", "a", ["log", "inside"]]]]]),
        call(["log", "after"]),
    ),
    scenario(
        "Calls from one object to another arrive in their order",
        call(["together", *[[["call", "b", ["log", n]]] for n in range(10)]]),
    ),
    scenario(
        "What two objects do at once does not disturb either",
        together(call(["pause", 50], ["put", "k", "a"], ["get", "k"]), call(["put", "k", "b"], ["get", "k"], to="b")),
    ),
    scenario(
        "An error keeps its type and text",
        call(_FAIL),
        call(["raise", "TypeError", "because"]),
        call(["raise", "RangeError", "because of its range"]),
    ),
    scenario("An error of one's own type keeps it", call(["raise", "Custom", "because it is mine"])),
    scenario(
        "An error crosses two objects",
        call(["call", "b", ["call", "Other:c", ["raise", "TypeError", "because"]]]),
        call(["try", ["call", "b", _FAIL]], ["log", "caught"]),
    ),
    scenario("An object goes on after an error", call(_REMEMBER), call(_FAIL), call(_RECALL)),
    scenario(
        "A value reaches another object as it is",
        call(
            ["ask", "b", {"a": [1, None, "ü", {"$bytes": [1, 2]}, {"$date": 5}, {"$set": [1]}]}],
            ["ask", "b", {"$map": [[1, 2]]}],
            ["ask", "b", None],
        ),
    ),
    scenario(
        "Undefined reaches another object", call(["try", ["ask", "b", {"$undefined": None}]]), differs="undefined"
    ),
    scenario("A pattern reaches another object", call(["try", ["ask", "b", {"$pattern": "a+"}]]), differs="types"),
    scenario("A number beyond 2^53 reaches another object", call(["ask", "b", {"$bigint": "12345678901234567890123"}])),
    scenario("Two megabytes reach another object", call(["ask", "b", {"$text": 2_000_000}])),
    scenario("A method that is not there is refused", call(["try", ["call", "b", ["no such operation"]]])),
]

LIFE = [
    scenario(
        "The constructor runs before the first call, once",
        on("start", [["log", "start"]]),
        call(["log", "first"]),
        call(["log", "second"]),
    ),
    scenario(
        "A constructor that raises fails its call, and the next one begins anew",
        on("start", [["log", "bad"], _FAIL], [["log", "good"]]),
        call(["log", "never"]),
        call(["log", "first"]),
        differs="errors of who is reset",
    ),
    scenario(
        "A constructor that raises fails all who wait for it",
        on("start", [["pause", 50], _FAIL], [["log", "good"]]),
        together(call(["log", "never"]), call(["log", "nor I"])),
        call(["log", "first"]),
        differs="errors of who is reset",
    ),
    scenario(
        "What a constructor writes is there for the first call",
        on("start", [["put", "k", 1], ["set_alarm", 60_000]]),
        call(["get", "k"], ["get_alarm"]),
    ),
    scenario(
        "A constructor may call another object", on("start", [["call", "b", ["log", "called"]]]), call(["log", "first"])
    ),
    scenario(
        "An abort loses memory and keeps storage",
        call(_REMEMBER, ["put", "k", 1]),
        call(["abort", "because I must"]),
        call(_RECALL, ["get", "k"]),
    ),
    scenario(
        "An abort cannot be caught",
        call(["try", ["abort", "because I must"]], ["log", "caught"]),
        call(["log", "after"]),
    ),
    scenario(
        "An abort fails all calls that are under way",
        together(call(["await", "never"]), call(["log", "about to"], ["abort", "because I must"])),
        call(["log", "after"]),
    ),
    scenario(
        "An abort by one who was called fails the caller's call",
        call(["try", ["call", "b", ["abort", "because I must"]]], ["log", "goes on"]),
    ),
    scenario(
        "A stub is broken after its object was reset",
        call(["log", "first"], kept=True),
        call(["abort", "because I must"], kept=True),
        call(["log", "second"], kept=True),
        call(["log", "third"]),
        differs="stubs",
    ),
    scenario(
        "A restart loses memory and keeps storage",
        call(_REMEMBER, ["put", "k", 1], ["sql", "CREATE TABLE t(x)"]),
        RESTART,
        call(_RECALL, ["get", "k"], ["sql", "SELECT * FROM t"]),
    ),
    scenario(
        "An object knows its name after a restart",
        call(["put", "k", 1], to="Åse"),
        RESTART,
        call(["name"], ["get", "k"], to="Åse"),
    ),
    scenario("An idle object loses its memory after 10 seconds", call(_REMEMBER), wait(14_000), call(_RECALL)),
    scenario(
        "An error that nobody waits for harms nobody",
        call(_REMEMBER, ["wait_until", ["pause", 20], _FAIL]),
        wait(200),
        call(_RECALL),
    ),
    scenario(
        "A task that fails on its own harms nobody",
        call(_REMEMBER, ["task", ["pause", 20], _FAIL]),
        wait(200),
        call(_RECALL),
    ),
    scenario(
        "Storage works on after a refused operation",
        call(["try", ["list", {"limit": 0}]], ["put", "k", 1]),
        call(["get", "k"]),
    ),
    scenario(
        "An abort ends the work that a call left behind",
        call(["wait_until", ["pause", 200], ["log", "behind"]]),
        call(["abort", "because I must"]),
        wait(500),
        call(["log", "after"]),
    ),
    scenario(
        "Work that a call left behind keeps an idle object in memory",
        call(_REMEMBER, ["wait_until", ["pause", 14_000], ["log", "behind"]]),
        wait(12_500),
        call(_RECALL),
        wait(3_000),
    ),
    scenario(
        "An object of a name of 600 bytes is an object",
        call(["put", "k", 1], to="x" * 600),
        call(["get", "k"], to="x" * 600),
        differs="long names",
    ),
]
