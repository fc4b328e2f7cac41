"""flux inside a program, as at an application's start."""

import flux


def nothing_to_do(url: str) -> None:
    """Apply what is pending, of which there is nothing."""
    assert flux.apply(url, "migrations").steps == ()
