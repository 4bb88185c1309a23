"""Text that did not come from this project, made fit to be shown: no control codes, no novels."""

from __future__ import annotations

import re

MESSAGE_CHARACTERS = 600
_CUT = "..."


def shown(text: str, most: int = MESSAGE_CHARACTERS) -> str:
    r"""Text from a file, a device or a name, as one printable line of at most ``most`` characters.

    Whatever is not printable (control characters, escape codes, line ends, marks that turn the
    direction of writing, halves of surrogate pairs) becomes its escape, such as ``\x1b``.

    >>> shown("red \x1b[31m")
    'red \\x1b[31m'
    """
    # Cut first: nothing is gained by escaping a gigabyte.
    cut = text[: most + 1]
    line = "".join(c if c.isprintable() else _escape(c) for c in cut)
    return line if len(line) <= most else line[: most - len(_CUT)] + _CUT


def shape_text(shape: tuple[int | str, ...]) -> str:
    """An array's shape, such as ``1x32x8x8``; a free axis by its symbol."""
    return "x".join(map(str, shape))


def whole(text: str, low: int, high: int) -> int | None:
    """The whole number within bounds that a text is, in plain digits; None for anything else."""
    text = text.strip()
    if not re.fullmatch(r"-?[0-9]{1,12}", text):
        return None
    value = int(text)
    return value if low <= value <= high else None


def size_text(size: tuple[int, int]) -> str:
    """A size (height, width) for people: ``384x640``, height first wherever a size is shown."""
    return f"{size[0]}x{size[1]}"


def ms_text(value: float) -> str:
    """A time in milliseconds to three figures or a tenth, below 1 ms to a microsecond.

    Examples:
        >>> ms_text(0.3941), ms_text(3.941), ms_text(188.04)
        ('0.394', '3.94', '188.0')
    """
    places = 3 if value < 1 else 2 if value < 10 else 1
    return f"{value:.{places}f}"


def counted(number: int, noun: str) -> str:
    """So many of something: ``1 frame``, ``1,200 frames``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def tallied(number: int, things: str) -> str:
    """So many of what a phrase begins with.

    Examples:
        >>> tallied(2, "annotations without a mask"), tallied(1, "annotations without a mask")
        ('2 annotations without a mask', '1 annotation without a mask')
    """
    noun, _, rest = things.partition(" ")
    return f"{counted(number, noun.removesuffix('s'))} {rest}"


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
