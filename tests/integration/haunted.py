"""Drives one study in a child process that is SIGKILLed at random instants until the study is finished.

Run by ``test_chaos.py`` as ``python haunted.py STUDY_FILE URL KILLS SEED``; prints how often it really killed. Forking
from a process that imported everything, once, makes hundreds of kills affordable.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

from evomerge import config
from evomerge.errors import StudyNotFoundError
from evomerge.store import open_store
from evomerge.study.drive import begin, create, resume


def drive(file: Path, url: str) -> None:
    """Begin the study, or go on with it, in this process."""
    study = config.read(file)
    with open_store(url, commit_every=study.settings.store.commit_every) as store:
        try:
            store.open(study.settings.study)
        except StudyNotFoundError:
            begin(create(study), store)
        else:
            resume(store, study.settings.study, study)


def main() -> None:
    """Fork, wait a random while, kill, and again."""
    file, url, wanted, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    chance, kills = random.Random(seed), 0
    longest = 0.02
    while True:
        child = os.fork()
        if child == 0:
            drive(file, url)
            os._exit(0)
        if kills < wanted:
            time.sleep(chance.uniform(0.0, longest))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            kills += 1
            continue
        if status != 0:
            raise SystemExit(f"the study ended with status {status}")
        print(kills)
        return


if __name__ == "__main__":
    main()
