"""What can be done to an instance as it is, for those who only ask: the instance itself decides. Pure."""

from __future__ import annotations

from .errors import WrongStatus
from .status import InstanceStatus

_DOING = {
    "pause": "pausing it",
    "resume": "resuming it",
    "terminate": "terminating it",
    "retry": "retrying it",
    "abandon": "abandoning it",
}


def check(whose: str, verb: str, status: InstanceStatus) -> None:
    """Raises WrongStatus when the instance would refuse that."""
    match verb:
        case "retry" if status.status == "errored" and status.rollback is not None:
            raise WrongStatus(whose, "rolled back", _DOING[verb], "restart it instead")
        case "retry" | "abandon" if status.status != "errored":
            raise WrongStatus(whose, status.status, _DOING[verb], "it is for failed instances")
        case "resume" if status.status not in ("paused", "waiting_for_pause"):
            raise WrongStatus(whose, status.status, _DOING[verb], "it is for paused instances")
        case "pause" | "terminate" if status.finished:
            raise WrongStatus(whose, status.status, _DOING[verb], "it has ended")
