"""`python -m SAMFineTuneLib`: the commands, in a process of their own."""

import sys

from SAMFineTuneLib.cli import main
from SAMFineTuneLib.worker.package_loading import end_quickly


def run() -> int:
    """Run the command of this process; returns its exit code."""
    end_quickly()
    return main()


if __name__ == "__main__":
    sys.exit(run())
