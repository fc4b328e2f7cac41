"""A project on a SQLite file, as its user has it: a configuration, migrations, a database."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.flux_process import FluxProcess, flux_environment

HANGS_AFTER = 180.0  # seconds; machines may be busy


@dataclass(frozen=True)
class Project:
    """A project in `root`, whose flux runs as a process of its own.

    `general` is the text of flux.toml's first section, `backend` that of its second.
    """

    root: Path
    run: FluxProcess

    @property
    def database(self) -> Path:
        """The file that flux.toml names."""
        return self.root / "app.db"

    def configure(self, general: str = "", backend: str = "") -> None:
        """Write flux.toml anew with further settings for its two sections."""
        self.write(
            "flux.toml",
            '[flux]\nbackend = "sqlite"\ndatabase_url = "sqlite:///app.db"\n'
            f"{general}\n[backend]\n{backend}\n",
        )

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file of the project as it is, without a change to its line endings."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def add(self, files: Mapping[str, str | bytes]) -> None:
        """Write files of the migration directory by their names in it."""
        for name, content in files.items():
            self.write(f"migrations/{name}", content)

    def succeed(self, *arguments: str, env: Mapping[str, str | None] | None = None) -> str:
        """Run flux, which must exit with 0 and say nothing on standard error; its output."""
        result = self.run(*arguments, env=env)
        assert (result.code, result.err) == (0, ""), result
        return result.out

    def fail(self, *arguments: str, code: int = 1) -> str:
        """Run flux, which must exit with `code`; what it says on standard error."""
        result = self.run(*arguments)
        assert result.code == code, result
        assert "Traceback" not in result.err
        return result.err

    @contextmanager
    def started(
        self, *arguments: str, env: Mapping[str, str | None] | None = None
    ) -> Iterator[subprocess.Popen[str]]:
        """flux as a process that runs beside the test; killed at the end, or when it hangs."""
        process = subprocess.Popen(
            [sys.executable, "-m", "flux", *arguments],
            cwd=self.root,
            env=flux_environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        watchdog = threading.Timer(HANGS_AFTER, process.kill)
        watchdog.start()
        try:
            with process:
                try:
                    yield process
                finally:
                    process.kill()
        finally:
            watchdog.cancel()

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Run one statement on the database, and commit it."""
        with closing(sqlite3.connect(self.database)) as connection, connection:
            return connection.execute(sql).fetchall()

    def tables(self) -> list[str]:
        """The names of all tables but flux's own."""
        rows = self.query(
            "SELECT name FROM sqlite_master WHERE type = 'table' "
            "AND name NOT LIKE '!_flux%' ESCAPE '!' AND name NOT LIKE 'sqlite%' ORDER BY name"
        )
        return [name for (name,) in rows]

    def applied(self) -> list[str]:
        """The ids in the history."""
        return [id for (id,) in self.query("SELECT id FROM _flux_migrations ORDER BY id")]

    def files(self) -> dict[str, bytes]:
        """Every file of the project with its bytes, to show that nothing was written."""
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            for path in sorted(self.root.rglob("*"))
            if path.is_file()
        }
