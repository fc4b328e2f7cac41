"""A real PgBouncer for the tests, in transaction mode in front of the tests' PostgreSQL."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from tests.postgres_server import UNPRIVILEGED, PostgresServer

SCRIPT = Path(__file__).parent.parent / "scripts" / "pgbouncer"
POOL_SIZE = 20
_STARTS_WITHIN = 10.0  # seconds

# Its defaults, but for room for many clients; so it refuses `options` in a URL, as users' do.
_SETTINGS = """\
[databases]
* = host={host} port={port}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = 200
"""


class PgBouncerUnavailableError(Exception):
    """PgBouncer cannot be run here; the message says why."""


@dataclass(frozen=True)
class PgBouncer:
    """A running pooler that belongs to this test session."""

    server: PostgresServer
    port: int

    def url(self, database: str) -> str:
        """The URL of one of the server's databases by way of the pooler."""
        login = f"{self.server.user}:{self.server.password}"
        return f"postgresql://{login}@127.0.0.1:{self.port}/{quote(database, safe='')}"


@contextmanager
def running_pgbouncer(server: PostgresServer, *, pool_size: int = POOL_SIZE) -> Iterator[PgBouncer]:
    """Run PgBouncer in front of `server` until the block ends.

    It has `pool_size` sessions for each database and user.

    Raises: PgBouncerUnavailableError when there is none to run, or it does not start.
    """
    import port_for

    program = _program()
    # Its user must be able to go there, as with the server's directory.
    directory = Path(tempfile.gettempdir()).resolve() / f"flux-pgbouncer-{secrets.token_hex(4)}"
    directory.mkdir()
    try:
        port = port_for.select_random()
        users = directory / "users.txt"
        users.touch(mode=0o600)
        users.write_text(f'"{server.user}" "{server.password}"\n', encoding="utf-8")
        settings = directory / "pgbouncer.ini"
        settings.write_text(
            _SETTINGS.format(
                host=server.host,
                port=server.port,
                listen_port=port,
                users=users,
                pool_size=pool_size,
            ),
            encoding="utf-8",
        )
        command = [*program, str(settings)]
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            if not _listens(process, port):
                said = (directory / "log").read_text("utf-8", "replace")[-4000:]
                raise PgBouncerUnavailableError(f"PgBouncer did not start: {said}")
            yield PgBouncer(server, port)
        finally:
            process.terminate()  # at once, whoever is connected
            process.wait(10)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _program() -> list[str]:
    """The words of the command; for root, it runs as an unprivileged user."""
    try:
        found = subprocess.run(
            [SCRIPT], capture_output=True, encoding="utf-8", check=False, timeout=120
        )
    except (OSError, subprocess.TimeoutExpired) as error:  # Windows, or a network that hangs
        raise PgBouncerUnavailableError(f"PgBouncer: scripts/pgbouncer: {error}") from None
    if found.returncode != 0:
        raise PgBouncerUnavailableError(f"PgBouncer: {found.stderr.strip()}")
    program = [found.stdout.strip()]
    if os.name == "posix" and os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            raise PgBouncerUnavailableError(
                "PgBouncer refuses to run as root,"
                " and setpriv (util-linux) is not there to drop to another user"
            )
        program = [*shlex.split(UNPRIVILEGED), *program]
    return program


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + _STARTS_WITHIN
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.01)
        else:
            return True
    return False
