"""Scenarios: what SQL there is, what is refused, and how much of it is too much."""

from __future__ import annotations

from tests.conformance.scenario import call, scenario

_TABLE = ["sql", "CREATE TABLE t(x)"]
_THREE = ["sql", "INSERT INTO t VALUES(1), (2), (3)"]

RULES = [
    scenario(
        "JSON, windows and full text search are there",
        call(
            ["one", "SELECT json_extract(?, '$.a[1]')", '{"a": [1, 2]}'],
            ["sql", "SELECT sum(value) OVER (ORDER BY key) FROM json_each('[1, 2, 3]')"],
            [
                "sql",
                "CREATE VIRTUAL TABLE words USING fts5(body); INSERT INTO words VALUES('a quick fox'), ('a slow fox')",
            ],
            ["sql", "SELECT rowid FROM words WHERE words MATCH 'quick'"],
            ["one", "SELECT sqrt(16), pow(2, 10), round(2.5)"],
        ),
    ),
    scenario(
        "Rectangles are there",
        call(
            ["try", ["sql", "CREATE VIRTUAL TABLE r USING rtree(id, a, b)"]],
            ["try", ["sql", "INSERT INTO r VALUES(1, 0, 1)"]],
        ),
    ),
    scenario(
        "Transactions by SQL are refused",
        call(
            _TABLE,
            *[
                ["try", ["sql", text]]
                for text in (
                    "BEGIN",
                    "BEGIN IMMEDIATE",
                    "COMMIT",
                    "END",
                    "ROLLBACK",
                    "SAVEPOINT s",
                    "RELEASE s",
                    "ROLLBACK TO s",
                )
            ],
            ["sql", "INSERT INTO t VALUES(1)"],
        ),
        call(["sql", "SELECT * FROM t"]),
    ),
    scenario(
        "Other databases cannot be attached",
        call(
            ["try", ["sql", "ATTACH ':memory:' AS other"]],
            ["try", ["sql", "DETACH main"]],
            ["try", ["sql", "VACUUM"]],
            ["try", ["sql", "VACUUM INTO 'copy'"]],
        ),
    ),
    scenario(
        "Temporary tables are refused",
        call(["try", ["sql", "CREATE TEMP TABLE t(x)"]], ["try", ["sql", "CREATE TEMP VIEW v AS SELECT 1"]]),
    ),
    scenario(
        "Names that begin with _cf_ are the platform's",
        call(*[["try", ["sql", f"CREATE TABLE {name}(x)"]] for name in ("_cf_mine", "_CF_yours")]),
        differs="reserved names",
    ),
    scenario(
        "Names that begin with z0_, and facts, are free",
        call(*[["try", ["sql", f"CREATE TABLE {name}(x)"]] for name in ("z0_mine", "Z0_yours", "facts")]),
        differs="reserved names",
    ),
    scenario(
        "Names of SQLite itself cannot be taken",
        call(["try", ["sql", "CREATE TABLE sqlite_mine(x)"]], ["try", ["sql", "DELETE FROM sqlite_schema"]]),
    ),
    scenario(
        "Settings that change nothing for others may be read",
        call(
            ["sql", "CREATE TABLE t(x REFERENCES t(x)); CREATE INDEX i ON t(x)"],
            *[
                ["try", ["sql", f"PRAGMA {text}"]]
                for text in (
                    "table_info(t)",
                    "table_xinfo(t)",
                    "index_list(t)",
                    "index_info(i)",
                    "index_xinfo(i)",
                    "foreign_key_list(t)",
                    "foreign_key_check",
                    "quick_check",
                    "foreign_keys",
                    "defer_foreign_keys",
                )
            ],
        ),
    ),
    scenario(
        "Settings of one's own may be changed",
        call(
            *[
                ["try", ["sql", f"PRAGMA {text}"]]
                for text in (
                    "case_sensitive_like = ON",
                    "recursive_triggers = ON",
                    "recursive_triggers",
                    "legacy_alter_table = ON",
                    "legacy_alter_table",
                    "ignore_check_constraints = ON",
                    "ignore_check_constraints",
                    "reverse_unordered_selects",
                    "optimize",
                    "page_size",
                )
            ],
            ["one", "SELECT 'a' LIKE 'A'"],
        ),
    ),
    scenario(
        "What a statement would do can be asked for",
        call(_TABLE, ["try", ["sql", "EXPLAIN QUERY PLAN SELECT x FROM t"]], ["columns", "EXPLAIN SELECT x FROM t"]),
    ),
    scenario(
        "Rows may be numbered by SQLite",
        call(
            ["sql", "CREATE TABLE n(id INTEGER PRIMARY KEY AUTOINCREMENT, x)"],
            ["sql", "INSERT INTO n(x) VALUES('a'), ('b') RETURNING id"],
            ["sql", "DELETE FROM n"],
            ["sql", "INSERT INTO n(x) VALUES('c') RETURNING id"],
            ["try", ["sql", "SELECT seq FROM sqlite_sequence"]],
            ["sql", "SELECT changes(), last_insert_rowid()"],
        ),
    ),
    scenario(
        "Settings may be read as tables",
        call(_TABLE, ["try", ["sql", "SELECT name FROM pragma_table_info('t')"]]),
    ),
    scenario(
        "The usual functions are there",
        call(
            *[
                ["try", ["one", f"SELECT typeof({text})"]]
                for text in (
                    "random()",
                    "randomblob(4)",
                    "zeroblob(4)",
                    "hex(x'ff')",
                    "unhex('ff')",
                    "iif(1, 2, 3)",
                    "printf('%d', 1)",
                    "format('%d', 1)",
                    "quote('a')",
                    "unicode('a')",
                    "char(65)",
                    "instr('ab', 'b')",
                    "trim(' a ')",
                    "nullif(1, 2)",
                    "coalesce(NULL, 1)",
                    "unixepoch()",
                    "julianday(0)",
                    "timediff('2026-01-02', '2026-01-01')",
                    "json('[1]')",
                    "json_group_array(1)",
                    "json_patch('{}', '{}')",
                    "group_concat(1)",
                    "string_agg(1, ',')",
                    "acos(1)",
                    "ceil(1.5)",
                    "log(2)",
                    "sign(-1)",
                    "octet_length('ü')",
                    "concat('a', 1)",
                    "concat_ws(',', 'a', 1)",
                    "likely(1)",
                    "total(1)",
                    "jsonb('[1]')",
                )
            ],
        ),
    ),
    scenario(
        "Functions that are not built in are refused",
        call(*[["try", ["one", f"SELECT {text}"]] for text in ("regexp('a', 'a')", "soundex('a')", "none_such()")]),
    ),
    scenario(
        "Medians and what SQLite was built with are refused",
        call(["try", ["one", "SELECT median(1)"]], ["try", ["one", "SELECT sqlite_compileoption_used('NONE SUCH')"]]),
        differs="limits of SQL",
    ),
    scenario(
        "Settings of the file are refused",
        call(
            *[
                ["try", ["sql", f"PRAGMA {text}"]]
                for text in (
                    "user_version",
                    "user_version = 1",
                    "journal_mode",
                    "journal_mode = DELETE",
                    "synchronous = OFF",
                    "page_size = 512",
                    "cache_size",
                    "writable_schema = ON",
                    "schema_version",
                    "wal_checkpoint",
                    "integrity_check",
                    "database_list",
                    "temp_store",
                    "application_id",
                    "encoding",
                    "max_page_count = 1",
                    "page_count",
                    "compile_options",
                    "function_list",
                )
            ],
        ),
    ),
    scenario(
        "Foreign keys can be switched off",
        call(["try", ["sql", "PRAGMA foreign_keys = OFF"]], ["try", ["sql", "PRAGMA foreign_keys"]]),
        differs="foreign keys",
    ),
    scenario(
        "Foreign keys can be deferred for a while",
        call(
            ["sql", "CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(p REFERENCES p(id))"],
            ["sql", "PRAGMA defer_foreign_keys = ON"],
            ["try", ["sql", "INSERT INTO c VALUES(1)"]],
            ["try", ["sql", "INSERT INTO p VALUES(1)"]],
        ),
        call(["sql", "SELECT count(*) FROM c"], ["try", ["sql", "INSERT INTO c VALUES(2)"]]),
    ),
    scenario(
        "Code cannot be loaded",
        call(["try", ["sql", "SELECT load_extension('x')"]], ["try", ["sql", "SELECT readfile('/etc/hostname')"]]),
    ),
    scenario(
        "A statement that ends the whole transaction resets the object",
        call(
            _TABLE,
            ["sql", "CREATE UNIQUE INDEX u ON t(x)"],
            ["sql", "INSERT INTO t VALUES(1)"],
            ["try", ["sql", "INSERT OR ROLLBACK INTO t VALUES(1)"]],
        ),
        call(["try", ["sql", "SELECT * FROM t"]]),
        differs="errors of who is reset",
    ),
    scenario(
        "Triggers, views and common table expressions are there",
        call(
            _TABLE,
            [
                "sql",
                "CREATE TABLE copy(x);"
                " CREATE TRIGGER g AFTER INSERT ON t BEGIN INSERT INTO copy VALUES(new.x * 2); END",
            ],
            _THREE,
            ["sql", "CREATE VIEW v AS SELECT sum(x) AS s FROM copy"],
            ["sql", "SELECT s FROM v"],
            ["sql", "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5) SELECT sum(i) FROM n"],
            ["sql", "INSERT INTO t VALUES(4) ON CONFLICT DO NOTHING RETURNING x"],
        ),
    ),
    scenario(
        "A column of generated values and a strict table are there",
        call(
            ["sql", "CREATE TABLE s(a INTEGER, b TEXT GENERATED ALWAYS AS (a * 2) STORED) STRICT"],
            ["try", ["sql", "INSERT INTO s(a) VALUES('no number')"]],
            ["sql", "INSERT INTO s(a) VALUES(2)"],
            ["sql", "SELECT * FROM s"],
        ),
    ),
    scenario(
        "The time of SQL is UTC", call(["one", "SELECT datetime(0, 'unixepoch'), strftime('%Y', 86400, 'unixepoch')"])
    ),
    scenario(
        "The version of SQLite is not told",
        call(["try", ["sql", "SELECT sqlite_version() > '3'"]]),
        differs="limits of SQL",
    ),
    scenario(
        "Tables of users are listed in the schema",
        call(_TABLE, ["sql", "SELECT name FROM sqlite_schema WHERE name NOT GLOB '_cf_*' AND name NOT GLOB 'z0_*'"]),
    ),
    scenario(
        "Text that holds a lone surrogate goes in",
        call(["try", ["one", "SELECT length(?)", "a\ud800"]]),
        differs="lone surrogates",
    ),
    scenario(
        "A text in double quotes is a text when there is no such column",
        call(["try", ["sql", 'SELECT "text"']]),
        differs="double quotes",
    ),
]

_COLUMNS = [", ".join(f"c{n}" for n in range(count)) for count in (100, 101)]
_SELECTS = [" UNION ALL ".join(f"SELECT {n}" for n in range(count)) for count in (5, 6)]

_AGAIN = (
    "CREATE TRIGGER g AFTER INSERT ON t WHEN new.x > 0 BEGIN INSERT INTO t VALUES(new.x - 1); END;"
    " PRAGMA recursive_triggers = ON"
)


def _deep(depth: int) -> str:
    return "SELECT " + "abs(" * depth + "1" + ")" * depth


LIMITS = [
    scenario(
        "100 columns are a table",
        call(["sql", f"CREATE TABLE t({_COLUMNS[0]})"], ["try", ["sql", "SELECT count(*) FROM t"]]),
    ),
    scenario(
        "101 columns are no table", call(["try", ["sql", f"CREATE TABLE t({_COLUMNS[1]})"]]), differs="limits of SQL"
    ),
    scenario(
        "100 parameters are bound", call(["try", ["one", "SELECT max(" + ", ".join("?" * 100) + ")", *range(100)]])
    ),
    scenario(
        "101 parameters are refused",
        call(
            ["try", ["one", "SELECT max(" + ", ".join("?" * 50) + "), max(" + ", ".join("?" * 51) + ")", *range(101)]]
        ),
        differs="limits of SQL",
    ),
    scenario("5 terms make a compound", call(["one", f"SELECT count(*) FROM ({_SELECTS[0]})"])),
    scenario(
        "6 terms make none", call(["try", ["one", f"SELECT count(*) FROM ({_SELECTS[1]})"]]), differs="limits of SQL"
    ),
    scenario("A pattern of 50 bytes is matched", call(["one", "SELECT ? LIKE ?", "x" * 50, "x" * 50])),
    scenario(
        "A pattern of 51 bytes is refused",
        call(
            ["try", ["one", "SELECT ? LIKE ?", "x" * 51, "x" * 51]],
            ["try", ["one", "SELECT ? GLOB ?", "x" * 51, "x" * 51]],
        ),
        differs="limits of SQL",
    ),
    scenario("An expression may be 90 deep", call(["one", _deep(90)])),
    scenario("An expression may not be 110 deep", call(["try", ["one", _deep(110)]])),
    scenario("A function takes 100 arguments", call(["one", "SELECT max(" + ", ".join("1" * 100) + ")"])),
    scenario(
        "A function does not take 128 arguments",
        call(["try", ["one", "SELECT max(" + ", ".join("1" * 128) + ")"]]),
        differs="limits of SQL",
    ),
    scenario(
        "A statement of over 100,000 bytes is refused",
        call(["try", ["one", f"SELECT length('{'x' * 100_000}')"]]),
        differs="limits of SQL",
    ),
    scenario(
        "A row of 2 megabytes is stored",
        call(
            ["sql", "CREATE TABLE t(x)"],
            ["sql", "INSERT INTO t VALUES(?)", {"$blob": 2_000_000}],
            ["sql", "SELECT x FROM t"],
        ),
    ),
    scenario(
        "A row of 5 megabytes is stored",
        call(
            ["sql", "CREATE TABLE t(x)"],
            ["try", ["sql", "INSERT INTO t VALUES(?)", {"$blob": 5_000_000}]],
            ["sql", "SELECT x FROM t"],
        ),
    ),
    scenario(
        "Triggers may call each other 9 deep",
        call(
            ["sql", "CREATE TABLE t(x)"],
            [
                "sql",
                _AGAIN,
            ],
            ["try", ["sql", "INSERT INTO t VALUES(8)"]],
            ["sql", "SELECT count(*) FROM t"],
        ),
    ),
    scenario(
        "Triggers may not call each other 20 deep",
        call(
            ["sql", "CREATE TABLE t(x)"],
            [
                "sql",
                _AGAIN,
            ],
            ["try", ["sql", "INSERT INTO t VALUES(20)"]],
            ["sql", "SELECT count(*) FROM t"],
        ),
    ),
]
