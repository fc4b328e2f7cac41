"""A plugin that fails to import: its author forgot to declare the driver it needs."""

import brokendb_driver  # type: ignore[import-not-found]

from flux import MigrationBackend


class BrokenBackend(MigrationBackend):
    """A backend that nobody gets to see."""

    driver_error = brokendb_driver.Error
