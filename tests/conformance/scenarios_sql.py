"""Scenarios: what SQL does, and what comes back."""

from __future__ import annotations

from typing import Any

from tests.conformance.scenario import Scenario, call, scenario

_TABLE = ["sql", "CREATE TABLE t(x)"]
_THREE = ["sql", "INSERT INTO t VALUES(1), (2), (3)"]

_DEFERRED = "CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(p REFERENCES p(id) DEFERRABLE INITIALLY DEFERRED)"


def _tried(name: str, query: str, *params: Any, differs: str | None = None) -> Scenario:
    """One statement on a table `t` of three rows, and what it left behind."""
    return scenario(
        name, call(_TABLE, _THREE, ["try", ["sql", query, *params]], ["sql", "SELECT * FROM t"]), differs=differs
    )


SQL = [
    scenario(
        "Rows have the columns that the statement names, also when they bear one name",
        call(
            ["columns", "SELECT 1 AS a, 2 AS a, 3"],
            ["sql", "SELECT 1 AS a, 2 AS a, 3"],
            _TABLE,
            ["columns", "SELECT * FROM t"],
            ["columns", "INSERT INTO t VALUES(1)"],
            ["columns", "INSERT INTO t VALUES(1) RETURNING x AS y"],
        ),
    ),
    scenario(
        "A statement runs when it is given, whether its rows are read or not",
        call(_TABLE, ["cursor", "c", "INSERT INTO t VALUES(1)"], ["sql", "SELECT * FROM t"]),
    ),
    scenario(
        "Rows that a statement returns must be read, or what it wrote cannot be kept",
        call(_TABLE, ["remember", "it", 1]),
        call(["cursor", "c", "INSERT INTO t VALUES(1) RETURNING x"]),
        call(["try", ["sql", "SELECT * FROM t"]], ["recall", "it"]),
        differs="unread rows",
    ),
    scenario(
        "Texts, numbers, bytes and null go in and come out",
        call(
            ["sql", "SELECT ?, ?, ?, ?, ?", 1, -1.5, "ü", None, {"$bytes": [0, 255]}],
            ["sql", "SELECT typeof(?), typeof(?), typeof(?), typeof(?)", 1.5, "a", None, {"$bytes": []}],
            ["sql", "SELECT '', x'', 0.5, 'a\0b'"],
        ),
    ),
    scenario(
        "A whole number is a real number",
        call(["one", "SELECT typeof(?) AS a, typeof(?) AS b", 1, 2**40]),
        differs="parameters",
    ),
    scenario(
        "A truth value is a text",
        call(["try", ["one", "SELECT ? AS a, typeof(?) AS b", True, False]]),
        differs="parameters",
    ),
    scenario(
        "Integers beyond 2^53 come out with fewer bits",
        call(["one", "SELECT 9007199254740993, 9223372036854775807"]),
        differs="integers",
    ),
    scenario(
        "Integers of 64 bits do not go in",
        call(["try", ["one", "SELECT typeof(?)", {"$bigint": "9007199254740993"}]]),
        differs="integers",
    ),
    scenario("A date becomes its text", call(["try", ["one", "SELECT ?", {"$date": 0}]]), differs="parameters"),
    scenario(
        "A number that is none goes in as null",
        call(["one", "SELECT ? AS a, typeof(?) AS b", {"$number": "NaN"}, {"$number": "NaN"}]),
    ),
    scenario(
        "A number without end goes in and comes out",
        call(["one", "SELECT ?, ? > 1e308", {"$number": "Infinity"}, {"$number": "Infinity"}]),
    ),
    scenario(
        "Too many parameters, or too few, are refused",
        call(
            _TABLE,
            ["try", ["sql", "INSERT INTO t VALUES(?)"]],
            ["try", ["sql", "INSERT INTO t VALUES(?)", 1, 2]],
            ["try", ["sql", "SELECT 1", 1]],
            ["sql", "SELECT * FROM t"],
        ),
    ),
    scenario("Parameters may be numbered", call(["sql", "SELECT ?2, ?1, ?2", "a", "b"])),
    scenario("Parameters cannot be named", call(["try", ["one", "SELECT :a, $b", 1, 2]])),
    scenario(
        "Several statements may stand in one text, and the last one's rows come back",
        call(
            ["sql", "CREATE TABLE t(x); INSERT INTO t VALUES(1), (2); SELECT x FROM t"], ["sql", "SELECT 1; SELECT 2;"]
        ),
    ),
    scenario(
        "Parameters of several statements go to the last",
        call(
            _TABLE, ["try", ["sql", "INSERT INTO t VALUES(0); INSERT INTO t VALUES(?)", 1]], ["sql", "SELECT * FROM t"]
        ),
    ),
    scenario(
        "Only the last of several statements may have parameters",
        call(
            _TABLE,
            ["try", ["sql", "INSERT INTO t VALUES(?); INSERT INTO t VALUES(?)", 1, 2]],
            ["sql", "SELECT * FROM t"],
        ),
        differs="parameters of several statements",
    ),
    scenario(
        "What stood before a wrong statement has happened",
        call(
            _TABLE,
            ["try", ["sql", "INSERT INTO t VALUES(1); INSERT INTO nowhere VALUES(2)"]],
            ["sql", "SELECT * FROM t"],
        ),
    ),
    scenario(
        "A text without a statement is refused",
        call(["try", ["sql", ""]], ["try", ["sql", " -- nothing"]]),
        differs="remarks",
    ),
    scenario(
        "A statement may have remarks in it, and a semicolon at its end",
        call(["sql", "SELECT /* one */ 1; "], ["sql", "-- first\nSELECT 1"]),
    ),
    scenario(
        "A statement must not end with a remark or two semicolons",
        call(["try", ["sql", "SELECT 1; -- that is all"]], ["try", ["sql", "SELECT 1;;"]]),
        differs="remarks",
    ),
    scenario("One row is one row", call(["one", "SELECT 1, 'a'"])),
    scenario(
        "No row, or two, are not one",
        call(_TABLE, _THREE, ["try", ["one", "SELECT x FROM t WHERE x = 9"]], ["try", ["one", "SELECT x FROM t"]]),
    ),
    _tried("A wrong statement is refused, and the object goes on", "SELEKT 1"),
    _tried("A table that is not there is named by an error", "SELECT * FROM nowhere"),
    _tried(
        "A statement that breaks a constraint changes nothing",
        "CREATE UNIQUE INDEX u ON t(x); INSERT INTO t VALUES(4), (1)",
    ),
    scenario(
        "Foreign keys are enforced",
        call(
            ["sql", "CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(p REFERENCES p(id) ON DELETE CASCADE)"],
            ["try", ["sql", "INSERT INTO c VALUES(1)"]],
            ["sql", "INSERT INTO p VALUES(1); INSERT INTO c VALUES(1)"],
            ["sql", "DELETE FROM p"],
            ["sql", "SELECT count(*) FROM c"],
            ["sql", "PRAGMA foreign_keys"],
        ),
    ),
    scenario(
        "A foreign key that is deferred may be broken and mended",
        call(
            [
                "sql",
                _DEFERRED,
            ],
            ["sql", "INSERT INTO c VALUES(1)"],
            ["sql", "INSERT INTO p VALUES(1)"],
        ),
        call(["sql", "SELECT count(*) FROM c"]),
    ),
    scenario(
        "A foreign key that stays broken keeps what was written from being kept",
        call(
            [
                "sql",
                _DEFERRED,
            ],
            ["remember", "it", 1],
        ),
        call(["sql", "INSERT INTO c VALUES(1)"]),
        call(["sql", "SELECT count(*) FROM c"], ["recall", "it"]),
        differs="broken foreign keys",
    ),
    scenario(
        "A cursor sees what is changed before it has come there",
        call(
            _TABLE,
            _THREE,
            ["cursor", "c", "SELECT x FROM t"],
            ["next", "c"],
            ["sql", "UPDATE t SET x = x + 10"],
            ["try", ["next", "c"]],
            ["sql", "DELETE FROM t"],
            ["try", ["next", "c"]],
        ),
        differs="cursors",
    ),
    scenario(
        "A cursor of sorted rows has those of its moment",
        call(
            _TABLE,
            _THREE,
            ["cursor", "c", "SELECT x FROM t ORDER BY x"],
            ["next", "c"],
            ["sql", "UPDATE t SET x = x + 10"],
            ["try", ["next", "c"]],
            ["try", ["next", "c"]],
            ["try", ["next", "c"]],
        ),
    ),
    scenario(
        "The same statement again leaves the first one's cursor alone",
        call(
            _TABLE,
            _THREE,
            ["cursor", "c", "SELECT x FROM t"],
            ["next", "c"],
            ["cursor", "d", "SELECT x FROM t"],
            ["try", ["next", "c"]],
            ["try", ["next", "d"]],
        ),
    ),
    scenario(
        "A cursor may be read after a wait",
        call(_TABLE, _THREE, ["cursor", "c", "SELECT x FROM t"], ["next", "c"], ["pause", 20], ["try", ["next", "c"]]),
        differs="cursors",
    ),
    scenario(
        "A cursor may be read in the next call",
        call(_TABLE, _THREE, ["cursor", "c", "SELECT x FROM t"], ["next", "c"]),
        call(["try", ["next", "c"]]),
        differs="cursors",
    ),
    scenario(
        "A cursor is over after its last row",
        call(
            _TABLE,
            ["sql", "INSERT INTO t VALUES(1)"],
            ["cursor", "c", "SELECT x FROM t"],
            ["next", "c"],
            ["next", "c"],
            ["next", "c"],
        ),
    ),
    scenario(
        "Rows written are counted",
        call(_TABLE, ["counts", "INSERT INTO t VALUES(1), (2)"], ["counts", "DELETE FROM t"]),
    ),
    scenario(
        "Rows looked at by an update are counted as read, and a row that comes from no table is not",
        call(_TABLE, _THREE, ["counts", "UPDATE t SET x = 9 WHERE x = 1"], ["counts", "SELECT 1"]),
        differs="counting rows",
    ),
    scenario(
        "Rows written to an index are counted",
        call(["sql", "CREATE TABLE t(x); CREATE INDEX i ON t(x)"], ["counts", "INSERT INTO t VALUES(1), (2)"]),
        differs="counting rows",
    ),
    scenario("Rows read by a whole scan are counted", call(_TABLE, _THREE, ["counts", "SELECT * FROM t"])),
    scenario(
        "Rows that a scan passes over are counted as read",
        call(_TABLE, _THREE, ["counts", "SELECT x FROM t WHERE x > 1"]),
        differs="counting rows",
    ),
]
