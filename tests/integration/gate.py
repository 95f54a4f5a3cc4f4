"""A TCP relay in front of a server that holds its answers back, and counts what has come meanwhile."""
import socket
import struct
import threading
import time

from harness import wait_until

MARK = b"/* gated */"
ASKS_FOR_ENCRYPTION = (struct.pack("!I", 80877103), struct.pack("!I", 80877104))
CANCEL = struct.pack("!I", 80877102)


class Link:
    """One connection through the gate."""

    def __init__(self, gate, near, far):
        self.gate, self.near, self.far = gate, near, far
        self.seen = b""  # the messages that came for the server since one had the mark first
        self.part = b""  # one that has not come as a whole
        self.named = False  # past its startup packet, messages have a type
        for source, target, answers in ((near, far, False), (far, near, True)):
            threading.Thread(target=self.pump, args=(source, target, answers), daemon=True).start()

    def pump(self, source, target, answers):
        try:
            while data := source.recv(65536):
                if answers:
                    with self.gate.moved:
                        self.gate.moved.wait_for(lambda: self.gate.open or not self.seen)
                    if self.gate.first:
                        target.sendall(data[:self.gate.first])
                        time.sleep(0.05)
                        data = data[self.gate.first:]
                else:
                    with self.gate.moved:
                        self.look(data)
                target.sendall(data)
        except OSError:
            pass
        self.end()

    def look(self, data):
        """What comes need not end where a message does."""
        self.part += data
        while len(self.part) >= 5:
            size = struct.unpack("!I", self.part[1:5] if self.named else self.part[:4])[0] + self.named
            if len(self.part) < size:
                break
            whole, self.part = self.part[:size], self.part[size:]
            self.gate.cancels += not self.named and whole[4:8] == CANCEL
            if self.seen or MARK in whole:
                self.seen += whole
            self.named = self.named or whole[4:] not in ASKS_FOR_ENCRYPTION

    def end(self):
        for side in (self.near, self.far):
            try:
                side.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def messages(self, kind):
        """How many messages of a type have come; the mark is in the first write's first message."""
        count, at = 0, 0
        while at + 5 <= len(self.seen):
            count += self.seen[at:at + 1] == kind
            at += 1 + struct.unpack("!I", self.seen[at + 1:at + 5])[0]
        return count


class Gate:
    """While closed, the answers to connections that have sent a marked text wait here. `first`: so many bytes of what the
    server sends at once arrive before the rest."""

    def __init__(self, node, first=0):
        self.node, self.open, self.links, self.first = node, True, [], first
        self.cancels = 0  # requests that came
        self.moved = threading.Condition()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def config(self):
        return {"host": "127.0.0.1", "port": self.port}

    def accept(self):
        try:
            while True:
                near, _ = self.listener.accept()
                far = socket.create_connection((self.node.host, self.node.port))
                self.links.append(Link(self, near, far))
        except OSError:
            pass

    def shut(self):
        """From here on; what was marked before does not count."""
        with self.moved:
            self.open = False
            for link in self.links:
                link.seen = b""

    def let_through(self):
        with self.moved:
            self.open = True
            self.moved.notify_all()

    def marked(self):
        return [link for link in self.links if link.seen]

    def syncs(self):
        return sum(link.messages(b"S") for link in self.marked())

    def wait_syncs(self, count):
        wait_until(lambda: self.syncs() >= count, 20, f"{count} Syncs at the gate")
        assert self.syncs() == count

    def cut(self):
        """The server's end for those that are marked."""
        for link in self.marked():
            link.end()
        self.let_through()

    def end(self):
        """The same for all."""
        for link in list(self.links):
            link.end()
        self.let_through()

    def close(self):
        self.let_through()
        self.listener.close()
        for link in self.links:
            link.end()
