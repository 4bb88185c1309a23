"""The command line: parse, call one workflow, print, choose the exit code.

Each module holds one command and imports its workflow inside it, so that ``mobileinst --help``
answers without torch, onnx or cv2.
"""

from mobileinst_deploy.cli import process


def main() -> None:
    """Run the command line and exit with the documented code."""
    process.begin()
    try:
        from mobileinst_deploy.cli.app import app

        app()
    finally:
        process.finish()
