"""Limits and defaults as another house has them, for `class Billing(z0.Workflow, profile="cloudflare")`. Pure."""

from __future__ import annotations

from typing import Any, Literal, get_args

from .retries import Retries

Profile = Literal["z0", "cloudflare"]

_CLOUDFLARE: dict[str, Any] = {
    "retries": Retries(limit=5, delay="10 seconds", max_delay=None),
    "timeout": "10 minutes",
    "steps_max": 10_000,
    "result_bytes": 1024 * 1024,
    "blob_bytes": 0,
    "execution_max": None,
    "sleep_max": "365 days",
}


def settings_of(profile: object) -> dict[str, Any]:
    """The class attributes that a profile stands for. Raises ValueError for one that is not known."""
    if profile not in get_args(Profile):
        raise ValueError(f"profile={profile!r}: give one of {', '.join(map(repr, get_args(Profile)))}")
    return _CLOUDFLARE if profile == "cloudflare" else {}
