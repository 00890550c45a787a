"""Checking hash chains in a data directory or one actor's file, live or copied, without its owner.

Guarantees: as `z0.inspect`; every break of a chain is found, and so is a ledger that ends before the last fact that
the catalogue remembers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from z0.actors.errors import ActorFileError
from z0.actors.names import Address, file_path
from z0.inspect import FACTS, actors, moment
from z0.ledger.chain import follow, genesis
from z0.ledger.errors import LedgerCorrupt

PAGE = 1_000


class Checked(msgspec.Struct, frozen=True):
    """What checking one actor's hash chain found; `problem` is None when every fact is in order."""

    tenant: str
    namespace: str
    name: str
    path: str
    facts: int
    head: str | None
    problem: str | None = None


def check(file: Path) -> Checked:
    """Verify the hash chain of one actor's ledger. Raises ActorFileError when it is no actor's file."""
    with moment(file) as (_, address, _):
        pass
    try:
        facts, head = _walk(file, address)
    except (LedgerCorrupt, ActorFileError):
        # The owner may have opened the file while we read it as one that nobody has open: look again.
        try:
            facts, head = _walk(file, address)
        except LedgerCorrupt as error:
            return Checked(*address, str(file), error.seq - 1, None, str(error))
        except ActorFileError as error:
            return Checked(*address, str(file), 0, None, str(error))
    return Checked(*address, str(file), facts, head.hex())


def _walk(file: Path, address: Address) -> tuple[int, bytes]:
    """Follow the chain from its genesis to the head."""
    seq, head = 0, genesis(*address)
    while True:
        with moment(file) as (reader, *_):
            sql = f"{FACTS} WHERE seq > ? ORDER BY seq LIMIT ?"
            rows = reader.rows(sql, seq, PAGE) if reader.has_table("facts") else []
        seq, head = follow(rows, head, str(address), seq)
        if len(rows) < PAGE:
            return seq, head


def check_all(data: Path, tenant: str | None = None) -> Iterator[Checked]:
    """Verify every actor of a data directory, by its files and by what the catalogue remembers of them."""
    known = {data / actor.path: actor for actor in actors(data, tenant=tenant)}
    folder = "*" if tenant is None else file_path(tenant, "-", "-").parts[0]
    for file in sorted(known.keys() | set(data.glob(f"{folder}/*/*.sqlite"))):
        actor = known.get(file)
        remembered = (actor and actor.facts) or 0
        try:
            checked = check(file)
        except ActorFileError as error:
            if actor is None or remembered or file.exists():
                at = file.relative_to(data).parts
                whose = Address(*at) if actor is None else Address(actor.tenant, actor.namespace, actor.name)
                yield Checked(*whose, str(file), 0, None, str(error))
            continue
        address = Address(checked.tenant, checked.namespace, checked.name)
        if file != data / file_path(*address) and checked.problem is None:
            checked = msgspec.structs.replace(checked, problem=f"{file}: is the file of {address}; was it moved?")
        elif checked.facts < remembered and checked.problem is None:
            problem = f"{file}: ends at fact {checked.facts}, but the catalogue remembers {remembered}"
            checked = msgspec.structs.replace(checked, problem=problem)
        yield checked
