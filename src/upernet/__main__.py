"""`python -m upernet`, which is also how torchrun starts it."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        # `-m` puts the working folder before all others: a file there must not be taken for a library of its name.
        del sys.path[0]

    from upernet.cli import main

    sys.exit(main())
