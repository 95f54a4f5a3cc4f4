"""Runs that have only so much time: new partitions first, and what is left is told and done by the next."""
from partition_support import cluster, names, partition, proxy

TABLES = ("held",)


def test_a_run_ends_when_its_time_is_up_and_the_next_goes_on(cluster, proxy):
    connection = proxy.connect()
    connection.autocommit = True
    connection.cursor().execute("CREATE TABLE held (user_id bigint NOT NULL, at timestamptz NOT NULL)")
    connection.close()
    partition(proxy, "create", "held", "--by", "at", "--every", "1month", "--keep", "2months", "--on-expiry", "drop", "--now", "2026-01-10")
    before = [names(node, "held") for node in cluster.primaries]
    # No time at all: nothing is begun, and it is said.
    ran = partition(proxy, "maintain", "held", "--now", "2026-04-10", "--timeout", "1ms", code=1)
    assert "the time of the run is up" in ran.out and "the next run goes on with" in ran.out
    assert [names(node, "held") for node in cluster.primaries] == before
    # Two that have expired wait for a reader. What is new is there by then, or it is said that it is not.
    reader = cluster.primaries[0].connect(dbname="app")
    reader.cursor().execute("BEGIN; SELECT count(*) FROM held")
    ran = partition(proxy, "maintain", "held", "--now", "2026-05-10", "--tries", "1000", "--timeout", "6s", code=None)
    assert ran.code in (1, 4)
    assert "cannot finish to detach held_p20260101: the time of the run is up" in ran.out or "are still to be made" in ran.out \
        or "tables want for new partitions" in ran.out or "not come to" in ran.out
    if names(cluster.primaries[0], "held")[-1] == "held_p20260901":
        assert "1 partitions that have expired are still there" in ran.out
    reader.close()
    partition(proxy, "maintain", "held", "--now", "2026-05-10", "--timeout", "10min")
    for node in cluster.primaries:
        assert names(node, "held") == [f"held_p2026{month:02}01" for month in range(3, 10)]
    assert "--timeout takes a time like 30min" in partition(proxy, "maintain", "--timeout", "soon", code=2).err
    partition(proxy, "drop-policy", "held")
