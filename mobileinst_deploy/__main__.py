"""``python -m mobileinst_deploy``: the command line."""

from mobileinst_deploy.cli import main

main()
