"""Names to classes, by decorator: how a method that stands in one file is found."""

from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Generic, TypeVar

from ntml_bench.errors import unknown

T = TypeVar("T")


class Registry(Generic[T]):
    """A mapping from the name in a YAML file to the class that implements it."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._classes: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Class decorator; a name can be given to one class only (ValueError)."""

        def add(cls: type[T]) -> type[T]:
            known = self._classes.get(name)
            if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
                raise ValueError(f"{self.kind} '{name}' is already registered by {known.__module__}")
            self._classes[name] = cls
            return cls

        return add

    def __getitem__(self, name: str) -> type[T]:
        """The class of that name; UserError with the nearest name where there is none."""
        try:
            return self._classes[name]
        except KeyError:
            raise unknown(self.kind, name, self._classes) from None

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._classes))


def import_package_modules(package: str, path: Iterable[str]) -> None:
    """Import every module of a package, so that a file put into its folder is registered without further edits."""
    for module in iter_modules(path):
        import_module(f"{package}.{module.name}")
