"""`python -m SAMFineTuneLib`: the commands."""

import sys

from SAMFineTuneLib.cli import main

if __name__ == "__main__":
    sys.exit(main())
