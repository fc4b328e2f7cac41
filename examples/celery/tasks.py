"""Tasks whose workers migrate the database before they take the first one.

pip install "flux-migrations[postgres]" celery
export FLUX_DATABASE_URL=postgresql://user:password@localhost:5432/app
celery --app tasks worker
python -c "import tasks; tasks.greet.delay('Ada')"
"""

import os
import sys
from contextlib import closing
from pathlib import Path

import psycopg2
from celery import Celery
from celery.signals import worker_init

import flux
from flux.exceptions import FluxMigrationException

HERE = Path(__file__).resolve().parent

app = Celery("tasks")
app.config_from_object("celeryconfig")


@worker_init.connect
def migrate(**_: object) -> None:
    """Bring the database up to date, in a worker's main process, before the others are forked.

    Of several workers that start together one migrates, and the others wait.
    """
    try:
        flux.apply(config=HERE / "flux.toml")
    except FluxMigrationException as error:
        # Celery would log any other exception, start all the same, and take tasks.
        sys.exit(str(error))


@app.task
def greet(name: str) -> None:
    with closing(psycopg2.connect(os.environ["FLUX_DATABASE_URL"])) as connection, connection:
        connection.cursor().execute("INSERT INTO greetings (name) VALUES (%s)", (name,))
