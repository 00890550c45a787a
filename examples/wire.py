"""A little HTTP/1.1 with JSON over real sockets: a client for the services outside.

One request per connection; a message has at most 64 KiB of head and 1 MiB of body. In place of this use the HTTP
library that you know; what matters is that an idempotency key is sent, and that errors say whether to try again. The
client has no timeout of its own: the step around a call has one, which cancels it.
"""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar
from urllib.parse import urlencode

import msgspec

import z0

T = TypeVar("T")
HEAD_BYTES = 64 * 1024
BODY_BYTES = 1024 * 1024


class Unavailable(Exception):
    """The service gave no answer, or one that may be another next time: worth another attempt."""


class Busy(Unavailable):
    """The service says when to come again; z0 waits for as long as `retry_after` says, in seconds."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Refused(z0.NonRetryableError):
    """The service will never do it: no attempt is worth making any more."""


class Client:
    """Asks one service. Raises Unavailable (Busy) for what may go away, Refused for what will not."""

    def __init__(self, port: int) -> None:
        self.in_flight = 0
        """Calls that have not ended."""
        self._port = port

    async def get(self, path: str, reply: type[T], **query: str | int) -> T:
        """What the path has, as what it is declared to be."""
        return await self._call("GET", f"{path}?{urlencode(query)}" if query else path, None, "", reply)

    async def post(self, path: str, body: Any, *, key: str) -> None:
        """Have something done; once, however often it is asked for with this key."""
        await self._call("POST", path, body, key, object)

    async def _call(self, method: str, target: str, body: Any, key: str, kind: type[T]) -> T:
        what = f"{method} {target}"
        self.in_flight += 1
        try:
            head, content = await self._exchange(f"{what} HTTP/1.1", {"Idempotency-Key": key}, body)
        except (OSError, EOFError) as error:
            raise Unavailable(f"{what}: {error}") from error
        finally:
            self.in_flight -= 1
        status, headers = int(head[0].split()[1]), headers_of(head)
        if status == 429:
            raise Busy(f"{what} is to wait", float(headers["retry-after"]))
        if status >= 500:
            raise Unavailable(f"{what} was answered with {status}")
        if status >= 400:
            raise Refused(f"{what} was refused with {status}: {content.decode()}")
        return msgspec.json.decode(content, type=kind)

    async def _exchange(self, first: str, headers: dict[str, str], body: Any) -> tuple[list[str], bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=HEAD_BYTES)
        try:
            await write_message(writer, first, headers, body)
            return await read_message(reader)
        finally:
            writer.close()


async def read_message(reader: asyncio.StreamReader) -> tuple[list[str], bytes]:
    """The lines of a message's head, and its body. Raises EOFError, OSError."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
    except asyncio.LimitOverrunError:
        raise OSError(f"the head has more than {HEAD_BYTES:,} bytes") from None
    size = int(headers_of(head)["content-length"])
    if size > BODY_BYTES:
        raise OSError(f"the body has {size:,} bytes, more than {BODY_BYTES:,}")
    return head, await reader.readexactly(size)


async def write_message(writer: asyncio.StreamWriter, first: str, headers: dict[str, str], body: Any) -> None:
    """Send a message with the body as JSON. Raises OSError."""
    content = msgspec.json.encode(body)
    lines = [first, *(f"{name}: {value}" for name, value in headers.items()), f"Content-Length: {len(content)}"]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + content)
    await writer.drain()


def headers_of(head: list[str]) -> dict[str, str]:
    """The headers among a head's lines, by their names in lower case."""
    return {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
