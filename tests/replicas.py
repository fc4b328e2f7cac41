"""Many processes of flux that start at the same moment, as the replicas of a deployment do."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests import driver
from tests.flux_process import FluxResult, flux_environment

HANGS_AFTER = 180.0  # seconds
#: The driver that goes with a module of a backend.
DRIVERS = {"sqlite_lock": "sqlite3", "postgres": driver.NAME}

# `python -m flux`, which has loaded what it needs, and goes on when its standard input ends.
_REPLICA = """\
import runpy, sys
import flux.backends.{backend}, flux.cli, flux.runner, {driver}
print("ready", flush=True)
sys.stdin.read()
runpy.run_module("flux", run_name="__main__", alter_sys=True)
"""


def run_together(
    directory: Path, backend: str, commands: Sequence[Sequence[str]]
) -> list[FluxResult]:
    """Run flux with each of these command lines at once; how each of them ended.

    Fails, with what they have said, when one has not ended in time; it is killed then.
    """
    replica = _REPLICA.format(backend=backend, driver=DRIVERS[backend])
    with ExitStack() as stack:
        processes = []
        for arguments in commands:
            process = subprocess.Popen(
                [sys.executable, "-c", replica, *arguments],
                cwd=directory,
                env=flux_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            processes.append(process)
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
            process.stdin = None
        deadline = time.monotonic() + HANGS_AFTER
        results, late = [], 0
        for process in processes:
            try:
                out, err = process.communicate(timeout=max(0.01, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                late += 1
                process.kill()
                out, err = process.communicate()
            results.append(FluxResult(process.returncode, out, err))
    assert not late, f"{late} of {len(results)} still ran after {HANGS_AFTER} s: {results}"
    return results
