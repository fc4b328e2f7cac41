"""yoyo inside a program, as its documentation has it."""

from yoyo import get_backend, read_migrations


def nothing_to_do(url: str) -> None:
    """Apply what is pending, of which there is nothing."""
    backend = get_backend(url)
    migrations = read_migrations("migrations")
    with backend.lock():
        backend.apply_migrations(backend.to_apply(migrations))
    backend.connection.close()
