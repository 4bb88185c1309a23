"""The command line: parse, call one stage, print, choose the exit code.

Each module holds the commands of one theme and imports its stage inside the command, so that
``mobileinst --help`` answers without torch, onnx or cv2.
"""

from mobileinst_deploy.cli.app import main

__all__ = ["main"]
