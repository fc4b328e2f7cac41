"""cooldb keeps the contract of flux's backends."""

from pathlib import Path

import pytest
from flux_cooldb import CoolBackend  # type: ignore[import-not-found]

from flux import FluxConfig
from flux.testing import BackendContract


class TestCoolDB(BackendContract):
    @pytest.fixture(autouse=True)
    def database(self, tmp_path: Path) -> None:
        """An empty database for each test."""
        self.path = tmp_path / "app.cool"
        self.path.touch()

    def make_backend(self, config: FluxConfig) -> CoolBackend:
        return CoolBackend.from_config(config, f"cooldb://{self.path}")
