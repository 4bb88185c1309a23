"""The exception tree: every failure a user can meet, with its exit code.

::

    MobileInstError                exit 2 unless a branch says otherwise
    ├── InputError                 exit 2   what the user handed over cannot be used
    │   ├── ConfigError                     a model.toml, a zoo id, an option
    │   ├── CheckpointError                 weights: unreadable, unsafe, of another model
    │   ├── BundleError                     an exported pair: manifest, graphs, golden data
    │   ├── MediaError                      pictures, clips, overlays
    │   ├── DatasetError                    annotation files and what they name
    │   └── OutputError                     where a result should be written
    ├── VerificationFailed         exit 1   the numbers disagree
    ├── DeviceError                exit 3   no device, or it failed under us
    └── MeasurementInvalid         exit 4   a latency that must not be believed

An error is one sentence that names the cause, and one that names the next step. The command line
catches :class:`MobileInstError` once, prints both and exits with ``exit_code``; nothing else there
decides what a failure means. A signal ends a command with 128 and its number: 130 for Ctrl-C, 143
for SIGTERM, 129 for SIGHUP.
"""

from __future__ import annotations

from mobileinst_deploy.core.text import shown

#: Of a cause or a next step; people are shown less, programs may want all names of a list.
MOST_CHARACTERS = 2000

EXIT_OK = 0
EXIT_VERIFICATION_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_NO_DEVICE = 3
EXIT_INVALID_MEASUREMENT = 4
EXIT_BUG = 70
EXIT_INTERRUPTED = 130


class MobileInstError(Exception):
    """A failure with a cause and a next step.

    Args:
        cause: What went wrong, one sentence without a full stop at the end.
        next_step: What the user can do about it, one sentence without a full stop at the end.
        where: The place alone, for machines: a file, an option, a device; None where none is known.
    """

    exit_code: int = EXIT_BAD_INPUT

    def __init__(self, cause: str, next_step: str, where: str | None = None) -> None:
        # Names and words of files and devices are in it, and may be anything.
        self.cause = _without_stop(shown(cause, MOST_CHARACTERS))
        self.next_step = _without_stop(shown(next_step, MOST_CHARACTERS))
        super().__init__(self.cause, self.next_step)
        self.where = where

    def __str__(self) -> str:
        return f"{self.cause}. {self.next_step}."


def _without_stop(sentence: str) -> str:
    """A sentence may end in what a library said, which often has its own full stop."""
    return sentence if sentence.endswith("..") else sentence.removesuffix(".")


class InputError(MobileInstError):
    """What the user handed over cannot be used."""


class ConfigError(InputError):
    """A model.toml, a zoo id or an option is wrong."""


class CheckpointError(InputError):
    """Weights are unreadable, unsafe to read, or belong to another model."""


class BundleError(InputError):
    """An exported pair does not hold together."""


class MediaError(InputError):
    """A picture or clip cannot be read or written."""


class DatasetError(InputError):
    """An annotation file is broken or does not fit its pictures."""


class OutputError(InputError):
    """A result cannot be written where it was asked for."""


class VerificationFailed(MobileInstError):
    """Outputs differ from the reference by more than the tolerance."""

    exit_code = EXIT_VERIFICATION_FAILED


class DeviceError(MobileInstError):
    """No usable device, or the device failed during the work."""

    exit_code = EXIT_NO_DEVICE


class MeasurementInvalid(MobileInstError):
    """A measurement finished, but its conditions broke the protocol."""

    exit_code = EXIT_INVALID_MEASUREMENT
