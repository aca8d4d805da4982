"""What the demo does to the cluster while money moves, and how long each thing took to heal."""

import os
import time


class Fault:
    """One injury: when it was done, what was done, and how long until the cluster was whole again."""

    def __init__(self, what, node, done_ns):
        self.what, self.node, self.done_ns = what, node, done_ns
        self.whole_after_s = None
        self.is_kill = what.startswith("kill -9")


class Faults:
    """Injures the cluster through `quintet dev` and waits until it has healed."""

    def __init__(self, cluster, say, pause_s):
        self._cluster, self._say, self._pause_s = cluster, say, pause_s
        self.done = []

    def kill_routed(self):
        """kill -9 of the replica that the proxy sends its calls to; restart; wait until it is back with state."""
        node = self._cluster.json("status")["proxy"]["routed"]
        self._kill(node, "kill -9 of the replica the proxy uses")

    def kill_coordinator(self):
        """kill -9 of the lowest-ranked member, which leads view changes; restart; wait."""
        node = self._cluster.json("status")["view"]["members"][0]
        self._kill(node, "kill -9 of the coordinator of the view")

    def freeze_another(self):
        """Stops a replica that the proxy does not use (or cuts its cable) long enough to be removed; lets it go on."""
        status = self._cluster.json("status")
        node = next(n for n in reversed(status["view"]["members"]) if n != status["proxy"]["routed"])
        stop, go, what = ("cut", "heal", "cut of the link") if self._cluster.isolated else ("pause", "resume", "SIGSTOP")
        fault = self._begin(f"{what} for {self._pause_s:g} s", node)
        self._cluster.quintet("dev", stop, str(node))
        time.sleep(self._pause_s)
        self._cluster.quintet("dev", go, str(node))
        self._heal(fault)

    def _kill(self, node, what):
        pid = next(n["pid"] for n in self._cluster.json("status")["nodes"] if n["node"] == node)
        fault = self._begin(what, node)
        os.kill(pid, 9)
        time.sleep(0.5)  # long enough that the others have to go on without it
        self._cluster.quintet("dev", "start", str(node))
        self._heal(fault)

    def _begin(self, what, node):
        self._say(f"{what}: node {node}")
        self.done.append(Fault(what, node, time.monotonic_ns()))
        return self.done[-1]

    def _heal(self, fault):
        self._cluster.wait_for(self._whole, 30, f"node {fault.node} to be back with its state")
        fault.whole_after_s = (time.monotonic_ns() - fault.done_ns) / 1e9
        self._say(f"node {fault.node} is back with its state, {fault.whole_after_s:.1f} s after the fault")

    def _whole(self):
        if self._cluster.members() != 3:
            return False
        instances = [i for i in self._cluster.json("instance", "list") if i["class"] == "bank.Bank"]
        return len(instances) == 3 and all(i["state"] == "running" for i in instances)
