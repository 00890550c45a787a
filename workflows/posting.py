"""One POST over HTTP."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Where it leads, the body would be asked for, and not posted."""

    def redirect_request(self, *_: object) -> None:
        return None


def post(url: str, body: bytes, headers: Mapping[str, str], seconds: float) -> None:
    """Post it, and wait so long for each part of the answer. Raises OSError, for what is not below 300 as well."""
    request = urllib.request.Request(url, body, dict(headers))
    try:
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=seconds) as answer:
            answer.read(1)
    except urllib.error.HTTPError as error:
        error.close()
        raise OSError(f"{url} answered {error.code} {error.reason}") from None
