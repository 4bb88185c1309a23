"""The command line, run inside the test's own process."""

from typer.testing import CliRunner, Result

from mobileinst_deploy.cli.app import app


def mobileinst(*arguments: object) -> Result:
    """Run ``mobileinst ARGUMENTS`` and give back its exit code and both of its streams."""
    return CliRunner().invoke(app, [str(a) for a in arguments])
