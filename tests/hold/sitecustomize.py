"""Holds a process where it is about to do something to a file, until it is let go: for test_faults, on PYTHONPATH.

Some moments last microseconds, such as that between two renames. A process of the app that comes to one leaves its
number and waits there, so that what is done to it from outside is done at that moment. Nothing else of it is changed.
"""

import json
import os
import re
import sys
import time


def _watch(events, path, cwd, reading, folder):
    """Hold once, in each process that is about to open, rename or list what ``path`` finds, while in ``cwd``."""
    seen, pattern, place = [], re.compile(path), re.compile(cwd)

    def look(event, words):
        if seen or event not in events:
            return
        # of a rename, what it becomes
        name = words[1] if event == "os.rename" else words[0]
        name = os.fspath(name) if isinstance(name, (str, os.PathLike)) else ""
        if event == "open" and (words[2] & (os.O_WRONLY | os.O_RDWR) == 0) != reading:
            return
        if not pattern.search(os.path.abspath(name)) or not place.search(os.getcwd()):
            return
        seen.append(name)
        os.close(os.open(os.path.join(folder, str(os.getpid())), os.O_CREAT | os.O_WRONLY))
        while not os.path.exists(os.path.join(folder, "go")):
            time.sleep(0.01)

    sys.addaudithook(look)


if os.environ.get("CPMAE_HOLD"):
    _watch(**json.loads(os.environ["CPMAE_HOLD"]))
