"""flux-migrations 0.0.3 inside a program: a package of the same name with other functions."""

import asyncio
from importlib import import_module
from typing import Any

FluxRunner: Any = import_module("flux.runner").FluxRunner


async def _apply(url: str) -> None:
    async with FluxRunner.from_file("flux.toml", url) as runner:
        await runner.apply_migrations()


def nothing_to_do(url: str) -> None:
    """Apply what is pending, of which there is nothing."""
    asyncio.run(_apply(url))
