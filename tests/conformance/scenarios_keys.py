"""Scenarios: keys and their values."""

from __future__ import annotations

from tests.conformance.scenario import call, on, scenario, wait

_ABC = ["put_many", {"a": 1, "b": 2, "b1": 3, "b2": 4, "c": 5}]
_UNICODE = ["put_many", {"z": 1, "é": 2, "\uffff": 3, "\U0001f600": 4, "a": 5, "Z": 6, "\ue000": 7}]

KEYS = [
    scenario(
        "A key that was never put has no value, and is not there to delete",
        call(
            ["get", "a"], ["delete", "a"], ["put", "a", 1], ["get", "a"], ["delete", "a"], ["get", "a"], ["delete", "a"]
        ),
    ),
    scenario(
        "Many keys come back in their order, without those that are not there",
        call(_ABC, ["get_many", "c", "x", "a"], ["get_many", "a", "a"], ["get_many"]),
    ),
    scenario(
        "Deleting many keys tells how many were there",
        call(_ABC, ["delete_many", "a", "x", "c"], ["delete_many"], ["list"]),
    ),
    scenario(
        "A list begins with start and ends before end",
        call(_ABC, ["list", {"start": "b", "end": "c"}], ["list", {"start": "b0"}], ["list", {"end": "b1"}]),
    ),
    scenario(
        "A list may begin after a key, which need not be there",
        call(_ABC, ["list", {"start_after": "b"}], ["list", {"start_after": "b0"}], ["list", {"start_after": "z"}]),
    ),
    scenario(
        "A list of a prefix has what begins with it, the key itself too",
        call(_ABC, ["list", {"prefix": "b"}], ["list", {"prefix": "x"}], ["list", {"prefix": ""}]),
    ),
    scenario(
        "A list in reverse with a limit has the last keys of its range",
        call(
            _ABC,
            ["list", {"reverse": True, "limit": 2}],
            ["list", {"start": "b", "end": "c", "reverse": True, "limit": 1}],
        ),
    ),
    scenario(
        "A limit takes the first keys of its range, or all there are",
        call(_ABC, ["list", {"limit": 1}], ["list", {"prefix": "b", "limit": 2}], ["list", {"limit": 100}]),
    ),
    scenario(
        "Prefix, start and end are all kept to",
        call(
            _ABC,
            ["list", {"prefix": "b", "start": "b1"}],
            ["list", {"prefix": "b", "end": "b2"}],
            ["list", {"prefix": "b", "start": "c"}],
            ["list", {"prefix": "b", "start_after": "b1", "reverse": True}],
            ["list", {"prefix": "b", "start": "a", "end": "z"}],
        ),
    ),
    scenario(
        "A range that ends before it begins is empty",
        call(_ABC, ["list", {"start": "c", "end": "a"}], ["list", {"start": "b", "end": "b"}]),
    ),
    scenario(
        "A limit of nothing, or less, is refused",
        call(_ABC, ["try", ["list", {"limit": 0}]], ["try", ["list", {"limit": -1}]]),
    ),
    scenario(
        "A list cannot begin at one key and after another",
        call(_ABC, ["try", ["list", {"start": "a", "start_after": "a"}]]),
    ),
    scenario(
        "Keys are in order of their UTF-8 bytes, not of UTF-16",
        call(_UNICODE, ["list"], ["list", {"start": "\uffff"}], ["list", {"reverse": True, "limit": 3}]),
    ),
    scenario(
        "A prefix that ends with the last character of a plane ends where it should",
        call(
            _UNICODE,
            ["put_many", {"\ud7ff1": 8, "\U0010ffff1": 9}],
            ["list", {"prefix": "\uffff"}],
            ["list", {"prefix": "\ud7ff"}],
            ["list", {"prefix": "\U0010ffff"}],
        ),
    ),
    scenario(
        "Keys are not normalised, and their case counts",
        call(["put_many", {"é": 1, "e\u0301": 2, "A": 3, "a": 4}], ["list"], ["get", "e\u0301"]),
    ),
    scenario("The empty key is a key", call(["put", "", 1], ["get", ""], ["list"], ["delete", ""], ["list"])),
    scenario(
        "A key may hold NUL and line ends",
        call(["put_many", {"a\0b": 1, "a": 2, "a\n": 3}], ["list"], ["get", "a\0b"], ["list", {"prefix": "a\0"}]),
    ),
    scenario(
        "A key of 2,048 bytes is a key", call(["put", "k" * 2048, 1], ["get", "k" * 2048], ["delete", "k" * 2048])
    ),
    scenario(
        "A key of 2,049 bytes is a key",
        call(["try", ["put", "k" * 2049, 1]], ["try", ["put", "é" * 1025, 1]], ["try", ["get", "k" * 2049]]),
        differs="long keys",
    ),
    scenario(
        "A lone surrogate in a key is replaced",
        call(["try", ["put", "\ud800", 1]], ["try", ["get", "\ud800"]], ["list"]),
        differs="lone surrogates",
    ),
    scenario("More than 128 keys go at once", call(["try", ["put_numbered", 200]], ["list", {"limit": 2}])),
    scenario(
        "A value of 2 megabytes is stored",
        call(["put", "k", {"$text": 2_000_000}], ["get", "k"], ["put", "k", {"$blob": 2_000_000}], ["get", "k"]),
    ),
    scenario("A value of 5 megabytes is stored", call(["try", ["put", "k", {"$blob": 5_000_000}]], ["get", "k"])),
    scenario(
        "Many keys are put all or none",
        call(["put", "a", 0], ["try", ["put_many", {"a": 1, "b": {"$function": None}}]], ["list"]),
    ),
    scenario(
        "A list that was begun is not changed by what is written after it",
        call(_ABC, ["list", {"prefix": "b"}], ["delete_many", "b", "b1"], ["put", "b3", 6], ["list", {"prefix": "b"}]),
    ),
    scenario(
        "deleteAll leaves nothing, and the object goes on",
        call(
            _ABC,
            ["sql", "CREATE TABLE t(x)"],
            ["sql", "INSERT INTO t VALUES(1)"],
            ["remember", "it", 1],
            ["delete_all"],
            ["list"],
            ["try", ["sql", "SELECT * FROM t"]],
            ["recall", "it"],
            ["put", "new", 1],
            ["sql", "CREATE TABLE t(y)"],
        ),
        call(["list"], ["sql", "SELECT * FROM t"]),
    ),
    scenario(
        "deleteAll takes the alarm as well",
        call(["set_alarm", 300], ["delete_all"], ["get_alarm"]),
        wait(500),
        call(["list"]),
    ),
    scenario(
        "deleteAll inside a synchronous transaction fails, and empties the object all the same",
        call(_ABC, ["try", ["transaction", ["put", "d", 1], ["delete_all"]]]),
        call(["list"]),
        differs="deleteAll",
    ),
    scenario(
        "deleteAll stands when the call raises after it",
        call(_ABC),
        call(["delete_all"], ["raise", "Error", "because of this"]),
        call(["list"]),
        differs="roll-back",
    ),
    scenario(
        "deleteAll stands when the object aborts after it",
        call(_ABC),
        call(["delete_all"], ["abort", "because I must"]),
        call(["list"]),
        differs="deleteAll",
    ),
    scenario(
        "deleteAll in its handler ends an alarm",
        on("alarm", [["log", "alarm"], ["delete_all"]]),
        call(["put", "a", 1], ["set_alarm", 50]),
        wait(500),
        call(["list"], ["get_alarm"]),
    ),
    scenario(
        "deleteAll leaves an alarm that is set after it",
        call(["set_alarm", 60_000], ["delete_all"], ["set_alarm", 90_000]),
        call(["get_alarm"]),
    ),
    scenario(
        "A key that is no text becomes one",
        call(["try", ["put", 1, "one"]], ["try", ["get", "1"]], ["list"]),
        differs="keys that are no text",
    ),
    scenario("Storage has a size", call(["put", "a", 1], ["size"])),
]

VALUES = [
    scenario(
        "Plain data come back as they were put",
        call(
            ["put", "k", {"a": [1, -1.5, True, False, None, "ü\0", {"b": {}}], "": []}],
            ["get", "k"],
            ["put", "k", None],
            ["get", "k"],
            ["list"],
        ),
    ),
    scenario(
        "Bytes, dates and sets come back",
        call(
            ["put", "k", [{"$bytes": [0, 255]}, {"$bytes": []}, {"$date": 1_700_000_000_123}, {"$set": [1, 2]}]],
            ["get", "k"],
        ),
    ),
    scenario(
        "A map of keys that are no text comes back",
        call(["put", "k", {"$map": [[1, "a"], [2, {"b": 1}]]}], ["get", "k"]),
    ),
    scenario(
        "Numbers that are none, or have no end, come back",
        call(
            ["put", "k", [{"$number": "NaN"}, {"$number": "Infinity"}, {"$number": "-Infinity"}, {"$number": "-0"}]],
            ["get", "k"],
        ),
    ),
    scenario(
        "Floating point comes back to the last bit",
        call(["put", "k", [0.1, 1e308, 5e-324, 1 / 3, 123456789.123456789]], ["get", "k"]),
    ),
    scenario("Integers up to 2^53 are exact", call(["put", "k", [2**53, -(2**53)]], ["get", "k"])),
    scenario(
        "Integers beyond 2^53 lose bits", call(["put", "k", [2**53 + 1, 2**63 - 1]], ["get", "k"]), differs="integers"
    ),
    scenario(
        "A large integer of a type of its own is kept, however large",
        call(["put", "k", {"$bigint": "9007199254740993"}], ["get", "k"]),
        call(["put", "k", {"$bigint": "12345678901234567890123"}], ["get", "k"]),
        differs="integers",
    ),
    scenario("Undefined is no value", call(["try", ["put", "k", {"$undefined": None}]], ["list"]), differs="undefined"),
    scenario("A function is no value", call(["try", ["put", "k", {"$function": None}]], ["list"])),
    scenario("A pattern is a value", call(["try", ["put", "k", {"$pattern": "a+"}]], ["get", "k"]), differs="types"),
    scenario(
        "A text with a lone surrogate is a value",
        call(["try", ["put", "k", "a\ud800b"]], ["get", "k"]),
        differs="lone surrogates",
    ),
    scenario(
        "What was read can be changed without changing what is kept",
        call(["put", "k", {"a": [1]}], ["get", "k"], ["put", "l", {"a": [2]}], ["get", "k"]),
    ),
]
