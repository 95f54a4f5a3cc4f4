"""What connections cost a proxy: memory of those that sit idle, and latency beside 10,000 of them."""
import re
import resource
import socket
import struct
import time

IDLE_CLIENTS = 10000
ACTIVE_CLIENTS = 200
WARM_UP = 100  # connections before memory is looked at: caches and pools are filled then
PROTOCOL_3_0 = 196608


class IdleClients:
    """Sessions that log in (trust) and then ask nothing; like a driver's pool at night."""

    def __init__(self, port, user, database, count):
        self.sockets = []
        packet = b"".join(word.encode() + b"\0" for word in
                          ("user", user, "database", database, "client_encoding", "UTF8",
                           "application_name", "idle")) + b"\0"
        try:
            for _ in range(count):
                self.sockets.append(log_in(port, packet))
        except BaseException:
            self.close()
            raise

    def close(self):
        for each in self.sockets:
            each.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def log_in(port, packet):
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    connection.sendall(struct.pack("!II", len(packet) + 8, PROTOCOL_3_0) + packet)
    answer = b""
    while not answer.endswith(b"Z\0\0\0\5I"):
        more = connection.recv(8192)
        if not more:
            raise OSError(f"the proxy hung up at login: {answer[-200:]!r}")
        answer += more
    return connection


def allow_sockets():
    """Raises the limit on descriptors. False: not far enough."""
    wanted = IDLE_CLIENTS + 1000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
        except (ValueError, OSError):
            return False
    return True


def resident_kib(pid):
    with open(f"/proc/{pid}/status") as file:
        return int(re.search(r"VmRSS:\s+(\d+)", file.read()).group(1))


def measure(targets, runner, user, database, rounds, note):
    """For each proxy: KiB an idle client, p99 of 200 active clients without and beside the idle ones."""
    figures = []
    for target in targets:
        if target.process is None or target.name == "relay":  # each of its clients has a server
            continue
        mode = "extended"
        row = {"target": target.name, "alone_ms": [], "beside_ms": []}
        note(f"connections: {target.name}")
        with IdleClients(target.port, user, database, WARM_UP):
            before = resident_kib(target.process.pid)
            with IdleClients(target.port, user, database, IDLE_CLIENTS):
                time.sleep(0.5)
                row["kib_per_client"] = (resident_kib(target.process.pid) - before) / IDLE_CLIENTS
        for turn in range(rounds):
            note(f"connections: {target.name}, {ACTIVE_CLIENTS} active clients, round {turn + 1}")
            row["alone_ms"].append(p99(runner, target, mode))
            with IdleClients(target.port, user, database, IDLE_CLIENTS):
                row["beside_ms"].append(p99(runner, target, mode))
        figures.append(row)
    return figures


def p99(runner, target, mode):
    return runner.run(target, "select-only", mode, ACTIVE_CLIENTS).get("p99_ms")


def print_figures(figures, median):
    print(f"\n{IDLE_CLIENTS:,} idle clients, and {ACTIVE_CLIENTS} active ones beside them "
          "(select-only, extended protocol)")
    header = f"{'target':<12}{'KiB/idle client':>16}{'p99 alone ms':>14}{'p99 beside ms':>15}{'ratio':>8}"
    print(f"{header}\n{'-' * len(header)}")
    for row in figures:
        pairs = [(a, b) for a, b in zip(row["alone_ms"], row["beside_ms"]) if a and b]
        alone, beside = median(a for a, _ in pairs), median(b for _, b in pairs)
        ratio = median(b / a for a, b in pairs)
        print(f"{row['target']:<12}{row['kib_per_client']:>16.2f}"
              + "".join(f"{value:>{width}.2f}" if value is not None else f"{'-':>{width}}"
                        for value, width in ((alone, 14), (beside, 15), (ratio, 8))))
