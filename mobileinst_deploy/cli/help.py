"""How help looks: paragraphs that fill the terminal, flags without values, no words of Python."""

from __future__ import annotations

import re
from typing import Any

from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption


class _Plain:
    """What the help of a command and of a group have in common."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        text = getattr(self, "help", None)
        # A docstring's lines end where the source's do; a terminal has other widths.
        self.help = None if text is None else re.sub(r"(?<!\n)\n(?!\n)", " ", text.strip())

    def get_params(self, ctx: Any) -> list[Any]:
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            named = isinstance(param, TyperOption) and param.metavar is not None
            if isinstance(param, TyperOption | TyperArgument) and not named:
                kind = re.sub(r"^<list\[(.*)\]>$", r"<\1>", param.display_type(ctx)).lower()
                shown = "" if getattr(param, "is_flag", False) else kind.replace(" range", "")
                # Typer has no setting for it: an argument's metavar is its name.
                vars(param)["display_type_rich"] = lambda ctx, shown=shown: shown
        return params


class PlainCommand(_Plain, TyperCommand):
    """A command."""


class PlainGroup(_Plain, TyperGroup):
    """A command that has commands."""
