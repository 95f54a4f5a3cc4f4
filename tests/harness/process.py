"""Processes started by the harness: each is known by its pid and ended with the harness, whatever happens."""
import atexit
import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

_live = {}  # pid -> (Popen, signal that ends it at once)
_folders = set()
_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


def start(argv, end_signal, user=None, **popen_options):
    """Starts a process that dies with this one (by `end_signal`), and returns its Popen."""
    if user is not None:
        popen_options.update(user=user, group=user, extra_groups=[])
    # The kernel sends the signal when the *thread* that forked ends, so only the main thread asks for it.
    if threading.current_thread() is threading.main_thread():
        parent = os.getpid()

        def follow_parent():
            _libc.prctl(_PR_SET_PDEATHSIG, int(end_signal))
            if os.getppid() != parent:
                os._exit(1)

        popen_options["preexec_fn"] = follow_parent
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True, **popen_options)
    _live[process.pid] = (process, end_signal)
    return process


def forget(process):
    """To be called when the process has ended and was waited for."""
    _live.pop(process.pid, None)


def children(pid):
    """Pids of the direct children of `pid`."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as stat:
                fields = stat.read().rsplit(b")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(name))
    return found


def alive(pid):
    """Whether `pid` runs (a zombie does not)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rsplit(b")", 1)[1].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


PATIENCE = 3  # time limits are those of an idle machine; one that runs other tests besides takes longer


def wait_until(condition, timeout=10.0, what="condition", interval=0.02):
    """Waits until condition() is true and returns its value; TimeoutError names `what`."""
    deadline = time.monotonic() + timeout * PATIENCE
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout * PATIENCE:g} s")
        time.sleep(interval)


def end(process, first_signal, timeout=10.0):
    """Ends a process and its children: first_signal, then SIGKILL. Returns the exit code."""
    offspring = children(process.pid)
    if process.poll() is None:
        process.send_signal(first_signal)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for pid in offspring:
        try:
            wait_until(lambda: not alive(pid), 3.0)
        except TimeoutError:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
    forget(process)
    return process.returncode


def own_folder(path):
    """Registers a folder to be removed at the end of this process."""
    _folders.add(path)


def remove_folder(path):
    shutil.rmtree(path, ignore_errors=True)
    _folders.discard(path)


_ports_given = set()


def free_port():
    """A TCP port of 127.0.0.1 that is free, and that no outgoing connection is given by the kernel."""
    low, high = 10000, 32000
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range") as ports:
            high = min(high, int(ports.read().split()[0]) - 1)
    except OSError:
        pass
    for _ in range(2000):
        port = random.randint(low, max(high, low + 1000))
        if port in _ports_given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _ports_given.add(port)
        return port
    raise RuntimeError("no free TCP port found")


def port_is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _end_everything():
    for process, end_signal in list(_live.values()):
        if process.poll() is None:
            try:
                process.send_signal(end_signal)
            except ProcessLookupError:
                pass
    for process, end_signal in list(_live.values()):
        end(process, end_signal, 5.0)
    for folder in list(_folders):
        remove_folder(folder)


def _on_signal(number, _frame):
    sys.exit(128 + number)


def install_signal_handlers():
    """SIGTERM and SIGHUP end the program in order, so that atexit cleans up (SIGINT does already)."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) == signal.SIG_DFL:
                signal.signal(number, _on_signal)


atexit.register(_end_everything)
