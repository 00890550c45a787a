"""Errors: one root, one class per fact; each says whether the same call may be tried again.

Data are attributes; a message ends with what to do.
"""

from __future__ import annotations

from typing import ClassVar


class Z0Error(Exception):
    """Root of every error that z0 raises on purpose.

    `retryable` says whether the same call, unchanged, may succeed later.
    """

    retryable: ClassVar[bool] = False


class InvalidName(Z0Error, ValueError):
    """A name of an actor, a tenant, a namespace, an instance, a step or an event that cannot be one."""

    def __init__(self, what: str, reason: str, instead: str = "") -> None:
        super().__init__(f"{what} {reason}; {instead}" if instead else f"{what} {reason}")
        self.reason = reason


class NamespaceConflict(Z0Error):
    """Two classes claim one namespace."""

    def __init__(self, namespace: str, first: type, second: type) -> None:
        super().__init__(
            f"namespace {namespace!r} belongs to {first.__module__}.{first.__qualname__}, so "
            f"{second.__module__}.{second.__qualname__} cannot use it; give one of them another "
            "`namespace` attribute"
        )
        self.namespace = namespace


class ActorReset(Z0Error):
    """The actor lost its memory before this call's writes were durable: nothing of it was committed, ever."""

    retryable = True

    def __init__(self, actor: str, reason: str) -> None:
        super().__init__(f"{actor} was reset: {reason}; nothing of this call was committed, call again")
        self.actor = actor
        self.reason = reason


class CommitUnknown(Z0Error):
    """The writes of this call may or may not be durable, in part or all: COMMIT failed, or a reset came between."""

    retryable = True

    def __init__(self, actor: str, reason: str) -> None:
        super().__init__(
            f"{actor}: what of this call was committed is unknown: {reason}; call again with the same idempotency key"
        )
        self.actor = actor
        self.reason = reason


class Overloaded(Z0Error):
    """The mailbox is full: the message was not accepted and nothing of it happened."""

    retryable = True

    def __init__(self, actor: str, limit: str) -> None:
        super().__init__(f"{actor} is overloaded: {limit}; nothing was done, call again a little later")
        self.actor = actor
        self.limit = limit


class LimitExceeded(Z0Error):
    """A limit of `Limits` was reached."""


class CallCycle(Z0Error):
    """A call back into an actor that holds its gate for the very call that asks: it could never be answered."""

    def __init__(self, chain: tuple[str, ...]) -> None:
        super().__init__(
            f"{' -> '.join(chain)}: {chain[-1]} waits for this call inside block(), start() or stop(), where nothing "
            "else is delivered to it; make the call before or after"
        )
        self.chain = chain


class DeadlineExceeded(Z0Error):
    """The deadline passed before the answer came.

    `started` says whether the message had begun: if not, nothing of it was or will be done; if so, it goes on and
    happens wholly or not at all.
    """

    retryable = True

    def __init__(self, actor: str, message: str, started: bool) -> None:
        what = "it goes on; call again with the same idempotency key" if started else "nothing was done; call again"
        super().__init__(f"{actor}: {message} was not answered before its deadline; {what} with more time")
        self.actor = actor
        self.message = message
        self.started = started


class RuntimeClosed(Z0Error):
    """The runtime is not open: not yet, or it is closing or closed and takes no new messages."""

    def __init__(self, opened: bool = True) -> None:
        super().__init__(
            "the runtime is closed; open a new Runtime on the data directory"
            if opened
            else "the runtime is not open yet; use it inside `async with z0.Runtime(...) as runtime:`"
        )


class OtherLoop(Z0Error):
    """A runtime lives on the event loop that opened it; something was asked of it elsewhere, and nothing was done."""

    def __init__(self) -> None:
        super().__init__(
            "the runtime was opened on another event loop, or by another thread, than it is used on; nothing was done. "
            "Call asyncio.run_coroutine_threadsafe(..., loop), with the loop that opened it"
        )


class DataDirLocked(Z0Error):
    """Another runtime owns the data directory."""

    def __init__(self, path: str, pid: int | None) -> None:
        holder = f"process {pid}" if pid else "another process"
        super().__init__(
            f"data directory {path} is owned by {holder}; stop it, or use another directory "
            "(reading commands such as `z0 ls` need no lock)"
        )
        self.path = path
        self.pid = pid


class ActorFileError(Z0Error):
    """A file cannot be used: missing, damaged, not ours, another actor's, or of a newer schema.

    An actor whose file is damaged or not its own is quarantined: it answers with this, and the file is left as it is,
    until a good one is in its place. A damaged catalogue can be removed, and is made anew from the actors' files.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class StorageFailed(Z0Error):
    """The disk failed while the data directory was opened, or its catalogue read; nothing was changed."""

    retryable = True

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}; nothing was changed, try again when the disk works")
        self.path = path
        self.reason = reason


class QueryError(Z0Error):
    """SQLite refused a statement (syntax, binding, authorisation, type); the actor goes on."""


class ConstraintFailed(QueryError):
    """A statement violated a constraint and changed nothing."""


class IdempotencyConflict(Z0Error):
    """An idempotency key came again with other content."""

    def __init__(self, key: str, what: str) -> None:
        super().__init__(
            f"idempotency key {key!r} was used before with other content ({what}); send the same content, or a new key"
        )
        self.key = key
        self.what = what


def message_of(error: BaseException) -> str:
    """What the error says; of one that cannot say it, why."""
    try:
        return str(error)
    except Exception as failed:
        return f"<its __str__ raised {type(failed).__name__}>"


def said(error: BaseException) -> str:
    """The error in words: its class's name, and what it says."""
    return f"{type(error).__name__}: {message_of(error)}"


def presentable(error: BaseException) -> Exception:
    """The error as a caller's future can carry it: what would stop a task or a loop becomes a RuntimeError."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    cancelled = type(error).__name__ == "CancelledError"
    text = "the handler was cancelled from inside" if cancelled else said(error)
    wrapped = RuntimeError(text)
    wrapped.__cause__ = error
    return wrapped


class InvalidMessage(Z0Error, TypeError):
    """A message's argument or reply that cannot be copied between actor and caller."""


class InvalidValue(Z0Error, TypeError):
    """A value that cannot be stored, or a stored one that is not of the type asked for."""


class MigrationFailed(Z0Error):
    """A declared migration raised: none of the pending ones was kept, and the actor did not open."""

    def __init__(self, actor: str, number: int, reason: str) -> None:
        super().__init__(
            f"{actor}: migration {number} failed: {reason}; nothing of the pending migrations was kept, "
            "correct it and call again"
        )
        self.actor = actor
        self.number = number
        self.reason = reason


class DatabaseFailure(Exception):
    """The storage failed under us; nothing of the open transaction may be taken as stored. Stays in the engine."""


class Aborted(BaseException):
    """Takes the running code out of an actor that aborted itself. No Exception, so that nobody stops it by accident.

    Stays in the engine: callers get ActorReset or CommitUnknown.
    """


class NotADatabase(DatabaseFailure):
    """The file is no SQLite database, a damaged one, or not the one that it should be."""


class TransactionLost(DatabaseFailure):
    """A statement of a user (ON CONFLICT ROLLBACK, RAISE(ROLLBACK)) ended the engine's transaction."""
