"""A development cluster as a person handles it: through the `quintet` command line."""

import json
import os
import signal
import subprocess
import time

from orphans import end_with_parent


# What ends the demo from outside.
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Cluster:
    """`quintet dev` as a child process, and the commands that a person would type beside it."""

    def __init__(self, directory, transport):
        self.directory = directory
        self.isolated = transport == "udp"
        self._command = ["quintet", "dev", "--nodes", "3", "--dir", directory]
        if self.isolated:
            self._command += ["--transport", "udp", "--netns"]
        elif transport != "auto":
            self._command += ["--transport", transport]

    def __enter__(self):
        os.makedirs(self.directory, exist_ok=True)
        self._output = open(os.path.join(self.directory, "dev.log"), "w")
        # A process group of its own: Ctrl-C is for the demo, which then ends the cluster in order.
        self._process = subprocess.Popen(self._command, stdout=self._output, stderr=subprocess.STDOUT,
                                         process_group=0, preexec_fn=end_with_parent)
        try:
            self.wait_for(lambda: self.members() == 3, 60, "three members in the view")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        # A second Ctrl-C must not leave processes and namespaces behind.
        handlers = {number: signal.signal(number, signal.SIG_IGN) for number in ENDINGS}
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._output.close()
        for number, handler in handlers.items():
            signal.signal(number, handler)

    @property
    def pid(self):
        """The process that all others of the cluster descend from."""
        return self._process.pid

    def quintet(self, *words):
        """Runs one command; returns what it prints, or raises with what it complains."""
        done = subprocess.run(["quintet", "--cluster-dir", self.directory, *words], capture_output=True, text=True,
                              timeout=60)
        if done.returncode != 0:
            raise Failure(f"quintet {' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def json(self, *words):
        return json.loads(self.quintet(*words, "-o", "json"))

    def members(self):
        try:
            return len(self.json("status")["view"]["members"])
        except (Failure, KeyError, TypeError):
            return 0

    def wait_for(self, condition, seconds, what):
        until = time.monotonic() + seconds
        while not condition():
            if self._process.poll() is not None:
                raise Failure(f"quintet dev ended with status {self._process.returncode}: see {self._output.name}")
            if time.monotonic() > until:
                raise Failure(f"waited {seconds} s in vain for {what}: the logs are in {self.directory}")
            time.sleep(0.05)


class Failure(Exception):
    """Something did not happen as it should; the message is for a person."""
