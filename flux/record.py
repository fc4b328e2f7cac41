"""`Record`: what `typing.NamedTuple` is, for rooms that every start of flux imports.

`typing` alone takes longer to import than most of flux. For a type checker they are one.
"""

from __future__ import annotations

from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any
    from typing import NamedTuple as Record
else:

    class _Fields(type):
        """Makes a named tuple of a class whose annotations are its fields."""

        def __new__(
            cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]
        ) -> type[tuple[Any, ...]]:
            fields = namespace["__annotations__"]
            defaults = [namespace.pop(field) for field in fields if field in namespace]
            plain = namedtuple(name, fields, defaults=defaults, module=namespace["__module__"])
            return type(name, (plain,), {"__slots__": (), **namespace})

    Record = type.__new__(_Fields, "Record", (), {})

__all__ = ["Record"]
