"""The demo: a bank on three nodes keeps its word through kill -9."""

import argparse
import os
import shutil
import signal
import sys
import threading
import time

from books import Books, total
from cluster import ENDINGS, Cluster, Failure
from faults import Faults
from idle import MEASURED_S, idle_per_cent
from load import Load
from report import report, summary


def main():
    arguments = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    arguments.add_argument("--transport", choices=["auto", "shm", "udp", "verbs"], default="auto",
                           help="udp: each node in a network namespace of its own; verbs: over this machine's adapters")
    arguments.add_argument("--transfers", type=int, help="default 100,000; with --short 20,000")
    arguments.add_argument("--accounts", type=int, default=1000)
    arguments.add_argument("--callers", type=int, default=8)
    arguments.add_argument("--short", action="store_true", help="a fifth of the transfers, a shorter stop")
    arguments.add_argument("--times", type=int, default=1, help="so many runs, one after the other, and a summary")
    arguments.add_argument("--emulated", action="store_true",
                           help="the processors are emulated: what the cluster costs idle is not measured")
    arguments.add_argument("--dir", required=True, help="where the cluster keeps its data and logs")
    options = arguments.parse_args()
    if options.times < 1:
        arguments.error("--times: at least once")
    if options.transport == "udp" and os.getuid() != 0:
        raise Failure("--transport udp makes network namespaces, which only root may: run it as root, or without")
    runs = []
    for number in range(1, options.times + 1):
        if options.times > 1:
            say(f"run {number} of {options.times}")
        try:
            runs.append(run(options, number))
        except Failure as failure:
            if options.times == 1:
                raise
            # The other runs may still tell something; the summary misses this one, and so does not pass.
            say(f"error in run {number}: {failure}")
    kept = summary(runs, options.times) if options.times > 1 else runs[0].kept
    return 0 if kept else 1


def run(options, number):
    """One demo, from the start of the cluster to its end; returns the Run."""
    transfers = options.transfers or (20_000 if options.short else 100_000)
    # Named after this process and run: two demos side by side do not meet.
    directory = os.path.join(options.dir, f"{options.transport}-{os.getpid()}-{number}")

    say(f"starting three nodes and a proxy, data and logs in {directory} (kept if a promise is broken)")
    with Cluster(directory, options.transport) as cluster:
        cluster.quintet("component", "deploy", "examples/bank")
        target = cluster.json("status")["proxy"]["listen"]
        for link in sorted({(l["path"], l["reason"]) for n in cluster.json("status")["nodes"] for l in n["links"]}):
            say(f"links: {link[0]} ({link[1]})")
        before = total(target)
        say(f"bank deployed, {before:,} in {options.accounts:,} accounts; callers connect to {target}")
        idle = None
        if not options.emulated:
            say(f"measuring for {MEASURED_S} s what it costs idle")
            idle = idle_per_cent(cluster.pid)

        load = Load(target, transfers, options.accounts, options.callers, 18 if options.short else 45)
        faults = Faults(cluster, say, 2 if options.short else 5)
        load.start()
        stop_progress = progress(load)
        try:
            for wait_until, fault in [(0.1, faults.kill_routed), (0.4, faults.freeze_another), (0.7, faults.kill_coordinator)]:
                while load.running() and load.acknowledged() < wait_until * transfers:
                    time.sleep(0.05)
                if not load.running():
                    raise Failure(f"the load ended before {fault.__name__}: give it more --transfers")
                fault()
            outcome = load.finish()
        finally:
            stop_progress()
            load.stop()
        books = Books(target, cluster)
        done = report(options.transport, outcome, books, before, faults.done, cluster.json("events"), cluster.json("status")["proxy"], idle)
    if done.kept:
        shutil.rmtree(directory)
    return done


def progress(load):
    """Prints a line a second until the returned function is called."""
    stop = threading.Event()

    def run():
        last = 0
        while not stop.wait(1):
            done = load.acknowledged()
            say(f"{done:>9,} of {load.transfers:,} transfers  {done - last:>6,}/s  {load.failed()} errors")
            last = done

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def end():
        stop.set()
        thread.join()

    return end


_started = time.monotonic()


def say(text):
    print(f"{time.monotonic() - _started:6.1f} s  {text}", flush=True)


def interrupted(*_):
    raise KeyboardInterrupt


if __name__ == "__main__":
    for number in ENDINGS:
        signal.signal(number, interrupted)
    try:
        sys.exit(main())
    except Failure as failure:
        sys.exit(f"error: {failure}")
    except KeyboardInterrupt:
        sys.exit("interrupted")
