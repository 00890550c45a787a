"""Scenarios: SQL."""

from __future__ import annotations

from typing import Any

from tests.conformance.scenario import Scenario, call, scenario

_TABLE = ["sql", "CREATE TABLE t(x)"]
_THREE = ["sql", "INSERT INTO t VALUES(1), (2), (3)"]


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
        call(_TABLE, ["cursor", "c", "INSERT INTO t VALUES(1) RETURNING x"], ["sql", "SELECT * FROM t"]),
    ),
    scenario(
        "Texts, numbers, bytes and null go in and come out",
        call(
            ["sql", "SELECT ?, ?, ?, ?, ?", 1, -1.5, "ü", None, {"$bytes": [0, 255]}],
            ["sql", "SELECT typeof(?), typeof(?), typeof(?), typeof(?)", 1.5, "a", None, {"$bytes": []}],
            ["sql", "SELECT '', x'', 0.5, 'a\0b'"],
        ),
    ),
    scenario("A whole number is an integer", call(["one", "SELECT typeof(?), typeof(?)", 1, 2**40])),
    scenario("A truth value is an integer", call(["try", ["one", "SELECT ?, typeof(?)", True, False]])),
    scenario("Integers of 64 bits come out exactly", call(["one", "SELECT 9007199254740993, 9223372036854775807"])),
    scenario("Integers of 64 bits go in", call(["try", ["one", "SELECT typeof(?)", {"$bigint": "9007199254740993"}]])),
    scenario("A date is no parameter", call(["try", ["one", "SELECT ?", {"$date": 0}]])),
    scenario("A number that is none goes in as null", call(["one", "SELECT ?, typeof(?)", {"$number": "NaN"}, {"$number": "NaN"}])),
    scenario("A number without end goes in and comes out", call(["one", "SELECT ?, ? > 1e308", {"$number": "Infinity"}, {"$number": "Infinity"}])),
    scenario(
        "Too many parameters, or too few, are refused",
        call(_TABLE, ["try", ["sql", "INSERT INTO t VALUES(?)"]], ["try", ["sql", "INSERT INTO t VALUES(?)", 1, 2]], ["try", ["sql", "SELECT 1", 1]], ["sql", "SELECT * FROM t"]),
    ),
    scenario("Parameters may be numbered", call(["one", "SELECT ?2, ?1, ?2", "a", "b"])),
    scenario("Parameters cannot be named", call(["try", ["one", "SELECT :a, $b", 1, 2]])),
    scenario(
        "Several statements may stand in one text, and the last one's rows come back",
        call(["sql", "CREATE TABLE t(x); INSERT INTO t VALUES(1), (2); SELECT x FROM t"], ["sql", "SELECT 1; SELECT 2;"]),
    ),
    scenario(
        "Parameters of several statements go to the last",
        call(_TABLE, ["try", ["sql", "INSERT INTO t VALUES(0); INSERT INTO t VALUES(?)", 1]], ["sql", "SELECT * FROM t"]),
    ),
    scenario(
        "Parameters of several statements are taken in order",
        call(_TABLE, ["try", ["sql", "INSERT INTO t VALUES(?); INSERT INTO t VALUES(?)", 1, 2]], ["sql", "SELECT * FROM t"]),
    ),
    scenario(
        "What stood before a wrong statement has happened",
        call(_TABLE, ["try", ["sql", "INSERT INTO t VALUES(1); INSERT INTO nowhere VALUES(2)"]], ["sql", "SELECT * FROM t"]),
    ),
    scenario("A text without a statement is nothing to do", call(["try", ["sql", ""]], ["try", ["sql", " -- nothing"]])),
    scenario("A statement may end with remarks and semicolons", call(["try", ["sql", "SELECT 1; -- that is all"]], ["try", ["sql", "SELECT 1;;"]])),
    scenario("One row is one row", call(["one", "SELECT 1, 'a'"])),
    scenario(
        "No row, or two, are not one",
        call(_TABLE, _THREE, ["try", ["one", "SELECT x FROM t WHERE x = 9"]], ["try", ["one", "SELECT x FROM t"]]),
    ),
    _tried("A wrong statement is refused, and the object goes on", "SELEKT 1"),
    _tried("A table that is not there is named by an error", "SELECT * FROM nowhere"),
    _tried("A statement that breaks a constraint changes nothing", "CREATE UNIQUE INDEX u ON t(x); INSERT INTO t VALUES(4), (1)"),
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
            ["sql", "CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(p REFERENCES p(id) DEFERRABLE INITIALLY DEFERRED)"],
            ["sql", "INSERT INTO c VALUES(1)"],
            ["sql", "INSERT INTO p VALUES(1)"],
        ),
        call(["sql", "SELECT count(*) FROM c"]),
    ),
    scenario(
        "A foreign key that stays broken keeps what was written from being kept",
        call(["sql", "CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(p REFERENCES p(id) DEFERRABLE INITIALLY DEFERRED)"], ["remember", "it", 1]),
        call(["sql", "INSERT INTO c VALUES(1)"]),
        call(["sql", "SELECT count(*) FROM c"], ["recall", "it"]),
    ),
    scenario(
        "A cursor goes on with the rows of its moment when the table is changed",
        call(_TABLE, _THREE, ["cursor", "c", "SELECT x FROM t ORDER BY x"], ["next", "c"], ["sql", "UPDATE t SET x = x + 10"], ["try", ["next", "c"]], ["try", ["next", "c"]], ["try", ["next", "c"]]),
    ),
    scenario(
        "The same statement again leaves the first one's cursor alone",
        call(_TABLE, _THREE, ["cursor", "c", "SELECT x FROM t"], ["next", "c"], ["cursor", "d", "SELECT x FROM t"], ["try", ["next", "c"]], ["try", ["next", "d"]]),
    ),
    scenario(
        "A cursor may be read after a wait",
        call(_TABLE, _THREE, ["cursor", "c", "SELECT x FROM t"], ["next", "c"], ["pause", 20], ["try", ["next", "c"]]),
    ),
    scenario(
        "A cursor is over in the next call",
        call(_TABLE, _THREE, ["cursor", "c", "SELECT x FROM t"], ["next", "c"]),
        call(["try", ["next", "c"]]),
    ),
    scenario("A cursor is over after its last row", call(_TABLE, ["sql", "INSERT INTO t VALUES(1)"], ["cursor", "c", "SELECT x FROM t"], ["next", "c"], ["next", "c"], ["next", "c"])),
    scenario(
        "Rows written are counted",
        call(_TABLE, ["counts", "INSERT INTO t VALUES(1), (2)"], ["counts", "UPDATE t SET x = 9 WHERE x = 1"], ["counts", "DELETE FROM t"], ["counts", "SELECT 1"]),
    ),
    scenario(
        "Rows written to an index are counted",
        call(["sql", "CREATE TABLE t(x); CREATE INDEX i ON t(x)"], ["counts", "INSERT INTO t VALUES(1), (2)"]),
    ),
    scenario("Rows read by a whole scan are counted", call(_TABLE, _THREE, ["counts", "SELECT * FROM t"], ["counts", "SELECT x FROM t WHERE x > 1"])),
    scenario("JSON, windows and full text search are there", call(
        ["one", "SELECT json_extract(?, '$.a[1]')", '{"a": [1, 2]}'],
        ["sql", "SELECT sum(value) OVER (ORDER BY key) FROM json_each('[1, 2, 3]')"],
        ["sql", "CREATE VIRTUAL TABLE words USING fts5(body); INSERT INTO words VALUES('a quick fox'), ('a slow fox')"],
        ["sql", "SELECT rowid FROM words WHERE words MATCH 'quick'"],
        ["one", "SELECT sqrt(16), pow(2, 10), round(2.5)"],
    )),
    scenario("Rectangles are there", call(["try", ["sql", "CREATE VIRTUAL TABLE r USING rtree(id, a, b)"]], ["try", ["sql", "INSERT INTO r VALUES(1, 0, 1)"]])),
    scenario("Transactions by SQL are refused", call(
        _TABLE,
        *[["try", ["sql", text]] for text in ("BEGIN", "BEGIN IMMEDIATE", "COMMIT", "END", "ROLLBACK", "SAVEPOINT s", "RELEASE s", "ROLLBACK TO s")],
        ["sql", "INSERT INTO t VALUES(1)"],
    ), call(["sql", "SELECT * FROM t"])),
    scenario("Other databases cannot be attached", call(["try", ["sql", "ATTACH ':memory:' AS other"]], ["try", ["sql", "DETACH main"]], ["try", ["sql", "VACUUM"]], ["try", ["sql", "VACUUM INTO 'copy'"]])),
    scenario("Temporary tables are refused", call(["try", ["sql", "CREATE TEMP TABLE t(x)"]], ["try", ["sql", "CREATE TEMP VIEW v AS SELECT 1"]])),
    scenario("What is the platform's cannot be made", call(*[["try", ["sql", text]] for text in ("CREATE TABLE _cf_mine(x)", "CREATE TABLE _CF_mine(x)")])),
    scenario("Names of SQLite itself cannot be taken", call(["try", ["sql", "CREATE TABLE sqlite_mine(x)"]], ["try", ["sql", "DELETE FROM sqlite_schema"]])),
    scenario("Settings that change nothing for others may be read", call(
        ["sql", "CREATE TABLE t(x REFERENCES t(x)); CREATE INDEX i ON t(x)"],
        *[["try", ["sql", f"PRAGMA {text}"]] for text in ("table_info(t)", "table_xinfo(t)", "index_list(t)", "index_info(i)", "index_xinfo(i)", "foreign_key_list(t)", "foreign_key_check", "quick_check", "foreign_keys", "defer_foreign_keys")],
    )),
    scenario("Settings of the file are refused", call(
        *[["try", ["sql", f"PRAGMA {text}"]] for text in ("user_version", "user_version = 1", "journal_mode", "journal_mode = DELETE", "synchronous = OFF", "page_size = 512", "cache_size", "writable_schema = ON", "schema_version", "wal_checkpoint", "integrity_check", "database_list", "temp_store", "application_id", "encoding", "max_page_count = 1", "page_count", "compile_options", "function_list")],
    )),
    scenario("Foreign keys cannot be switched off", call(["try", ["sql", "PRAGMA foreign_keys = OFF"]], ["try", ["sql", "PRAGMA foreign_keys"]])),
    scenario("Foreign keys can be deferred for a while", call(
        ["sql", "CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(p REFERENCES p(id))"],
        ["sql", "PRAGMA defer_foreign_keys = ON"],
        ["try", ["sql", "INSERT INTO c VALUES(1)"]],
        ["try", ["sql", "INSERT INTO p VALUES(1)"]],
    ), call(["sql", "SELECT count(*) FROM c"], ["try", ["sql", "INSERT INTO c VALUES(2)"]])),
    scenario("Code cannot be loaded", call(["try", ["sql", "SELECT load_extension('x')"]], ["try", ["sql", "SELECT readfile('/etc/hostname')"]])),
    scenario("A statement that ends the whole transaction is refused", call(
        _TABLE, ["sql", "CREATE UNIQUE INDEX u ON t(x)"], ["sql", "INSERT INTO t VALUES(1)"],
        ["try", ["sql", "INSERT OR ROLLBACK INTO t VALUES(1)"]]), call(["try", ["sql", "SELECT * FROM t"]])),
    scenario("Triggers, views and common table expressions are there", call(
        _TABLE,
        ["sql", "CREATE TABLE copy(x); CREATE TRIGGER g AFTER INSERT ON t BEGIN INSERT INTO copy VALUES(new.x * 2); END"],
        _THREE,
        ["sql", "CREATE VIEW v AS SELECT sum(x) AS s FROM copy"],
        ["sql", "SELECT s FROM v"],
        ["sql", "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5) SELECT sum(i) FROM n"],
        ["sql", "INSERT INTO t VALUES(4) ON CONFLICT DO NOTHING RETURNING x"],
    )),
    scenario("A column of generated values and a strict table are there", call(
        ["sql", "CREATE TABLE s(a INTEGER, b TEXT GENERATED ALWAYS AS (a * 2) STORED) STRICT"],
        ["try", ["sql", "INSERT INTO s(a) VALUES('no number')"]],
        ["sql", "INSERT INTO s(a) VALUES(2)"],
        ["sql", "SELECT * FROM s"],
    )),
    scenario("The time of SQL is UTC", call(["one", "SELECT datetime(0, 'unixepoch'), strftime('%Y', 86400, 'unixepoch')"])),
    scenario("The version of SQLite is told", call(["try", ["sql", "SELECT sqlite_version() > '3'"]])),
    scenario("Tables of users are listed in the schema", call(_TABLE, ["sql", "SELECT name FROM sqlite_schema WHERE name NOT GLOB '_cf_*' AND name NOT GLOB 'z0_*'"])),
    scenario("Text that holds a lone surrogate goes in", call(["try", ["one", "SELECT length(?)", "a\ud800"]])),
    scenario("A double quoted text is a name", call(["try", ["sql", 'SELECT "text"']])),
]

_COLUMNS = [", ".join(f"c{n}" for n in range(count)) for count in (100, 101)]
_SELECTS = [" UNION ALL ".join(f"SELECT {n}" for n in range(count)) for count in (5, 6)]


def _deep(depth: int) -> str:
    return "SELECT " + "abs(" * depth + "1" + ")" * depth


LIMITS = [
    scenario("100 columns are a table", call(["sql", f"CREATE TABLE t({_COLUMNS[0]})"], ["try", ["sql", "SELECT count(*) FROM t"]])),
    scenario("101 columns are no table", call(["try", ["sql", f"CREATE TABLE t({_COLUMNS[1]})"]])),
    scenario("100 parameters are bound", call(["try", ["one", "SELECT max(" + ", ".join("?" * 100) + ")", *range(100)]])),
    scenario("101 parameters are refused", call(["try", ["one", "SELECT max(" + ", ".join("?" * 50) + "), max(" + ", ".join("?" * 51) + ")", *range(101)]])),
    scenario("5 terms make a compound", call(["one", f"SELECT count(*) FROM ({_SELECTS[0]})"])),
    scenario("6 terms make none", call(["try", ["one", f"SELECT count(*) FROM ({_SELECTS[1]})"]])),
    scenario("A pattern of 50 bytes is matched", call(["one", "SELECT ? LIKE ?", "x" * 50, "x" * 50])),
    scenario("A pattern of 51 bytes is refused", call(["try", ["one", "SELECT ? LIKE ?", "x" * 51, "x" * 51]], ["try", ["one", "SELECT ? GLOB ?", "x" * 51, "x" * 51]])),
    scenario("An expression may be 90 deep", call(["one", _deep(90)])),
    scenario("An expression may not be 110 deep", call(["try", ["one", _deep(110)]])),
    scenario("A function takes 100 arguments", call(["one", "SELECT max(" + ", ".join("1" * 100) + ")"])),
    scenario("A function does not take 128 arguments", call(["try", ["one", "SELECT max(" + ", ".join("1" * 128) + ")"]])),
    scenario("A statement of over 100,000 bytes is refused", call(["try", ["one", f"SELECT length('{'x' * 100_000}')"]])),
    scenario("A row of 2 megabytes is stored", call(["sql", "CREATE TABLE t(x)"], ["sql", "INSERT INTO t VALUES(?)", {"$blob": 2_000_000}], ["sql", "SELECT x FROM t"])),
    scenario("A row of 5 megabytes is refused", call(["sql", "CREATE TABLE t(x)"], ["try", ["sql", "INSERT INTO t VALUES(?)", {"$blob": 5_000_000}]], ["sql", "SELECT x FROM t"])),
    scenario("Triggers may call each other 9 deep", call(
        ["sql", "CREATE TABLE t(x)"],
        ["sql", "CREATE TRIGGER g AFTER INSERT ON t WHEN new.x > 0 BEGIN INSERT INTO t VALUES(new.x - 1); END; PRAGMA recursive_triggers = ON"],
        ["try", ["sql", "INSERT INTO t VALUES(8)"]], ["sql", "SELECT count(*) FROM t"])),
    scenario("Triggers may not call each other 20 deep", call(
        ["sql", "CREATE TABLE t(x)"],
        ["sql", "CREATE TRIGGER g AFTER INSERT ON t WHEN new.x > 0 BEGIN INSERT INTO t VALUES(new.x - 1); END; PRAGMA recursive_triggers = ON"],
        ["try", ["sql", "INSERT INTO t VALUES(20)"]], ["sql", "SELECT count(*) FROM t"])),
]
