"""Where a failure is: what reads a file, a folder or a phone names it once for all its errors."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from mobileinst_deploy.core.errors import MOST_CHARACTERS, MobileInstError
from mobileinst_deploy.core.text import shown

_Args = ParamSpec("_Args")
_Result = TypeVar("_Result")


@contextmanager
def at(where: object) -> Iterator[None]:
    """Name the place of every error inside that does not name one itself.

    Args:
        where: A file, a folder, a device.
    """
    try:
        yield
    except MobileInstError as error:
        if error.where is None:
            error.where = shown(str(where), MOST_CHARACTERS)
        raise


def places(argument: int) -> Callable[[Callable[_Args, _Result]], Callable[_Args, _Result]]:
    """A decorator: errors of the function are :func:`at` its argument of that number.

    >>> from mobileinst_deploy.core.errors import InputError
    >>> @places(0)
    ... def load(path: str) -> None:
    ...     raise InputError("it is empty", "Write it again")
    >>> try:
    ...     load("a.json")
    ... except InputError as error:
    ...     print(error.where)
    a.json
    """

    def decorate(function: Callable[_Args, _Result]) -> Callable[_Args, _Result]:
        names = list(inspect.signature(function).parameters)

        @functools.wraps(function)
        def placed(*args: _Args.args, **kwargs: _Args.kwargs) -> _Result:
            given = dict(zip(names, args, strict=False)) | kwargs
            with at(given[names[argument]]):
                return function(*args, **kwargs)

        return placed

    return decorate
