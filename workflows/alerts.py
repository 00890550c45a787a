"""Alerts: what an instance wants people to know. A sink is any callable that takes an `Alert`; it may be async.

All sinks are told at the same time. One that raises, or takes longer than a minute, is told again later.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from z0.actors.clock import Span, seconds

from .status import InstanceStatus

log = logging.getLogger("z0.workflows")


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """Something that an instance wants people to know; told at least once, so `id` says which ones are the same."""

    id: str
    name: str
    data: Any
    workflow: str
    instance: str
    tenant: str
    timestamp: datetime


class FailedInstance(msgspec.Struct, frozen=True, kw_only=True):
    """An instance that has failed."""

    workflow: str
    tenant: str
    status: InstanceStatus


AlertSink = Callable[[Alert], Awaitable[None] | None]


class LogAlerts:
    """Writes alerts to the log, at error level."""

    def __init__(self, logger: logging.Logger = log) -> None:
        """To this logger."""
        self._logger = logger

    def __call__(self, alert: Alert) -> None:
        """Log it."""
        where = f"{alert.workflow} {alert.instance!r}"
        self._logger.error("alert %s from %s: %s", alert.name, where, _json(alert.data))


class WebhookAlerts:
    """Posts alerts as JSON. Anything but an answer below 300 is a failure, and posted again later.

    That includes redirects, which are not followed: give the URL where the alerts are to go.
    """

    def __init__(self, url: str, *, headers: Mapping[str, str] | None = None, timeout: Span = "10 seconds") -> None:
        """Raises ValueError for what is no URL of http or https."""
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"not a URL of http or https: {url!r}")
        self._url = url
        self._headers = {"Content-Type": "application/json", **(headers or {})}
        self._seconds = seconds(timeout)

    async def __call__(self, alert: Alert) -> None:
        """Post it."""
        from .posting import post  # what it needs would be a tenth of the time that importing z0 takes

        await asyncio.to_thread(post, self._url, _json(alert).encode(), self._headers, self._seconds)


def _json(value: Any) -> str:
    return msgspec.json.encode(value, enc_hook=repr).decode()
