"""Real Postgres clusters and a real pgshunt for tests, demo and benchmarks."""
from .cluster import Cluster, Node, free_port, pg_binary, run_psql
from .door import Door
from .process import wait_until
from .proxy import Load, Proxy, ProxyFailed, REPO, to_libconfig

__all__ = ["Cluster", "Door", "Load", "Node", "Proxy", "ProxyFailed", "REPO", "free_port", "pg_binary", "run_psql",
           "to_libconfig", "wait_until"]
