"""A program that goes on running: for each line it gets, it applies what is pending, of which
there is nothing, and says how many seconds that took.

usage: inside.py MODULE URL, where MODULE is one of this directory, with a function `nothing_to_do`.
"""

import sys
import time
from importlib import import_module

nothing_to_do = import_module(sys.argv[1]).nothing_to_do
for _ in sys.stdin:
    started = time.perf_counter()
    nothing_to_do(sys.argv[2])
    print(time.perf_counter() - started, flush=True)
