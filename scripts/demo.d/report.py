"""The table at the end, and the verdict."""

import statistics
from dataclasses import dataclass

from idle import LIMIT_PER_CENT

GOOD, BAD, DIM, BOLD, PLAIN = "\033[32m", "\033[31m", "\033[2m", "\033[1m", "\033[0m"


@dataclass
class Run:
    """What is left of one run for the summary of several."""

    kept: bool
    lost: int
    twice: int
    errors: int
    idle_per_cent: float | None
    gap_ms: float
    p999_ms: float
    kills_ms: list


# From kill -9 to the survivors' new view, ms: on one host the kernel tells of a death, over a network silence does.
GOAL_MS = {"auto": 50, "shm": 50, "udp": 150, "verbs": 150}


def report(transport, outcome, books, before, faults, events, proxy, idle_per_cent):
    """Prints what happened; returns it as a Run."""
    lost, twice = books.lost(outcome.acknowledged), books.twice()
    states = {state for _, state in books.hashes.values()}
    promises = [
        ("transfers acknowledged", f"{len(outcome.acknowledged):,}", len(outcome.acknowledged) > 0),
        ("transfers applied", f"{len(books.applied):,}", True),
        ("acknowledged, but lost", f"{len(lost):,}", not lost),
        ("applied twice", f"{len(twice):,}", not twice),
        ("client errors", f"{len(outcome.errors):,}", not outcome.errors),
        ("sum of money", f"{before:,} before, {books.total:,} after", before == books.total),
        ("state of the replicas", f"{len(books.hashes)} replicas, {len(states)} state" + "s" * (len(states) != 1),
         len(books.hashes) == 3 and len(states) == 1),
    ]
    if idle_per_cent is not None:
        promises.append(("idle, before the load", f"{idle_per_cent:.1f} % of one core, all processes together "
                         f"(less than {LIMIT_PER_CENT} %)", idle_per_cent < LIMIT_PER_CENT))
    _title("Promises")
    for what, figure, kept in promises:
        print(f"  {_mark(kept)} {what:<26} {figure}")
    for error in outcome.errors[:5]:
        print(f"      {error}")
    for reference in sorted(lost)[:5]:
        print(f"      lost: transfer {reference}")
    for reference in sorted(twice)[:5]:
        print(f"      applied twice: transfer {reference}")

    _title("What the callers felt")
    print(f"  {len(outcome.acknowledged) / outcome.seconds:,.0f} transfers/s over {outcome.seconds:.1f} s "
          f"(the callers are paced to {outcome.paced_per_s:,.0f}/s, to outlast the faults: not what the cluster can do)")
    print(f"  p50 {outcome.percentile_ms(50):.2f} ms, p99 {outcome.percentile_ms(99):.2f} ms, "
          f"p99.9 {outcome.percentile_ms(99.9):.2f} ms, worst {outcome.percentile_ms(100):.1f} ms")
    print(f"  longest time without any reply: {outcome.longest_gap_ms:.0f} ms, "
          f"{outcome.longest_gap_at_s:.1f} s into the load (goal at most 500 ms)")
    print(f"  the proxy changed its route {proxy['reroutes']} times and replayed {proxy['replays']} calls")

    _title("Faults")
    kills = []
    for fault in faults:
        view = _first_view_without(events, fault)
        to_view = f"next view after {(view['installed_ns'] - fault.done_ns) / 1e6:6.1f} ms" if view else "no view change"
        if view and fault.is_kill:
            kills.append((view["installed_ns"] - fault.done_ns) / 1e6)
        print(f"  {fault.what + ', node ' + str(fault.node):<52} {to_view}, whole again after {fault.whole_after_s:.1f} s")
    if kills:
        print(f"  from kill -9 to the new view: median {statistics.median(kills):.1f} ms of {len(kills)} "
              f"(goal at most {GOAL_MS[transport]} ms)")

    _title("Views")
    print(f"  {DIM}{'view':>4}  {'members':<10} {'evidence to install':>20}  cause{PLAIN}")
    for view in _views(events):
        took = f"{view['took_ns'] / 1e6:.1f} ms" if "took_ns" in view else "–"
        members = " ".join(map(str, view["members"]))
        print(f"  {view['view']:>4}  {members:<10} {took:>20}  {view['cause']}")

    _title("Replicas")
    for node, (position, state) in sorted(books.hashes.items()):
        print(f"  node {node}  at {position >> 40}:{position & (1 << 40) - 1:<10} {state}")

    kept = all(kept for _, _, kept in promises)
    print(f"\n{GOOD + BOLD}Every promise was kept.{PLAIN}" if kept else f"\n{BAD + BOLD}A promise was broken.{PLAIN}")
    return Run(kept, len(lost), len(twice), len(outcome.errors), idle_per_cent, outcome.longest_gap_ms,
               outcome.percentile_ms(99.9), kills)


def summary(runs, wanted):
    """Prints one line for each of several runs; returns True if all that were wanted are there and kept their promises."""
    _title(f"{len(runs)} of {wanted} runs")
    print(f"  {DIM}{'run':>5} {'lost':>5} {'twice':>5} {'errors':>6} {'idle':>6} {'gap':>8} {'p99.9':>9}  "
          f"kill -9 to view{PLAIN}")
    for number, run in enumerate(runs, 1):
        kills = ", ".join(f"{kill:.0f}" for kill in run.kills_ms)
        idle = "–" if run.idle_per_cent is None else f"{run.idle_per_cent:.1f} %"
        print(f"  {_mark(run.kept)} {number:>3} {run.lost:>5} {run.twice:>5} {run.errors:>6} {idle:>6} "
              f"{run.gap_ms:>5.0f} ms {run.p999_ms:>6.1f} ms  {kills} ms")
    kills = [kill for run in runs for kill in run.kills_ms]
    if kills:
        print(f"  from kill -9 to the new view: median {statistics.median(kills):.1f} ms of {len(kills)}, "
              f"worst {max(kills):.1f} ms")
    return len(runs) == wanted and all(run.kept for run in runs)


def _views(events):
    """One entry a view: the first install of it, and how long that took one who saw why (a newcomer did not)."""
    installs = {}
    for event in sorted((event for event in events if event["kind"] == "view"), key=lambda event: event["installed_ns"]):
        view = installs.setdefault(event["view"], dict(event))
        if event.get("evidence_ns"):
            view.setdefault("took_ns", event["installed_ns"] - event["evidence_ns"])
    return [installs[view] for view in sorted(installs)]


def _first_view_without(events, fault):
    for view in _views(events):
        if view["installed_ns"] > fault.done_ns and fault.node not in view["members"]:
            return view
    return None


def _title(text):
    print(f"\n{BOLD}{text}{PLAIN}")


def _mark(good):
    return f"{GOOD}✓{PLAIN}" if good else f"{BAD}✗{PLAIN}"
