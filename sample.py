"""Command line: python sample.py generate "an old man with a red hat"; python sample.py --help lists the commands."""

import sys

from clip2latent.cli import main

if __name__ == "__main__":
    sys.exit(main())
