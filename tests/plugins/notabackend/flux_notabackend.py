"""A plugin whose entry point names a function instead of a backend."""


def connect(url: str) -> str:
    """What its author thought a backend was."""
    return url
