"""Start commands one after the other, and say what each took: one line of JSON for each.

A program of its own, which imports little: see `Runner` in processes.py.
"""

import json
import os
import sys
import time

#: Of the peak memory that the system tells.
UNIT = 1 if sys.platform == "darwin" else 1024

for line in sys.stdin:
    job = json.loads(line)
    os.chdir(job["directory"])
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, job["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    started = time.perf_counter()
    pid = os.posix_spawnp(job["words"][0], job["words"], job["variables"], file_actions=files)
    _, status, usage = os.wait4(pid, 0)
    seconds = time.perf_counter() - started
    cpu = usage.ru_utime + usage.ru_stime
    result = [os.waitstatus_to_exitcode(status), seconds, cpu, usage.ru_maxrss * UNIT]
    print(json.dumps(result), flush=True)
