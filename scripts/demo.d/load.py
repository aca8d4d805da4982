"""Callers that move money through the proxy, as any gRPC client would.

Each caller is a process of its own with a stock channel and a stock stub: no retry policy, no knowledge of the
cluster. Every transfer carries a reference that no other transfer has, so that the books tell afterwards which
transfers were applied, and how often.
"""

import array
import multiprocessing
import random
import signal
import time

import grpc

from orphans import end_with_parent

# Spawned, not forked: gRPC's threads do not survive a fork.
_processes = multiprocessing.get_context("spawn")

DEADLINE_S = 30


class Load:
    """`callers` processes that together make `transfers` transfers, spread over at least `seconds`."""

    def __init__(self, target, transfers, accounts, callers, seconds):
        self.transfers = transfers
        self._paced_per_s = transfers / seconds
        self._acknowledged = _processes.Array("Q", callers, lock=False)
        self._failed = _processes.Array("Q", callers, lock=False)
        self._last_reply_ns = _processes.Value("Q", 0, lock=False)
        self._go = _processes.Event()
        self._results = _processes.Queue()
        self._processes = []
        share, rest = divmod(transfers, callers)
        first = 1
        for caller in range(callers):
            count = share + (caller < rest)
            process = _processes.Process(
                target=_call_all,
                args=(caller, target, range(first, first + count), accounts, seconds / max(count, 1), self._go,
                      self._acknowledged, self._failed, self._results),
                daemon=True,
            )
            process.start()
            self._processes.append(process)
            first += count
        for _ in self._processes:
            self._results.get(timeout=60)  # each says once that it is connected

    def start(self):
        self.started_ns = time.monotonic_ns()
        self._go.set()

    def acknowledged(self):
        return sum(self._acknowledged)

    def failed(self):
        return sum(self._failed)

    def running(self):
        return any(process.is_alive() for process in self._processes) and \
            self.acknowledged() + self.failed() < self.transfers

    def stop(self):
        """Ends callers that are still at work, as they are when the demo fails."""
        for process in self._processes:
            process.terminate()

    def finish(self):
        """Waits for the callers; returns what they saw."""
        outcomes = [self._results.get(timeout=DEADLINE_S + 30) for _ in self._processes]
        for process in self._processes:
            process.join()
        return Outcome(outcomes, self.started_ns, self._paced_per_s)


class Outcome:
    """What the callers saw: references acknowledged, errors, when each reply came and how long it took."""

    def __init__(self, outcomes, started_ns, paced_per_s):
        self.paced_per_s = paced_per_s
        self.acknowledged = set()
        self.errors = []
        replies = []
        for refs, starts, ends, errors in outcomes:
            self.acknowledged.update(refs)
            self.errors.extend(errors)
            replies.extend(zip(ends, starts))
        replies.sort()
        self.latencies_ms = sorted((end - start) / 1e6 for end, start in replies)
        gap, before = (0, started_ns), started_ns
        for end, _ in replies:
            gap = max(gap, (end - before, before))
            before = end
        self.longest_gap_ms = gap[0] / 1e6
        self.longest_gap_at_s = (gap[1] - started_ns) / 1e9
        self.seconds = (before - started_ns) / 1e9

    def percentile_ms(self, per_cent):
        if not self.latencies_ms:
            return float("nan")
        rank = min(len(self.latencies_ms) - 1, int(len(self.latencies_ms) * per_cent / 100))
        return self.latencies_ms[rank]


def _call_all(caller, target, references, accounts, interval_s, go, acknowledged, failed, results):
    import bank_pb2
    import bank_pb2_grpc

    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the demo ends its callers itself
    draw = random.Random(caller)
    channel = grpc.insecure_channel(target)
    grpc.channel_ready_future(channel).result(timeout=30)
    transfer = bank_pb2_grpc.BankStub(channel).Transfer
    results.put("connected")
    refs, starts, ends, errors = [], array.array("q"), array.array("q"), []
    go.wait()
    due = time.monotonic()
    for reference in references:
        # Paced, so that the load outlasts the faults; a late caller catches up at full speed.
        due += interval_s
        wait = due - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        source = draw.randrange(accounts)
        request = bank_pb2.TransferRequest(reference=reference, **{"from": source},
                                           to=(source + draw.randrange(1, accounts)) % accounts,
                                           amount=draw.randrange(1, 10))
        start = time.monotonic_ns()
        try:
            transfer(request, timeout=DEADLINE_S)
        except grpc.RpcError as error:
            errors.append(f"transfer {reference}: {error.code().name}: {error.details()}")
            failed[caller] += 1
            continue
        ends.append(time.monotonic_ns())
        starts.append(start)
        refs.append(reference)
        acknowledged[caller] += 1
    results.put((refs, starts, ends, errors))
