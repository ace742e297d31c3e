"""The command ``mishformer-lens``."""

import sys


def main() -> None:
    """Run the command that the arguments name, and end the process with its exit code.

    0: all is well. 1: something was found that is not. 2: the command could not do its work, or was not understood.
    3: nothing is broken, but something is unverified.
    """
    from mishformer_lens.cli.app import run

    run(sys.argv[1:])
