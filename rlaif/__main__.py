"""`python -m rlaif`, the same as the command `rlaif`."""

from rlaif.cli import main

main()
