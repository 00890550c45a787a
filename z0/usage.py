"""What commands have in common: how they end, and that they can print JSON."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

OK, FAILED, USAGE, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 130, 141

Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON, for programs.")]
