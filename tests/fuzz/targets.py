"""Every reader of what comes from outside, as a function of bytes, with real files to begin."""

from __future__ import annotations

from pathlib import Path

from fuzz import datasets, documents, media, networks
from fuzz.target import SECONDS, Target, survives

__all__ = ["CORPUS", "SECONDS", "TARGETS", "survives"]

CORPUS = Path(__file__).parent / "corpus"
TARGETS: dict[str, Target] = {
    **documents.TARGETS,
    **datasets.TARGETS,
    **networks.TARGETS,
    **media.TARGETS,
}
