"""Checks the books from outside: every transfer, the sum of money, and the state of each replica."""

import grpc


class Books:
    """What the replicas hold after the load."""

    def __init__(self, target, cluster):
        import bank_pb2
        import bank_pb2_grpc

        bank = bank_pb2_grpc.BankStub(grpc.insecure_channel(target))
        self.total = bank.Total(bank_pb2.TotalRequest(), timeout=10).amount
        self.applied = {}
        after = 0
        while True:
            page = bank.Ledger(bank_pb2.LedgerRequest(after=after), timeout=10)
            for entry in page.entries:
                self.applied[entry.reference] = entry.times
            if not page.entries:
                break
            after = page.entries[-1].reference
        self.hashes = {i["node"]: (i["position"], i["hash"])
                       for i in cluster.json("instance", "list", "--audit") if i["class"] == "bank.Bank"}

    def lost(self, acknowledged):
        return acknowledged - self.applied.keys()

    def twice(self):
        return {reference for reference, times in self.applied.items() if times > 1}


def total(target):
    """The sum of money in all accounts."""
    import bank_pb2
    import bank_pb2_grpc

    with grpc.insecure_channel(target) as channel:
        return bank_pb2_grpc.BankStub(channel).Total(bank_pb2.TotalRequest(), timeout=30).amount
