"""Where z0 ends differently, and why: one entry for each `differs` of the scenarios."""

from __future__ import annotations

_TEXTS = {
    "roll-back": """
        In Durable Objects only a transaction takes writes back: what a handler wrote before it threw is
        kept, alarms and `deleteAll` included. In z0 a message that raises leaves nothing of its last
        segment, so a failed message never leaves half of its work; what stands before a real wait
        stands. Entering a block is no wait in z0.
    """,
    "errors of who is reset": """
        When the constructor or a block fails, workerd gives every caller the text of that error, marked
        as a reset. In z0 the caller whose message ran the failing code, and each who waited for that
        constructor, gets the error itself, with its type; others get `ActorReset`. A handler that
        catches it goes on in z0, but its storage raises `ActorReset` from then on; in workerd it ends
        there. A statement that ends the transaction (OR ROLLBACK) is `ActorReset` at once in z0;
        workerd goes on and fails the reply with an internal error. What is kept is the same.
    """,
    "asynchronous transactions": """
        z0 has no asynchronous transaction: `block()` stands for it here, and an exception that leaves a
        block resets the actor. A synchronous `transaction()` that fails leaves the actor as it is.
    """,
    "waiting in a transaction": """
        workerd takes an asynchronous function for a synchronous transaction, which ends at its first wait and keeps
        what comes after outside of it. In z0 waiting inside `transaction()` raises there, and takes everything back.
    """,
    "call cycles": """
        A call into an object that blocks until that very call is answered: workerd lets it wait for the 30 seconds of a
        block and resets the object. z0 raises `CallCycle` at once.
    """,
    "deleteAll": """
        In workerd `deleteAll` is durable by itself, even when the object aborts next. In z0 it is part
        of its segment like any write. Inside a synchronous transaction z0 refuses it before anything is
        deleted; workerd fails with an internal error, after which nothing is left.
    """,
    "work of one's own": """
        The input gate of Durable Objects holds back everything that resumes in the object. In z0 it
        holds back messages; what `wait_until` was given runs beside them, and beside a block.
    """,
    "stubs": """
        A stub of z0 stays good: its next call opens the actor anew. In workerd a stub is broken once
        its object was reset.
    """,
    "retries": """
        In z0 an alarm that is set in or after a failing run neither costs that run its retries nor
        waits for them: an alarm that is set while a run waits for its retry takes its place at its own
        time, where workerd's waits for the retry and runs as one. Deleting the alarm in a handler that
        then raises is taken back with the segment, so the run is retried. A run that the actor's own
        `abort` cut off is made again uncounted, as after a crash.
    """,
    "the beginning of time": """
        `setAlarm` refuses times at or before 1970, which in JavaScript are mistakes in arithmetic. z0
        takes a datetime or a span, and any time that is past is now.
    """,
    "long keys": """
        z0 keeps to the 2,048 bytes that the older storage of Durable Objects has, and says so in an
        error; workerd takes longer keys in its SQLite storage.
    """,
    "long names": """
        Names have at most 512 UTF-8 bytes in z0, because they become names of files. In Durable Objects any text is
        a name, though the object is told its own up to 1,024 bytes only.
    """,
    "keys that are no text": """
        JavaScript makes a text of whatever it is given as a key. z0 raises TypeError.
    """,
    "lone surrogates": """
        Half a surrogate pair is no Unicode text. workerd replaces it in keys and in SQL, so two keys
        may become one; its values keep it. z0 refuses it everywhere.
    """,
    "undefined": """
        Python has no undefined: it is None there, which is a value like any other.
    """,
    "types": """
        JavaScript's regular expressions can be cloned, so they can be stored and sent. z0 takes
        Python's plain data and msgspec's types, and names what it refuses.
    """,
    "integers": """
        JavaScript's numbers are doubles, SQL included, so integers beyond 2^53 lose bits without a
        word; a BigInt of any size is a value, but no SQL parameter. Python's integers are exact up to
        64 bits in both, and refused beyond that.
    """,
    "parameters": """
        What JavaScript has not of its own goes into SQL as something else: whole numbers as real ones,
        truth values and dates as text ("true", "Thu Jan 01 1970 ..."). In z0 whole numbers and truth
        values are integers, and a date is refused.
    """,
    "parameters of several statements": """
        In one text of several statements workerd lets only the last have parameters. In z0 each takes
        its own, in order.
    """,
    "remarks": """
        workerd refuses a text that has no statement, and one with a remark or a semicolon behind its
        last. z0 takes the first as nothing to do, and the second as what it says.
    """,
    "unread rows": """
        In workerd the rows of a cursor are computed as they are read, so a statement with RETURNING
        whose rows nobody reads is still under way at the commit, which fails and resets the object. In
        z0 a statement has run when `sql` returns.
    """,
    "cursors": """
        A cursor of workerd may be read after a wait and in later calls, seeing what was changed
        meanwhile. One of z0 holds the rows of its moment, and is closed when its segment ends.
    """,
    "broken foreign keys": """
        A deferred foreign key that is violated at the commit resets the whole object in workerd. In z0
        it fails its own message with `QueryError`, and the actor keeps its memory.
    """,
    "counting rows": """
        workerd counts what it bills: each index entry as a row written, each row looked at as a row
        read. In z0 `rows_written` counts rows, not index entries, and `rows_read` is the greater of
        scan steps and rows returned.
    """,
    "reserved names": """
        The platform's own tables begin with `_cf_` there, with `z0_` here, where `facts` is the ledger.
        Users may have neither's.
    """,
    "foreign keys": """
        workerd lets an object switch the enforcement of foreign keys off. z0 does not: what needs it
        for a while uses `PRAGMA defer_foreign_keys`.
    """,
    "double quotes": """
        workerd takes a text in double quotes for a text when no column bears the name, so a misspelt
        column is silently a constant. z0 refuses it, as SQLite advises.
    """,
    "limits of SQL": """
        Cloudflare's limits protect a shared machine: 100 columns, 100 parameters, 5 terms of a compound, patterns
        of 50 bytes, 127 arguments, statements of 100,000 bytes, a list of functions. z0 has SQLite's own. Depth of
        expressions and of triggers is bounded alike.
    """,
}

DIFFERENCES: dict[str, str] = {name: " ".join(text.split()) for name, text in _TEXTS.items()}
