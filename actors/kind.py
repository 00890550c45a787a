"""What is known of one class of actors: read once, when the class is first met."""

from __future__ import annotations

from .actor import Actor
from .database import Image, Template, Value
from .handlers import Handler, can_suspend, handlers_of
from .migrations import declared
from .names import check_name
from .schema import OUTCOMES_DDL
from .stub import stub_class


class Kind:
    """What a node knows of one class of actors."""

    def __init__(self, cls: type[Actor]) -> None:
        """Read the class once. Raises InvalidName for an impossible namespace, TypeError for a migration."""
        self.cls = cls
        self.namespace = check_name(cls.namespace or cls.__name__, "namespace")
        self.migrations = declared(cls)
        self.handlers = handlers_of(cls, Actor, cls._z0_hooks)
        self.retentions = {name: it.once.retention for name, it in self.handlers.items() if it.once is not None}
        """Seconds that replies of idempotent messages are kept; None: as `Limits` say."""
        self.stub_class = stub_class(cls, self.handlers)
        self.start = _hook(cls, "start")
        self.stop = _hook(cls, "stop")
        self.alarm = _hook(cls, "alarm")
        self.triggers = frozenset(sql for sql in cls._z0_schema if sql.startswith("CREATE TRIGGER"))
        """Of ours, which a file of this class has."""
        self._template: Template | None = None

    def image(self, meta: dict[str, Value]) -> Image:
        """What a new file holds."""
        if self._template is None:
            outcomes = () if self.alarm is None else (OUTCOMES_DDL,)
            self._template = Template((*self.cls._z0_schema, *outcomes))
        return self._template.image(meta)


def _hook(cls: type[Actor], name: str) -> Handler | None:
    function = getattr(cls, name)
    return None if function is getattr(Actor, name) else Handler(name, function, can_suspend(function))
