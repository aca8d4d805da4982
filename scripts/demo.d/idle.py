"""What the cluster costs while nobody asks anything of it.

CPU time is what the kernel charged to the processes themselves. Other work on the machine takes caches and so makes
them slower, never cheaper: of several looks the least counts.
"""

import os
import time

MEASURED_S = 10
LIMIT_PER_CENT = 3
LOOKS = 3


def idle_per_cent(pid):
    """Per cent of one core that the process and its descendants use; looks again only if that seems too much."""
    least = 100.0
    for _ in range(LOOKS):
        least = min(least, _look(pid))
        if least < LIMIT_PER_CENT:
            break
    return least


def _look(pid):
    processes = _descendants(pid)
    before, started = _cpu_ticks(processes), time.monotonic()
    time.sleep(MEASURED_S)
    used, took = _cpu_ticks(processes) - before, time.monotonic() - started
    return 100 * used / os.sysconf("SC_CLK_TCK") / took


def _descendants(pid):
    found = [pid]
    for process in found:
        for thread in os.listdir(f"/proc/{process}/task"):
            with open(f"/proc/{process}/task/{thread}/children") as children:
                found.extend(map(int, children.read().split()))
    return found


def _cpu_ticks(processes):
    total = 0
    for process in processes:
        with open(f"/proc/{process}/stat") as stat:
            # The name, in parentheses, may hold spaces; user and system time are fields 14 and 15.
            fields = stat.read().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total
