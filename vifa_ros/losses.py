"""What becomes of the results while a camera is lost. Knows no ROS.

A camera is lost while it is silent for longer than a timeout and the other one is not. As soon as it delivers again,
pairs are made again; see `PairingBuffer.set_alone`.
"""

from __future__ import annotations

from collections.abc import Mapping

from vifa_ros.pairing import THERMAL, VISIBLE

HOLD = "hold"
VISIBLE_ONLY = "visible_only"
THERMAL_ONLY = "thermal_only"
EITHER = "either"
STOP = "stop"
POLICIES = (HOLD, VISIBLE_ONLY, THERMAL_ONLY, EITHER, STOP)
OTHER = {VISIBLE: THERMAL, THERMAL: VISIBLE}
_MAY_GO_ALONE = {VISIBLE_ONLY: (VISIBLE,), THERMAL_ONLY: (THERMAL,), EITHER: (VISIBLE, THERMAL)}


def find_lost(silence: Mapping[str, float], timeout: float) -> str | None:
    """The stream whose camera is lost, or None: both deliver, or neither does.

    Args:
        silence: stream -> seconds without a frame.
        timeout: seconds after which a silent camera is lost.
    """
    silent = [stream for stream, seconds in silence.items() if seconds > timeout]
    return silent[0] if len(silent) == 1 else None


def find_alone(policy: str, lost: str | None) -> str | None:
    """The stream whose frames go alone, by one of POLICIES and the stream that is lost."""
    if lost is None:
        return None
    return OTHER[lost] if OTHER[lost] in _MAY_GO_ALONE.get(policy, ()) else None
