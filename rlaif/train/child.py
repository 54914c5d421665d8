"""The process that trains, `python -m rlaif.train.child FOLDER/training.json`: it alone imports torch and TRL."""

from __future__ import annotations

import os
import stat
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path

from rlaif.train.failures import failure_of, note
from rlaif.train.live import INTERRUPTED
from rlaif.train.settings import read_training


def main() -> None:
    """Exit code 0: OUT.partial holds a whole model, and its training.json says done."""
    folder = Path(sys.argv[1]).parent
    _end_with_parent()
    options: dict[str, object] = {}
    try:
        training = read_training(folder)
        options |= training.options
        from rlaif.train.fit import fit  # 10 s

        if not fit(training, folder):
            os._exit(INTERRUPTED)
    except BaseException as error:
        traceback.print_exc()
        with suppress(Exception):  # a full disk
            if not isinstance(error, SystemExit | KeyboardInterrupt):
                note(folder, failure_of(error, options))
            sys.stderr.flush()
        os._exit(1)  # other threads and processes may never end


def _end_with_parent() -> None:
    """A parent that is gone, however it went, closes our stdin; nobody would follow this training any more."""
    if not stat.S_ISFIFO(os.fstat(0).st_mode):
        return

    def wait() -> None:
        os.read(0, 1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    main()
