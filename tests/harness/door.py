"""A door in front of a server: passes connections on, or shuts out all but the monitor's."""
import socket
import struct
import threading

from .process import free_port

SSL_REQUEST = 80877103


class Door:
    """Listens on an address of its own and passes on to `node`. While `shut`, connections that are not the monitor's
    are closed after their first packet, as a broken network or server would; those open stay."""

    def __init__(self, node, host="127.0.0.1", port=None):
        self.node = node
        self.host = host
        self.port = port or free_port()
        self.shut = False
        self.refused = 0
        self._ended = False
        self._sockets = set()
        self._lock = threading.Lock()
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((self.host, self.port))
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._keep(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _keep(self, one):
        with self._lock:
            self._sockets.add(one)
            if self._ended:
                one.close()

    def _forget(self, *some):
        with self._lock:
            self._sockets.difference_update(some)
        for one in some:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            one.close()

    def _serve(self, client):
        try:
            first = self._first_packet(client)
            if self.shut and b"pgshunt monitor" not in first:
                self.refused += 1
                self._forget(client)
                return
            server = socket.create_connection((self.node.host, self.node.port))
            self._keep(server)
            server.sendall(first)
        except (OSError, struct.error):
            self._forget(client)
            return
        threading.Thread(target=self._pass, args=(client, server), daemon=True).start()
        self._pass(server, client)

    @staticmethod
    def _first_packet(client):
        while True:
            length = client.recv(4, socket.MSG_WAITALL)
            rest = client.recv(struct.unpack("!I", length)[0] - 4, socket.MSG_WAITALL)
            if struct.unpack("!I", rest[:4])[0] != SSL_REQUEST:
                return length + rest
            client.sendall(b"N")

    def _pass(self, one, other):
        try:
            while data := one.recv(65536):
                other.sendall(data)
        except OSError:
            pass
        self._forget(one, other)

    def close(self):
        with self._lock:
            self._ended = True
            sockets = list(self._sockets)
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._forget(*sockets)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
