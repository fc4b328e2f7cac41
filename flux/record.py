"""`Record`: `typing.NamedTuple` for the rooms that a start of flux imports.

To a type checker the two are one. The import of `typing` takes longer than all of flux's records,
and a class of NamedTuple's takes several times as long to make: it compiles a constructor.
"""

from __future__ import annotations

from operator import itemgetter

try:
    # What named tuples have: it is faster than a property of any other kind.
    from _collections import _tuplegetter as _place  # type: ignore[import-not-found]
except ImportError:  # another Python than CPython

    def _place(number: int, doc: str) -> property:
        return property(itemgetter(number), doc=doc)


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from typing_extensions import Self

_new = tuple.__new__


class _Values(tuple):  # type: ignore[type-arg] # with an argument, it takes longer to make
    """The values of a record, and what a named tuple can do with them."""

    __slots__ = ()
    _fields: tuple[str, ...] = ()
    _count = 0
    _field_defaults: Mapping[str, Any] = {}
    #: The same without their fields, which are the last ones.
    _tail: tuple[Any, ...] = ()

    def __new__(cls, *values: Any, **named: Any) -> Self:
        """A record; fields without a default must be given."""
        if named or len(values) != cls._count:
            values = cls._complete(values, named)
        return _new(cls, values)

    #: A record of all its values in order, in little more time than a tuple takes; their number is
    #: not looked at.
    _make: Any = classmethod(_new)

    @classmethod
    def _complete(cls, values: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
        """All values, of which some are given by their places, some by their names."""
        left = cls._count - len(values)
        if not named and 0 < left <= len(cls._tail):
            return values + cls._tail[-left:]
        fields = cls._fields
        if len(values) > len(fields):
            raise TypeError(f"{cls.__name__} has {len(fields)} fields, not {len(values)}")
        rest = fields[len(values) :]
        if wrong := [name for name in named if name not in rest]:
            what = "twice" if wrong[0] in fields else "and has no such field"
            raise TypeError(f"{cls.__name__} got {wrong[0]} {what}")
        given = {**cls._field_defaults, **named}
        if missing := [name for name in rest if name not in given]:
            raise TypeError(f"{cls.__name__} needs {', '.join(missing)}")
        return (*values, *[given[name] for name in rest])

    def _replace(self, **changes: Any) -> Self:
        """The same with other values for some fields."""
        values = tuple(map(changes.pop, self._fields, self))
        if changes:
            raise ValueError(f"{type(self).__name__} has no field {', '.join(changes)}")
        return _new(type(self), values)

    __replace__ = _replace  # for `copy.replace`

    def _asdict(self) -> dict[str, Any]:
        """The values by their fields."""
        return dict(zip(self._fields, self, strict=True))

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in self._asdict().items())
        return f"{type(self).__name__}({values})"

    def __getnewargs__(self) -> tuple[Any, ...]:
        """For copies and pickles."""
        return tuple(self)


class _RecordType(type):
    """Makes a record of a class whose annotations are its fields, and its values their defaults."""

    def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> _RecordType:
        fields = tuple(namespace["__annotations__"])
        defaults = {name: namespace[name] for name in fields if name in namespace}
        made = {
            "__slots__": (),
            "__match_args__": fields,
            "_fields": fields,
            "_count": len(fields),
            "_field_defaults": defaults,
            "_tail": tuple(defaults.values()),
        }
        places = {name: _place(number, name) for number, name in enumerate(fields)}
        return type.__new__(cls, name, bases, {**namespace, **made, **places})


if TYPE_CHECKING:
    from typing import NamedTuple as Record
else:
    Record = type.__new__(_RecordType, "Record", (_Values,), {"__slots__": ()})

__all__ = ["Record"]
