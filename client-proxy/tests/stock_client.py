"""A stock grpcio client: calls through the proxy, prints what happened as JSON.

usage: stock_client.py ADDRESS CALLERS CALLS
"""

import json
import sys
import threading

import grpc

address, callers, calls = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
channel = grpc.insecure_channel(address)
same = lambda message: message
echo = channel.unary_unary("/test.Echo/Echo", same, same)
report = {"ok": 0, "wrong": 0, "errors": []}
lock = threading.Lock()


def caller(number):
    for call in range(calls):
        message = f"{number}/{call}".encode()
        try:
            reply = echo(message, timeout=20)
            with lock:
                report["ok" if reply == message else "wrong"] += 1
        except grpc.RpcError as error:
            with lock:
                report["errors"].append(str(error))


def outcome(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
        return ["OK", ""]
    except grpc.RpcError as error:
        return [error.code().name, error.details()]


print("ready", flush=True)
threads = [threading.Thread(target=caller, args=(number,)) for number in range(callers)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]

fail = channel.unary_unary("/test.Echo/Fail", same, same)
stream = channel.stream_unary("/test.Echo/Echo", same, same)
named = [("quintet-request-id", "python-1")]
report["fail"] = outcome(fail, b"fail", timeout=20)
report["stream"] = outcome(stream, iter([b"a", b"b"]), timeout=20)
report["large"] = outcome(echo, bytes(70_000), timeout=20)
report["whole"] = outcome(echo, bytes(60_000), timeout=20)
report["compressed"] = outcome(echo, bytes(5_000), timeout=20, compression=grpc.Compression.Gzip)
report["named"] = [outcome(echo, b"named", timeout=20, metadata=named) for _ in range(3)]
print(json.dumps(report), flush=True)
