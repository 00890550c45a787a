"""z0: an event-sourced actor runtime that emulates Durable Objects on one machine.

Each entity is a single-threaded actor that owns one SQLite file and keeps an append-only ledger of facts.

    import z0

    class Counter(z0.Actor):
        async def increment(self, by: int = 1) -> int:
            n = self.storage.get("n", 0) + by
            self.storage.put("n", n)
            return n

    async with z0.Runtime("var/z0") as runtime:
        n = await runtime.get(Counter, "visits").increment()
"""

from z0.actors.actor import Actor
from z0.actors.alarm_runs import AlarmInfo
from z0.actors.catalog import ActorInfo
from z0.actors.clock import Clock, SystemClock
from z0.actors.cursor import Cursor
from z0.actors.errors import (
    ActorFileError,
    ActorReset,
    CallCycle,
    CommitUnknown,
    ConstraintFailed,
    DataDirLocked,
    DeadlineExceeded,
    IdempotencyConflict,
    InvalidMessage,
    InvalidName,
    InvalidValue,
    LimitExceeded,
    MigrationFailed,
    NamespaceConflict,
    OtherLoop,
    Overloaded,
    QueryError,
    RuntimeClosed,
    StorageFailed,
    Z0Error,
)
from z0.actors.idempotency import idempotent
from z0.actors.limits import Limits
from z0.actors.storage import Storage
from z0.ledger.chain import Verification
from z0.ledger.entity import Entity
from z0.ledger.errors import (
    ConcurrencyConflict,
    FactNotAccepted,
    InvalidFact,
    InvalidQuery,
    LedgerCorrupt,
    ProjectionError,
)
from z0.ledger.fact import Fact
from z0.ledger.ledger import Ledger
from z0.ledger.projection import Balance, Projection
from z0.runtime import Runtime, Tenant
from z0.workflows.alerts import Alert, FailedInstance, LogAlerts, WebhookAlerts
from z0.workflows.bulk import BatchError, BatchReport, BulkResult, InstanceInfo
from z0.workflows.errors import (
    EventTimeout,
    InstanceExists,
    InstanceFailed,
    InstanceNotFound,
    NonDeterminismError,
    NonRetryableError,
    ScheduleNotFound,
    StepFailed,
    StepInterrupted,
    StepNotFound,
    StepTimeout,
    WrongStatus,
)
from z0.workflows.event import Event
from z0.workflows.flow import Concurrency, Debounce, Queued, singleton
from z0.workflows.instance import Instance
from z0.workflows.instances import Workflows
from z0.workflows.public import InstanceEvent, StepAttempt, StepInfo
from z0.workflows.retention import Retention
from z0.workflows.retries import Retries
from z0.workflows.rollback import Rollback
from z0.workflows.schedules import Schedule, ScheduleInfo
from z0.workflows.status import InstanceStatus
from z0.workflows.step import Step
from z0.workflows.steps import RollbackContext, StepContext
from z0.workflows.workflow import Workflow

__version__ = "0.1.0"

__all__ = [
    "Actor",
    "ActorFileError",
    "ActorInfo",
    "ActorReset",
    "AlarmInfo",
    "Alert",
    "Balance",
    "BatchError",
    "BatchReport",
    "BulkResult",
    "CallCycle",
    "Clock",
    "CommitUnknown",
    "Concurrency",
    "ConcurrencyConflict",
    "ConstraintFailed",
    "Cursor",
    "DataDirLocked",
    "DeadlineExceeded",
    "Debounce",
    "Entity",
    "Event",
    "EventTimeout",
    "Fact",
    "FactNotAccepted",
    "FailedInstance",
    "IdempotencyConflict",
    "Instance",
    "InstanceEvent",
    "InstanceExists",
    "InstanceFailed",
    "InstanceInfo",
    "InstanceNotFound",
    "InstanceStatus",
    "InvalidFact",
    "InvalidMessage",
    "InvalidName",
    "InvalidQuery",
    "InvalidValue",
    "Ledger",
    "LedgerCorrupt",
    "LimitExceeded",
    "Limits",
    "LogAlerts",
    "MigrationFailed",
    "NamespaceConflict",
    "NonDeterminismError",
    "NonRetryableError",
    "OtherLoop",
    "Overloaded",
    "Projection",
    "ProjectionError",
    "QueryError",
    "Queued",
    "Retention",
    "Retries",
    "Rollback",
    "RollbackContext",
    "Runtime",
    "RuntimeClosed",
    "Schedule",
    "ScheduleInfo",
    "ScheduleNotFound",
    "Step",
    "StepAttempt",
    "StepContext",
    "StepFailed",
    "StepInfo",
    "StepInterrupted",
    "StepNotFound",
    "StepTimeout",
    "Storage",
    "StorageFailed",
    "SystemClock",
    "Tenant",
    "Verification",
    "WebhookAlerts",
    "Workflow",
    "Workflows",
    "WrongStatus",
    "Z0Error",
    "__version__",
    "idempotent",
    "singleton",
]
