"""How often a task's results are wanted. Knows no ROS."""

from __future__ import annotations


class RateLimiter:
    """Chooses pairs so that each task gets as many a second as it may, evenly, whatever the cameras' rate is.

    Due times are a period apart and don't drift with the frames that are chosen, so 20 of 30 frames a second are chosen
    for a limit of 20, not every second one. A frame may be up to half a period early, so that a limit at the cameras'
    own rate lets every frame pass although their stamps jitter.
    """

    def __init__(self) -> None:
        self._due: dict[str, float] = {}

    def is_due(self, task: str, stamp: float, rate: float) -> bool:
        """Whether a task wants the pair of this stamp; the answer yes counts as its taking it.

        Args:
            task: name.
            stamp: of the pair, seconds. After a jump or a pause due times begin anew.
            rate: results a second; 0 for all.
        """
        if rate <= 0:
            self._due.pop(task, None)
            return True
        period = 1 / rate
        due = self._due.get(task)
        if due is None or not due - 3 * period <= stamp <= due + period / 2:  # first, a jump, a pause
            due = stamp
        if stamp < due - period / 2:
            return False
        self._due[task] = due + period
        return True
