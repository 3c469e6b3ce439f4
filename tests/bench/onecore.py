"""`python -m tests.bench.onecore COMMAND...`: run it on one core, and say what it cost as JSON.

Of `cpu_seconds` are the command and all that it started, what it left behind included: that is the
same on a busy machine as on an idle one, but for what others push out of the caches.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import subprocess
import sys
import time

# linux/prctl.h: whoever loses its parent becomes our child, so that it can be waited for.
PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    began = time.perf_counter()
    done = subprocess.run(sys.argv[1:], capture_output=True, text=True, check=True)
    wall_seconds = time.perf_counter() - began
    try:
        while True:
            os.wait()
    except ChildProcessError:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cost = {
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "wall_seconds": wall_seconds,
        "stderr": done.stderr,
    }
    print(json.dumps(cost))


if __name__ == "__main__":
    main()
