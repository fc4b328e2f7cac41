"""What happens in a batch as records of the logger `flux`: the only room that logs."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from flux.progress import Pace, Progress
    from flux.results import Event


class Log:
    """Takes every event of a runner, and of progress logs what is worth a line."""

    def __init__(self) -> None:
        self._pace: Pace | None = None

    def note(self, event: Event) -> None:
        """Log an event, where the program logs at all."""
        # A program that never imported logging has no handler that could want a record.
        if "logging" not in sys.modules:
            return
        import logging

        logger = logging.getLogger("flux")
        if not logger.hasHandlers():
            # A driver may have imported it; Python's last resort would print what nobody asked for.
            return
        if event.progress is not None:
            if self._is_due(event.progress):
                level = logging.WARNING if event.progress.blockers else logging.INFO
                logger.log(level, "%s", event.message)
        elif event.kind in ("wait", "warning"):
            logger.warning("%s", event.message)
        elif event.kind == "done" and event.step is not None:
            milliseconds = (event.seconds or 0) * 1000
            logger.info("%s %s: %.0f ms", event.step.action, event.step.name, milliseconds)
        elif event.step is not None:
            logger.debug("%s %s", event.step.action, event.step.name)

    def _is_due(self, progress: Progress) -> bool:
        from flux.progress import Pace

        self._pace = self._pace or Pace()
        return self._pace.is_due(progress)
