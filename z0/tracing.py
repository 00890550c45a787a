"""Spans by the OpenTelemetry API, when that is installed (`pip install z0[otel]`); nothing is imported otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any


class OpenTelemetry:
    """Hands spans to OpenTelemetry: to the provider given, else to the global one."""

    def __init__(self, provider: Any = None) -> None:
        """Raises ImportError when the API is not installed."""
        from opentelemetry import trace

        self._api = trace
        self._provider = provider
        self._silent = (trace.ProxyTracerProvider, trace.NoOpTracerProvider)
        self._tracer = trace.get_tracer("z0", tracer_provider=provider)

    @property
    def listens(self) -> bool:
        """Whether a provider is there, which a program may install at any time: until then no spans are made."""
        return self._provider is not None or not isinstance(self._api.get_tracer_provider(), self._silent)

    def here(self) -> str | None:
        """The span that is open now, as W3C's `traceparent`; None: none is."""
        context = self._api.get_current_span().get_span_context()
        if not context.is_valid:
            return None
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"

    @contextmanager
    def span(self, name: str, parent: str | None, attributes: dict[str, str | int]) -> Iterator[object]:
        """A span of the trace of `parent`, or of a new one; its status is ok, or an error when an exception leaves it.

        Whether it is recorded the provider's sampler decides, which sees in `parent` what it has decided before.
        """
        api = self._api
        above = api.set_span_in_context(api.INVALID_SPAN if parent is None else self._remote(parent))
        with self._tracer.start_as_current_span(name, context=above, attributes=attributes) as opened:
            yield opened
            opened.set_status(api.StatusCode.OK)

    def _remote(self, parent: str) -> Any:
        _, trace, span, flags = parent.split("-")
        flagged = self._api.TraceFlags(int(flags, 16))
        return self._api.NonRecordingSpan(
            self._api.SpanContext(int(trace, 16), int(span, 16), is_remote=True, trace_flags=flagged)
        )


def installed() -> OpenTelemetry | None:
    """One for the global provider, when OpenTelemetry is installed."""
    if find_spec("opentelemetry") is None:
        return None
    try:
        return OpenTelemetry()
    except ImportError:  # something of the name, but not the API
        return None
