"""Guards and epochs, as a reshard job leaves them: what its engine makes on a source, and a newer map of nothing but a number."""
import os
import re
import threading
from contextlib import contextmanager

from catalog_support import epoch
from harness import wait_until
from harness.proxy import REPO

KEYSPACES = [{"name": "users", "type": "bigint", "tables": [{"name": "users", "key": "id"}]}]
CARRIED = "SELECT coalesce(current_setting('pgshunt.epoch', true), '') FROM users WHERE id = 3"
WRITTEN = "UPDATE users SET n = n + 1 WHERE id = 3 RETURNING current_setting('pgshunt.epoch', true)"


def guard_function():
    """As the resharding engine makes it."""
    with open(os.path.join(REPO, "include/pgshunt/guard.h")) as header:
        text = header.read().replace("\\\n", "")
    words = dict(re.findall(r'#define (GUARD_SQLSTATE|GUARD_MESSAGE) "(.*)"', text))
    function = re.search(r"#define GUARD_FUNCTION(.*)", text).group(1)
    for name, value in words.items():
        function = function.replace(name, f'"{value}"')
    return "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', function)).replace("\\n", "\n")


def guard(node, number):
    node.sql("SET lock_timeout = '10s'; DROP TRIGGER IF EXISTS pgshunt_guard_1 ON users")
    node.sql("CREATE TRIGGER pgshunt_guard_1 BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON users "
             f"FOR EACH STATEMENT EXECUTE FUNCTION pgshunt.guard('{number}')")


def raise_epoch(cluster):
    """A new map, with all buckets where they were."""
    node = cluster.primaries[0]
    node.sql("UPDATE pgshunt.epoch SET epoch = epoch + 1")
    node.sql("NOTIFY pgshunt_map, 'app'")
    return epoch(node)


def wait_carried(proxy, number, sql=CARRIED):
    wait_until(lambda: proxy.value(sql) == str(number), 10.0, f"epoch {number}")


@contextmanager
def guarded(proxy, cluster, node):
    """Writes there are refused until the proxy has a newer map, which comes when a client waits for it. Gives its number, and counts
    who waited. Whoever is not refused, or does not wait, is followed by the map all the same."""
    after = epoch(cluster.primaries[0]) + 1
    over, waited = threading.Event(), []

    def follow():
        while not over.is_set():
            if any(row["state"] == "waiting" for row in proxy.show("CLIENTS")):
                waited.append(True)
                break
            over.wait(0.02)
        raise_epoch(cluster)

    guard(node, after)
    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield after, waited
    finally:
        over.set()
        thread.join()
        wait_carried(proxy, after)
