"""A service on a real socket that misbehaves as it is told: fails, is busy, hangs, drops connections."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from typing import Any, Literal, Self, TypeVar
from urllib.parse import parse_qsl, urlsplit

import msgspec

from wire import HEAD_BYTES, Client, headers_of, read_message, write_message

T = TypeVar("T")

Fault = Literal["none", "fail", "busy", "hang", "drop"]
"""As it should be; 503 with nothing done; 429 with nothing done; done, but no answer ever; done, but the connection
drops."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What a service is asked."""

    method: str
    path: str
    query: dict[str, str]
    key: str
    """The Idempotency-Key, or ""."""
    body: bytes

    @property
    def route(self) -> str:
        """Method and first part of the path, as in "POST /invoices": what faults are set for."""
        return f"{self.method} /{self.path.split('/')[1]}"

    def read(self, kind: type[T]) -> T:
        """The body, as what it is declared to be. Raises msgspec.ValidationError."""
        return msgspec.json.decode(self.body, type=kind)


class Reply(msgspec.Struct, frozen=True):
    """What it answers."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = {}


class Service:
    """A service on a socket of its own, inside `async with`. The same idempotency key gets the first reply again."""

    def __init__(self) -> None:
        self.port = 0
        self.requests: list[str] = []
        """The routes of all requests that came, also of those that were not answered."""
        self.hanging = 0
        """Requests that will never be answered, and whose clients still wait."""
        self._faults: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self._replies: dict[str, Reply] = {}
        self._connections: set[asyncio.Task[Any]] = set()

    @property
    def client(self) -> Client:
        """A new client of this service."""
        return Client(self.port)

    async def handle(self, request: Request) -> Reply:
        """Do what is asked."""
        raise NotImplementedError

    def misbehave(self, route: str, *faults: Fault, times: int = 1) -> None:
        """Have the next requests of a route go wrong, one in each of these ways, and `times` over."""
        self._faults[route].extend(faults * times)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=HEAD_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            request = _request(*await read_message(reader))
            self.requests.append(request.route)
            reply = await self._answer(request, reader)
            if reply is not None:
                status, headers = f"HTTP/1.1 {reply.status} -", {**reply.headers, "Connection": "close"}
                await write_message(writer, status, headers, reply.body)
        except (OSError, EOFError, asyncio.CancelledError):
            pass  # the client has gone, or the service closes
        finally:
            writer.close()
            self._connections.discard(task)

    async def _answer(self, request: Request, reader: asyncio.StreamReader) -> Reply | None:
        faults = self._faults[request.route]
        fault = faults.popleft() if faults else "none"
        if fault == "fail":
            return Reply(503)
        if fault == "busy":
            return Reply(429, headers={"Retry-After": "30"})
        reply = self._replies.get(request.key) if request.key else None
        if reply is None:
            try:
                reply = await self.handle(request)
            except msgspec.MsgspecError as error:
                return Reply(400, str(error))
            if request.key:
                self._replies[request.key] = reply
        if fault == "hang":
            self.hanging += 1
            try:
                await reader.read()  # until the client has given up
            finally:
                self.hanging -= 1
        return None if fault in ("hang", "drop") else reply


def _request(head: list[str], body: bytes) -> Request:
    method, target, _ = head[0].split(" ")
    url = urlsplit(target)
    key = headers_of(head).get("idempotency-key", "")
    return Request(method=method, path=url.path, query=dict(parse_qsl(url.query)), key=key, body=body)
