"""The command line: parse, call one workflow, print, choose the exit code.

Each module holds one command and imports its workflow inside it, so that ``mobileinst --help``
answers without torch, onnx or cv2.
"""

from typing import NoReturn

from mobileinst_deploy.cli import process


def main() -> NoReturn:
    """Be the program ``mobileinst``: run the command line and end the process."""
    process.begin()
    try:
        from mobileinst_deploy.cli.app import app

        app()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except KeyboardInterrupt:
        # Between two lines of ours; a command says more of its end.
        code = 130
    process.leave(code)
