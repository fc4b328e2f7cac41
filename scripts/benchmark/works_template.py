"""What a migrated database costs a test, beside the server's own copy of the template."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

from benchmark.changes import changes
from benchmark.measure import Contender, in_turn
from benchmark.processes import Sample
from benchmark.rows import FLUX, Row, compared
from benchmark.workshop import Workshop
from flux.config import FluxConfig
from flux.testing import ScratchDatabases

_BARE = "CREATE DATABASE … TEMPLATE"
_LIMIT = 1.5


def template(shop: Workshop) -> Iterator[Row]:
    """What a test waits for until it has a database, whatever the number of migrations is."""
    for full in (10, 500):
        count = shop.extent.size(full)
        title = f"a database for a test, by a template of {count:,} migrations"
        yield compared("template", title, _taken(shop, count), _BARE, _LIMIT)


def _taken(shop: Workshop, count: int) -> dict[str, list[Sample]]:
    site = shop.site(shop.flux, "postgres", changes(count))
    config = FluxConfig(
        backend="postgres",
        migration_directory=str(site.place.directory / "migrations"),
        database_url=shop.server.url("flux_tests").replace("$", "$$"),
    )
    with (
        ScratchDatabases(config) as databases,
        closing(shop.server.connect()) as connection,
        connection.cursor() as cursor,
    ):
        with databases.database():
            pass  # the template is made with the first one
        cursor.execute("SELECT datname FROM pg_database WHERE datname ~ '^flux_template_'")
        [(name,)] = cursor.fetchall()

        def ours() -> Sample:
            started = time.perf_counter()
            with databases.database():
                return Sample(time.perf_counter() - started)

        def bare() -> Sample:
            started = time.perf_counter()
            cursor.execute(f"CREATE DATABASE bare TEMPLATE {name}")
            taken = Sample(time.perf_counter() - started)
            cursor.execute("DROP DATABASE bare WITH (FORCE)")
            return taken

        rounds = min(40, shop.extent.rounds)
        samples = in_turn({FLUX: Contender(ours, rounds), _BARE: Contender(bare, rounds)})
        cursor.execute(f"DROP DATABASE {name}")
    return samples
