"""A service for notes, which migrates its database before it takes requests.

pip install flux-migrations fastapi uvicorn
uvicorn app:app --workers 4
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

from fastapi import FastAPI
from starlette.applications import Starlette

import flux

HERE = Path(__file__).resolve().parent
DATABASE = HERE / "notes.db"


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Bring the database up to date, in each worker as it starts: one migrates, the others wait.

    What flux raises ends the start. Starlette takes this function as FastAPI does.
    """
    # flux is synchronous, so it works in a thread and the event loop stays free.
    await asyncio.to_thread(flux.apply, str(DATABASE), HERE / "migrations")
    yield


app = FastAPI(lifespan=lifespan)


@app.get("/notes")
def notes() -> list[str]:
    with closing(sqlite3.connect(DATABASE)) as connection:
        return [text for (text,) in connection.execute("SELECT text FROM notes ORDER BY id")]
