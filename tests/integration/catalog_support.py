"""Calls common/catalog on a server, as the resharding engine does."""
import os
import subprocess

from harness.proxy import binary


class Refused(Exception):
    pass


def catalog(node, *args, dbname=None):
    """Runs one function; what it prints. Refused: it failed, with SQLSTATE and message."""
    tool = os.path.join(os.path.dirname(binary()), "tests", "tools", "catalog")
    ran = subprocess.run([tool, "127.0.0.1", str(node.port), dbname or node.cluster.dbname, *map(str, args)],
                         capture_output=True, text=True, timeout=60)
    if ran.returncode:
        raise Refused(ran.stderr.strip())
    return ran.stdout.strip()


def epoch(node, database="app"):
    return node.value(f"SELECT epoch FROM pgshunt.epoch WHERE database = '{database}'")


def owners(node, keyspace="users", database="app"):
    return node.sql("SELECT first, last, shard FROM pgshunt.bucket WHERE database = %s AND keyspace = %s ORDER BY 1",
                    (database, keyspace))


def ghosts(node, database="app"):
    return node.sql("SELECT keyspace, shard, job FROM pgshunt.ghost WHERE database = %s ORDER BY 1, 2, 3", (database,))


ATTEMPT = "11111111-2222-3333-4444-555555555555"


def job(node, name, database="app", attempt=ATTEMPT, state="switching"):
    """A job's row, as it is while its switch is under way."""
    node.sql("INSERT INTO pgshunt.job (name, database, kind, state, options, attempt) VALUES (%s, %s, 'move', %s, '{}', %s) "
             "ON CONFLICT (name) DO UPDATE SET attempt = excluded.attempt, state = excluded.state",
             (name, database, state, attempt))


def move(node, name, ranges, target_epoch=None, database="app", lease=10000, state="switched"):
    """Moves buckets as a switch does: ranges are (range, source, target). Returns the epoch of the map after it."""
    job(node, name, database)
    hold = catalog(node, "hold", database, name, lease, *[one[0] for one in ranges])
    after = target_epoch or epoch(node, database) + 1
    catalog(node, "flip", database, name, ATTEMPT, hold, after, state, *[word for one in ranges for word in one])
    return after
