"""tfvamp serve: requests per second at 1, 8 and 64 clients, and the status page in two storms."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import os
import pathlib
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import click
from harness import SIZES, report

PREDICT = "/v1/models/tfvamp:predict"
STATUS = "/v1/models/tfvamp"
CLIENTS = (1, 8, 64)
DEAR, SLOW, LOOKS = 45, 200, 20  # dear requests, slow clients, looks at the status page meanwhile


def export_of_the_papers_size(folder: pathlib.Path) -> None:
    """Writes an untrained VAE with K = 500, D = 40 and 300 hidden units, for images of 28 x 28 pixels."""
    import tfvamp

    model = tfvamp.models.VAE(
        event_shape=(28, 28, 1), latent_dims=SIZES["D"], hidden_units=SIZES["H"], components=SIZES["K"]
    )
    tfvamp.export.export(model, folder)


def direct(folder: pathlib.Path, repeat: int) -> float:
    """The seconds of one call of the signature itself, in this process."""
    import tensorflow as tf

    sample = tf.saved_model.load(str(folder)).signatures["sample"]
    times = []
    for number in range(repeat + 10):
        start = time.perf_counter()
        sample(n=tf.constant(1), seed=tf.constant([number, 0]))
        times.append(time.perf_counter() - start)
    return statistics.median(times[10:])


class Client:
    """One client with a connection that is kept."""

    def __init__(self, port: int):
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, float]:
        """The status of an answer, and its seconds."""
        start = time.perf_counter()
        self._connection.request(method, path, body)
        answer = self._connection.getresponse()
        answer.read()
        return answer.status, time.perf_counter() - start


def load(port: int, clients: int, requests: int) -> tuple[float, list[float]]:
    """Seconds per request of all clients together, and each request's own seconds."""

    def ask(number: int) -> list[float]:
        client, times = Client(port), []
        for i in range(requests // clients):
            body = json.dumps({"inputs": {"n": 1, "seed": [number, i]}}).encode()
            status, seconds = client.ask("POST", PREDICT, body)
            assert status == 200, status
            times.append(seconds)
        return times

    start = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        times = [seconds for one in pool.map(ask, range(clients)) for seconds in one]
    return (time.perf_counter() - start) / len(times), times


def look_at_status(port: int) -> list[float]:
    """The seconds of some looks at the status page, each on a connection of its own."""
    times = []
    for _ in range(LOOKS):
        status, seconds = Client(port).ask("GET", STATUS)
        assert status == 200
        times.append(seconds)
        time.sleep(0.1)
    return times


def dear_storm(port: int) -> tuple[list[float], dict[int, int]]:
    """The status page while dear requests are computed, wait and are refused; how many got which status."""
    images = [[[[0.5]] * 28] * 28] * 40
    inputs = {"images": images, "num_samples": SIZES["S"], "seed": [0, 0]}
    body = json.dumps({"signature_name": "log_likelihood", "inputs": inputs}).encode()
    with concurrent.futures.ThreadPoolExecutor(DEAR) as pool:
        asked = [pool.submit(Client(port).ask, "POST", PREDICT, body) for _ in range(DEAR)]
        time.sleep(0.5)
        times = look_at_status(port)
        seen = [one.result()[0] for one in asked]
    return times, {status: seen.count(status) for status in sorted(set(seen))}


def slow_storm(port: int) -> list[float]:
    """The status page beside clients that send a letter now and then, or take no answer."""
    over = threading.Event()

    def dawdle(number: int) -> None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
                if number % 2:
                    body = json.dumps({"inputs": {"n": 1000, "seed": [number, 0]}}).encode()
                    head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
                    client.sendall(head.encode() + body)
                while not over.wait(1.0):
                    if number % 2 == 0:
                        client.sendall(b"G")
        except OSError:  # dropped
            pass

    threads = [threading.Thread(target=dawdle, args=(number,)) for number in range(SLOW)]
    for thread in threads:
        thread.start()
    times = look_at_status(port)
    over.set()
    for thread in threads:
        thread.join()
    return times


@click.command()
@click.option("--quick", is_flag=True, help="Fewer requests, for a look; keeps nothing.")
def main(quick):
    """Prints times and ratios to the bare call, and keeps them in docs/performance.*."""
    requests = 256 if quick else 2048
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name) / "1"
        export_of_the_papers_size(folder)
        medians = {"the signature, called directly": direct(folder, requests)}
        command = [sys.executable, "-u", "-m", "tfvamp_cli.main", "serve", name, "--port", "0", "--waiting"]
        # Port 0: one that is free. 62 may wait and 2 are computed, so that none of 64 clients is refused.
        server = subprocess.Popen(
            [*command, "62"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        try:
            assert server.stdout is not None
            found = re.search(r"http://127.0.0.1:(\d+)/", server.stdout.readline())
            assert found is not None
            port = int(found.group(1))
            load(port, 4, 64)
            for clients in CLIENTS:
                each, times = load(port, clients, requests)
                medians[f"{clients} client{'s' * (clients > 1)}: of all together"] = each
                medians[f"{clients} client{'s' * (clients > 1)}: latency, median"] = statistics.median(times)
                medians[f"{clients} client{'s' * (clients > 1)}: latency, 95 %"] = statistics.quantiles(
                    times, n=20
                )[-1]
                print(f"{clients} clients: {1 / each:.0f} requests a second", flush=True)
            medians["status page, idle, slowest"] = max(look_at_status(port))
            times, seen = dear_storm(port)
            medians[f"status page, {DEAR} dear requests, slowest"] = max(times)
            print(f"dear requests by status: {seen}", flush=True)
            medians[f"status page, {SLOW} slow clients, slowest"] = max(slow_storm(port))
        finally:
            server.terminate()
            server.wait(30)
    report(
        "Serving",
        medians,
        "the signature, called directly",
        1,
        f"a request for one image (K = 500, {requests} requests); the status page: slowest of {LOOKS} looks",
        keep=not quick,
    )


if __name__ == "__main__":
    main()
