"""`python -m upernet`, which is also how torchrun starts it."""

import sys

from upernet.cli import main

if __name__ == "__main__":
    sys.exit(main())
