"""`python -m rlaif`, the same as the command `rlaif`."""

from rlaif.cli import main

if __name__ == "__main__":  # children of multiprocessing import this module again
    main()
