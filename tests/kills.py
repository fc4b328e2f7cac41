"""`kill -9` at random moments, again and again, until flux is done; and what is there then.

A *life* is a fresh database and the commands that are run on it: apply, and in some lives roll
back and apply again. Each command is killed and run again until it ends by itself. Then the
database must hold what it holds after the same commands when nobody kills them.
"""

from __future__ import annotations

import difflib
import itertools
import random
import re
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

from tests.flux_process import FluxProcess, FluxResult
from tests.kill_migrations import FIRST
from tests.postgres_project import PostgresProject
from tests.postgres_server import PostgresServer, own_database
from tests.project import Project

APPLY: Sequence[str] = ("apply",)
ROLL_BACK: Sequence[str] = ("rollback", "-y", "--to", FIRST)
#: The commands of the longest life; a shorter one ends after the first.
LIFE = (APPLY, ROLL_BACK, APPLY)

#: A run that takes its time is killed this many times on its way, about.
_KILLS_A_RUN = 4
#: How many of the kills are meant for the time before the first step: one of so many.
_EARLY = 10

_STARTED = re.compile(r"^flux: ((?:apply|undo|run) \S+) \(", re.MULTILINE)
_DONE = re.compile(r"^(?:applied|undone|ran) +\d.*?  (\S+)$", re.MULTILINE)

BETWEEN = "before, between or after the steps"


class Target(NamedTuple):
    """Databases of one kind, and what is applied to them.

    `fresh` gives a project on an empty database, which tells every step that it starts (log_level
    DEBUG); `contents` gives what is in its database, as lines of text; `cut_off` ends what a dead
    run has left running on a server.
    """

    files: Mapping[str, str]
    fresh: Callable[[], AbstractContextManager[Project]]
    contents: Callable[[Project], Sequence[str]]
    cut_off: Callable[[Project], object]

    def without_transaction(self) -> set[str]:
        """The steps that run without a transaction, as `step_that_ran` names them."""
        return {
            f"{'undo' if '.undo.' in name else 'apply'} {name.partition('.')[0]}"
            for name, text in self.files.items()
            if text.startswith("-- flux: no-transaction")
        }


class Moment(NamedTuple):
    """When to kill a run: so many seconds after its start, or after it tells its first step."""

    counts_from: Literal["start", "first step"]
    seconds: float


class Undisturbed(NamedTuple):
    """What runs do that nobody kills; the times are in seconds.

    `contents` is what the database holds after each command of a whole life, `times` how long
    each command takes, `time_to_start` what of that goes by before there is something to do.
    """

    contents: tuple[Sequence[str], ...]
    times: Mapping[Sequence[str], float]
    time_to_start: float

    def moment(self, command: Sequence[str], dice: random.Random) -> Moment:
        """When to kill the next run. It may outlive any of its steps, however long that takes."""
        if dice.randrange(_EARLY) == 0:
            return Moment("start", dice.uniform(0, self.time_to_start))
        mean = (self.times[command] - self.time_to_start) / _KILLS_A_RUN
        return Moment("first step", dice.expovariate(1 / mean))


class Tally:
    """Where the kills landed."""

    def __init__(self, without_transaction: set[str]) -> None:
        self.without_transaction = without_transaction
        self.lives = 0
        #: Kills by the step that ran.
        self.during: Counter[str] = Counter()
        #: Of these, kills of migrations that committed all the same.
        self.committed: Counter[str] = Counter()

    @property
    def kills(self) -> int:
        """How often flux was killed."""
        return self.during.total()

    @property
    def in_steps(self) -> int:
        """How often flux was killed while a step ran."""
        return self.kills - self.during[BETWEEN]

    @property
    def in_no_transaction(self) -> int:
        """How often flux was killed in a migration that runs without a transaction."""
        return sum(self.during[name] for name in self.without_transaction)

    def __str__(self) -> str:
        lines = [f"{self.kills} kills in {self.lives} lives, {self.in_steps} of them in a step"]
        lines[0] += f" ({self.in_no_transaction} without a transaction), "
        lines[0] += f"{self.committed.total()} of these around a COMMIT that arrived"
        for name, count in sorted(self.during.items()):
            arrived = f", {self.committed[name]} committed" if self.committed[name] else ""
            lines.append(f"  {count:>4}  {name}{arrived}")
        return "\n".join(lines)


def run_undisturbed(target: Target) -> Undisturbed:
    """Run the commands of a life to their ends, and measure."""
    contents, times = [], []
    with target.fresh() as project:
        project.add(target.files)
        for command in (*LIFE, APPLY):
            started = time.perf_counter()
            result = project.run(*command)
            times.append(time.perf_counter() - started)
            assert result.code == 0, result
            contents.append(target.contents(project))
        assert project.query("SELECT DISTINCT ran FROM counter") == [(1,)]
    assert contents[0] == contents[2] == contents[3], difference(contents[0], contents[3])
    return Undisturbed(tuple(contents[:3]), {APPLY: times[0], ROLL_BACK: times[1]}, times[3])


def kill_again_and_again(target: Target, *, kills: int, seed: int) -> Tally:
    """Kill flux `kills` times in as many lives as it takes; where the kills landed.

    Fails when a run that is not killed fails, or when a database holds anything else than it
    would if nobody had killed.
    """
    killer = _Killer(target, kills, seed)
    while killer.tally.kills < kills:
        killer.live()
    return killer.tally


class _Killer:
    def __init__(self, target: Target, kills: int, seed: int) -> None:
        self.target = target
        self.kills = kills
        self.dice = random.Random(seed)  # noqa: S311 - a seed must give the same again
        self.undisturbed = run_undisturbed(target)
        self.tally = Tally(target.without_transaction())

    def live(self) -> None:
        """One life, compared after each of its commands."""
        self.tally.lives += 1
        commands = LIFE if self.dice.random() < 0.5 else LIFE[:1]
        with self.target.fresh() as project:
            project.add(self.target.files)
            for command, expected in zip(commands, self.undisturbed.contents, strict=False):
                self._run_until_done(project, command)
                found = self.target.contents(project)
                if command == ROLL_BACK:
                    expected, found = _without_scripts(expected), _without_scripts(found)
                where = f"life {self.tally.lives}, {' '.join(command)}, {self.tally.kills} kills"
                assert found == expected, f"{where}:\n{difference(expected, found)}"

    def _run_until_done(self, project: Project, command: Sequence[str]) -> None:
        """Run one command until it has ended by itself; without kills, when there were enough."""
        tally = self.tally
        killed_in: str | None = None
        while True:
            if tally.kills < self.kills:
                moment = self.undisturbed.moment(command, self.dice)
                result = run_and_kill(project, command, moment)
            else:
                result = project.run(*command)
            # Scripts before and after a batch may run more than once.
            started = [step for step in _STARTED.findall(result.err) if "/" not in step]
            if started or result.code == 0:
                if killed_in is not None and started[:1] != [killed_in]:
                    tally.committed[killed_in] += 1
                killed_in = None
            if result.code != -signal.SIGKILL:
                assert result.code == 0, f"after {tally.kills} kills: {result.out}{result.err}"
                return
            if self.dice.random() < 0.5:
                # Else its last statement goes on until the server sees that the client is gone,
                # and so nearly always to its end.
                self.target.cut_off(project)
            where = step_that_ran(result)
            tally.during[where] += 1
            if where in started:
                killed_in = where


def _without_scripts(contents: Sequence[str]) -> Sequence[str]:
    """Without what the scripts after a batch did.

    Of a rollback that was killed after its last undo, the next apply runs them.
    """
    return [line for line in contents if not line.startswith("rows of seen_after:")]


def difference(expected: Sequence[str], found: Sequence[str]) -> str:
    """The lines that differ."""
    lines = difflib.unified_diff(expected, found, "undisturbed", "found", lineterm="")
    return "\n".join(lines)


def run_and_kill(project: Project, command: Sequence[str], moment: Moment) -> FluxResult:
    """Run flux, and kill it at that moment, unless it ended before."""
    with project.started(*command) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        told = ""
        if moment.counts_from == "first step":
            told = "".join(_up_to_the_first_step(process.stderr))
        try:
            process.wait(moment.seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return FluxResult(process.returncode, process.stdout.read(), told + process.stderr.read())


def _up_to_the_first_step(stream: IO[str]) -> Iterator[str]:
    for line in stream:
        yield line
        if _STARTED.match(line):
            return


def step_that_ran(result: FluxResult) -> str:
    """The step that a run had started and not finished."""
    started, done = _STARTED.findall(result.err), _DONE.findall(result.out)
    return started[-1] if len(started) > len(done) else BETWEEN


# PostgreSQL ----------------------------------------------------------------------------------


def postgres_target(
    server: PostgresServer,
    root: Path,
    files: Mapping[str, str],
    *,
    url: Callable[[str], str],
) -> Target:
    """Databases of a server; `url` gives the address by which flux reaches the one of a name."""
    numbers = itertools.count(1)

    @contextmanager
    def fresh() -> Iterator[Project]:
        with own_database(server) as place:
            directory = root / f"life-{next(numbers)}"
            project = PostgresProject(directory, FluxProcess(directory), place)
            project.configure('log_level = "DEBUG"', url=url(place.database))
            yield project
            assert place.query(_LOCKS_LEFT) == []

    return Target(files, fresh, _postgres_contents, lambda project: project.query(_CUT_OFF))


def _postgres_contents(project: Project) -> list[str]:
    """The schema by pg_dump, and what pg_dump does not show: broken indexes, and the rows."""
    assert isinstance(project, PostgresProject)
    server = project.postgres.server
    program = server.client("pg_dump")
    assert program is not None, f"there is no pg_dump for {server.bin_dir}"
    url = server.url(project.postgres.database)
    done = subprocess.run(
        [program, "--schema-only", url], capture_output=True, encoding="utf-8", check=True
    )
    marks = ("\\restrict", "\\unrestrict")
    lines = [line for line in done.stdout.splitlines() if not line.startswith(marks)]
    lines += lines_of(project.query(_RELATIONS))
    for table in project.tables():
        [(digest,)] = project.query(
            f"SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM {table} t"
        )
        lines.append(f"rows of {table}: {digest}")
    lines += lines_of(project.query("SELECT name, ran FROM counter ORDER BY name"))
    return lines + project.applied()


#: Every relation, with whether an index can be used, and whether a partition is half detached.
_RELATIONS = """
SELECT relname, relkind, indisvalid, indisready, inhdetachpending
FROM pg_class c LEFT JOIN pg_index ON indexrelid = c.oid LEFT JOIN pg_inherits ON inhrelid = c.oid
WHERE relnamespace = 'public'::regnamespace ORDER BY relname
"""
_CUT_OFF = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""
#: Advisory locks of this database that anyone still holds.
_LOCKS_LEFT = """
SELECT pid, classid, objid FROM pg_locks WHERE locktype = 'advisory'
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


# SQLite --------------------------------------------------------------------------------------


def sqlite_target(root: Path, files: Mapping[str, str], *, journal_mode: str) -> Target:
    """Files in directories below `root`; `journal_mode` as the PRAGMA has it."""
    numbers = itertools.count(1)

    @contextmanager
    def fresh() -> Iterator[Project]:
        directory = root / f"life-{next(numbers)}"
        project = Project(directory, FluxProcess(directory))
        project.configure('log_level = "DEBUG"')
        assert project.query(f"PRAGMA journal_mode = {journal_mode}") == [(journal_mode,)]
        yield project
        with closing(sqlite3.connect(project.database, timeout=0)) as connection:
            connection.execute("BEGIN EXCLUSIVE")  # nobody has it locked

    return Target(files, fresh, _sqlite_contents, lambda project: None)


def _sqlite_contents(project: Project) -> list[str]:
    """The schema, the rows, and what SQLite says of the file."""
    rows: list[tuple[Any, ...]] = project.query(
        "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"
    )
    lines = list(lines_of(rows))
    for pragma in ("integrity_check", "foreign_key_check", "journal_mode", "user_version"):
        lines += (f"{pragma}: {line}" for line in lines_of(project.query(f"PRAGMA {pragma}")))
    for table in project.tables():
        rows = sorted(project.query(f"SELECT * FROM {table}"), key=repr)
        lines.append(f"rows of {table}: {len(rows)}, {hash(tuple(rows))}")
    lines += lines_of(project.query("SELECT name, ran FROM counter ORDER BY name"))
    return lines + project.applied()


def lines_of(rows: Sequence[tuple[Any, ...]]) -> Iterator[str]:
    """Rows of a query as lines of text."""
    return (" | ".join(map(str, row)) for row in rows)
