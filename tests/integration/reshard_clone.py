"""A new shard that is a physical replica of s0, which keeps the catalog, too: to be promoted by `create --clone`."""
from ctl_support import primary_of
from harness import Cluster, wait_until
from harness.cluster import Node, Shard
from reshard_kills import Scene
from reshard_ledger import KEYSPACE

MOVES = "0-4095:s2"
STEPS = ["run_begun", "run_ghosts", "run_clone_slot", "run_clone_ready", "run_clone_promoted", "run_clone_unmarked",
         "run_clone_marked", "run_clone_reset", "run_clone_clearing", "run_clone_cleared", "run_copied", "run_reverse"]


def make_replica(cluster, source=0):
    """A replica of that shard's primary, as a shard of its own, behind the others."""
    node = Node(cluster, len(cluster.shards), 0)
    primary = cluster.shards[source].primary
    node.make_replica(primary)
    node.start()
    cluster.shards.append(Shard(cluster, node.shard, [node]))
    wait_until(lambda: node.value("SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'"), 30, "the replica to stream")
    return node


def make_cluster(**settings):
    return Cluster(shards=2, replicas=0, settings=settings)


# Its rows are not found by their sharding key, neither by an index nor in the stream.
NOTES = ("CREATE TABLE notes (id bigint, at date, user_id bigint NOT NULL, body text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);"
         "CREATE TABLE notes_old PARTITION OF notes FOR VALUES FROM (MINVALUE) TO ('2026-01-01');"
         "CREATE TABLE notes_new PARTITION OF notes FOR VALUES FROM ('2026-01-01') TO (MAXVALUE)")


class CloneScene(Scene):
    """Buckets of s0 go to s2, its clone. The proxies know s2 from their start; unsharded and reference tables are on s0, too."""

    keyspace = {**KEYSPACE, "tables": [*KEYSPACE["tables"], {"name": "notes", "key": "user_id"}]}

    weights = (1, 1, 0)
    shard_of = {"catalog": 0, "source": 0, "target": 2}
    givers = {"switch": (0,), "rollback": (2,)}
    reference = ["countries"]

    def make_tables(self):
        super().make_tables()
        for node in self.cluster.primaries:
            node.sql(NOTES)
            node.sql("CREATE TABLE countries (code text PRIMARY KEY, name text)")
        self.cluster.primaries[0].sql("CREATE TABLE settings (name text PRIMARY KEY, value text)")
        self.cluster.primaries[0].sql("INSERT INTO settings VALUES ('a', '1')")
        if len(self.cluster.shards) == 2:
            make_replica(self.cluster)

    def wait_nodes(self, proxy):
        """A replica without a primary of its shard has no lag that could be known."""
        wait_until(lambda: all(primary_of(proxy, shard) for shard in ("s0", "s1")), 30, "primaries known")

    def create(self, moves=MOVES):
        self.must("create", "job", "--clone", "--move", moves)

    def new_replica(self):
        """The server of s2 is thrown away, and a new one is made."""
        node = self.cluster.shards[2].primary
        self.cluster.shards[2].primary = self.cluster.shards[0].primary
        try:
            self.cluster.shards[2].follow(node)
        finally:
            self.cluster.shards[2].primary = node
        wait_until(node.in_recovery, 30, "a replica")
