"""Clients whose buckets move wait, all others go on; then they run on the new owner."""
import struct
import threading
import time
from contextlib import closing

import pytest

from catalog_support import ATTEMPT, catalog, epoch, job
from harness import Proxy, wait_until
from support import SYNC, Raw, bind, error_of, execute, fetch, one, parse, query, refused, rows

pytestmark = pytest.mark.core

KEYSPACES = [{"name": "users", "type": "bigint",
              "tables": [{"name": "users", "key": "id"}, {"name": "orders", "key": "user_id"}]}]
FIRST, LAST = 4096, 8191  # these move from s0 to s1
MASK = (1 << 64) - 1


def bucket(key):
    """XXH64 of the key as eight bytes; its first 14 bits."""
    p1, p2, p3, p4, p5 = (11400714785074694791, 14029467366897019727, 1609587929392839161, 9650029242287828579,
                          2870177450012600261)
    lane, = struct.unpack("<Q", struct.pack(">q", key))
    k = lane * p2 & MASK
    k = (k << 31 | k >> 33) & MASK
    h = (p5 + 8 & MASK) ^ (k * p1 & MASK)
    h = ((h << 27 | h >> 37) & MASK) * p1 + p4 & MASK
    h = (h ^ h >> 33) * p2 & MASK
    h = (h ^ h >> 29) * p3 & MASK
    return (h ^ h >> 32) >> 50


def keys_in(first, last, count=250):
    return [key for key in range(1, 5000) if first <= bucket(key) <= last][:count]


MOVING = keys_in(FIRST, LAST)
STAYING = keys_in(0, FIRST - 1)   # on the source
OTHERS = keys_in(LAST + 1, 16383)  # on the target


@pytest.fixture(scope="module")
def proxy(cluster):
    with Proxy(cluster, keyspaces=KEYSPACES) as proxy:
        proxy.wait_nodes()
        proxy.sql("CREATE TABLE users (id bigint PRIMARY KEY, n int DEFAULT 0, place text)")
        proxy.sql("CREATE TABLE orders (id bigint, user_id bigint, PRIMARY KEY (user_id, id))")
        yield proxy
        proxy.sql("DROP TABLE users")
        proxy.sql("DROP TABLE orders")


class Moving:
    """The map, as a resharding job changes it in the catalog."""

    def __init__(self, proxy, cluster):
        self.proxy, self.source, self.target = proxy, *cluster.primaries
        self.id = None
        job(self.source, "moving")

    def seen(self):
        """What the proxy says of itself: its epoch, hold, busy, held."""
        return self.source.sql("SELECT epoch, hold, busy, held FROM pgshunt.proxy WHERE database = 'app' AND pid = %s",
                               (self.proxy.pid,))[0]

    def wait_known(self):
        query = "SELECT count(*) FROM pgshunt.proxy WHERE database = 'app' AND pid = %s"
        wait_until(lambda: self.source.value(query, (self.proxy.pid,)), 15.0, "the proxy's row")

    def wait_seen(self, **wanted):
        def as_wanted():
            return {name: value for name, value in zip(("epoch", "hold", "busy", "held"), self.seen())
                    if name in wanted} == wanted
        wait_until(as_wanted, 15.0, f"a proxy with {wanted}")

    def hold(self, first=FIRST, last=LAST, lease=20000):
        self.id = int(catalog(self.source, "hold", "app", "moving", lease, f"users/{first}-{last}"))
        self.wait_seen(hold=self.id)

    def release(self):
        catalog(self.source, "release", self.id)
        self.wait_seen(hold=0)

    def flip(self):
        after = epoch(self.source) + 1
        catalog(self.source, "flip", "app", "moving", ATTEMPT, self.id, after, "switched",
                f"users/{FIRST}-{LAST}", "s0", "s1")
        self.wait_seen(epoch=after, hold=0)

    def back(self):
        """As at first."""
        self.source.sql("DELETE FROM pgshunt.hold")
        self.source.sql("DELETE FROM pgshunt.ghost")
        # As one transaction: a proxy that finds nothing recorded records the configuration's map.
        self.source.sql("DELETE FROM pgshunt.bucket;"
                        "INSERT INTO pgshunt.bucket VALUES ('app', 'users', 0, 8191, 's0'), ('app', 'users', 8192, 16383, 's1')")
        self.source.sql("UPDATE pgshunt.epoch SET epoch = epoch + 1")
        self.source.sql("NOTIFY pgshunt_map, 'app'")
        self.wait_seen(epoch=epoch(self.source), hold=0)


@pytest.fixture
def moving(proxy, cluster):
    """Every key's row is on its shard, and moving ones' are on the target, too; they say so."""
    for number, node in enumerate(cluster.primaries):
        node.sql("TRUNCATE users, orders")
        mine = MOVING + (STAYING if number == 0 else OTHERS)
        node.sql(f"INSERT INTO users SELECT unnest(%s::bigint[]), 0, 's{number}'", (mine,))
    moving = Moving(proxy, cluster)
    yield moving
    moving.proxy = proxy
    moving.back()


class Asking(threading.Thread):
    """Work on a connection of its own; `answer` is what came."""

    def __init__(self, proxy, work, connect=None):
        super().__init__(daemon=True)
        self.proxy, self.work, self.answer, self.took = proxy, work, None, None
        self.connection = (connect or proxy.connect)()
        self.start()

    def run(self):
        begun = time.monotonic()
        try:
            with closing(self.connection) as connection:
                self.answer = self.work(connection)
        except Exception as error:  # the test looks at it
            self.answer = error
        self.took = time.monotonic() - begun

    def end(self):
        self.join(20.0)
        assert not self.is_alive(), "still waiting"
        return self.answer


def held(proxy):
    return sum(row["state"] == "waiting" for row in proxy.show("CLIENTS"))


def at_work(proxy):
    return sum(row["state"] == "active" and row["database"] == "app" for row in proxy.show("CLIENTS"))


def wait_held(proxy, count=1):
    wait_until(lambda: held(proxy) == count, 10.0, f"{count} clients held")


def place_of(key):
    return f"SELECT place FROM users WHERE id = {key}"


def test_buckets():
    assert len(MOVING) == len(STAYING) == len(OTHERS) == 250
    assert bucket(42) == bucket(42) and {bucket(1), bucket(2)} != {bucket(1)}


def test_held_until_the_map_changes(proxy, moving):
    moving.hold()
    asking = Asking(proxy, lambda c: one(c, place_of(MOVING[0])))
    wait_held(proxy)
    moving.flip()
    assert asking.end() == "s1", "the new owner answers"


def test_held_until_the_hold_goes(proxy, moving):
    moving.hold()
    asking = Asking(proxy, lambda c: one(c, place_of(MOVING[0])))
    wait_held(proxy)
    moving.release()
    assert asking.end() == "s0"


def test_others_go_on(proxy, moving):
    moving.hold()
    asking = Asking(proxy, lambda c: fetch(c, "SELECT count(*) FROM users"))
    wait_held(proxy)
    with closing(proxy.connect()) as connection:
        for key in STAYING[:20] + OTHERS[:20]:
            connection.cursor().execute("UPDATE users SET n = n + 1 WHERE id = %s", (key,))
            assert one(connection, "SELECT n FROM users WHERE id = %s", (key,)) == 1
        assert one(connection, "SELECT 1") == 1
        assert one(connection, "SELECT count(*) FROM users WHERE id IN (%s, %s)" % (STAYING[0], OTHERS[0])) == 2
    with proxy.connect3() as connection:
        for key in STAYING[:20] + OTHERS[:20]:
            assert connection.execute("SELECT n FROM users WHERE id = %s", (key,), prepare=True).fetchone() == (1,)
        with connection.pipeline():
            found = [connection.execute("SELECT n FROM users WHERE id = %s", (key,)) for key in STAYING[:20] + OTHERS[:20]]
        assert [cursor.fetchone() for cursor in found] == [(1,)] * 40
    moving.release()
    assert asking.end()


# Each gives the place of a moving row.
WAYS = {
    "simple": lambda c, key: one(c, place_of(key)),
    "write": lambda c, key: one(c, f"UPDATE users SET n = n + 1 WHERE id = {key} RETURNING place"),
    "insert": lambda c, key: one(c, f"INSERT INTO users VALUES ({key}) ON CONFLICT (id) DO UPDATE SET n = 5 RETURNING users.place"),
    "cte": lambda c, key: one(c, f"WITH u AS ({place_of(key)}) SELECT * FROM u"),
    "series": lambda c, key: one(c, f"SELECT 1; SELECT n FROM users WHERE id = {OTHERS[0]}; {place_of(key)}"),
    "list": lambda c, key: one(c, f"SELECT 1; {place_of(key)}"),
    "block": lambda c, key: one(c, f"BEGIN; SET LOCAL work_mem = '1MB'; {place_of(key)}"),
    "said": lambda c, key: one(c, f"/* pgshunt: key={key} */ SELECT place FROM users WHERE id + 0 = {key}"),
    "cursor": lambda c, key: one(c, f"BEGIN; DECLARE c CURSOR FOR {place_of(key)}; FETCH c"),
    "gather": lambda c, key: one(c, f"SELECT u.place FROM users u, users o WHERE u.id = {key} AND o.id = {OTHERS[0]} AND u.n = o.n"),
}


def copied(connection, key):
    with connection.cursor().copy(f"COPY (SELECT place FROM users WHERE id = {key}) TO STDOUT") as copy:
        return b"".join(copy).decode().strip()


WAYS3 = {
    "extended": lambda c, key: c.execute("SELECT place FROM users WHERE id = %s", (key,)).fetchone()[0],
    "binary": lambda c, key: c.execute("SELECT place FROM users WHERE id = %b", (key,)).fetchone()[0],
    "named": lambda c, key: c.execute("SELECT place FROM users WHERE id = %s", (key,), prepare=True).fetchone()[0],
    "many": lambda c, key: c.execute("SELECT min(place) FROM users WHERE id = ANY(%s)", ([key],)).fetchone()[0],
    "copy": copied,
}


@pytest.mark.parametrize("way", WAYS)
def test_each_way_waits(proxy, moving, way):
    moving.hold()
    asking = Asking(proxy, lambda c: WAYS[way](c, MOVING[1]))
    wait_held(proxy)
    moving.flip()
    assert asking.end() == "s1"


@pytest.mark.parametrize("way", WAYS3)
def test_each_way_waits_extended(proxy, moving, way):
    def work(connection):
        assert WAYS3[way](connection, MOVING[2]) == "s0"
        ready.set()
        go.wait(10.0)
        return WAYS3[way](connection, MOVING[1])

    ready, go = threading.Event(), threading.Event()
    asking = Asking(proxy, work, proxy.connect3)
    assert ready.wait(10.0)
    moving.hold()
    go.set()
    wait_held(proxy)
    moving.flip()
    assert asking.end() == "s1"


def test_explain_waits(proxy, moving):
    moving.hold()
    asking = Asking(proxy, lambda c: str(fetch(c, "EXPLAIN " + place_of(MOVING[0]))))
    wait_held(proxy)
    moving.flip()
    assert "s1" in asking.end()


def test_sql_execute_waits(proxy, moving):
    def work(connection):
        cursor = connection.cursor()
        cursor.execute("PREPARE p AS SELECT place FROM users WHERE id = $1")  # not run: it does not wait
        ready.set()
        return one(connection, f"EXECUTE p ({MOVING[3]})")

    ready = threading.Event()
    moving.hold()
    asking = Asking(proxy, work)
    assert ready.wait(10.0)
    wait_held(proxy)
    moving.flip()
    assert asking.end() == "s1"


def test_copy_in_waits(proxy, moving):
    def work(connection):
        with connection.cursor().copy("COPY orders FROM STDIN") as copy:
            for key in MOVING[:5] + OTHERS[:5]:
                copy.write_row((1, key))

    moving.hold()
    asking = Asking(proxy, work, proxy.connect3)
    wait_held(proxy)
    moving.flip()
    assert asking.end() is None
    found = [node.value("SELECT count(*) FROM orders") for node in (moving.source, moving.target)]
    assert found == [0, 10], "all rows are on the new owner"


def test_settings_come_along(proxy, moving):
    def work(connection):
        connection.cursor().execute("SET work_mem = '7MB'")
        return one(connection, f"SELECT place || current_setting('work_mem') FROM users WHERE id = {MOVING[0]}")

    moving.hold()
    asking = Asking(proxy, work)
    wait_held(proxy)
    moving.flip()
    assert asking.end() == "s17MB"


def test_pipeline_in_order(proxy, moving):
    """What is behind a held statement comes behind it, and what is before is answered before."""
    moving.hold()
    with Raw(proxy) as raw:
        ask = [parse("", "SELECT place FROM users WHERE id = $1", (20,))]
        for key in (STAYING[0], MOVING[0], OTHERS[0]):
            raw.send(*ask, bind("", "", (str(key).encode(),)), execute(), SYNC)
        first = raw.until_ready()
        assert rows(first) == [[b"s0"]]
        wait_held(proxy)
        moving.flip()
        assert rows(raw.until_ready()) == [[b"s1"]] and rows(raw.until_ready()) == [[b"s1"]]


def test_batch_of_several(proxy, moving):
    """One Sync for all: a transaction that has begun after the hold on another shard waits, and goes on on two."""
    moving.hold()
    with Raw(proxy) as raw:
        update = "UPDATE users SET n = n + 1 WHERE id = $1 RETURNING place"
        parts = [parse("u", update, (20,))]
        for key in (STAYING[0], MOVING[0]):
            parts += [bind("", "u", (str(key).encode(),)), execute()]
        raw.send(*parts, SYNC)
        wait_held(proxy)
        moving.flip()
        found = raw.until_ready()
        assert rows(found) == [[b"s0"], [b"s1"]], found


def test_transaction_from_before_goes_on(proxy, moving):
    with closing(proxy.connect(autocommit=False)) as connection:
        assert one(connection, place_of(STAYING[0])) == "s0"
        moving.hold()
        connection.cursor().execute("UPDATE users SET n = 9 WHERE id = %s", (MOVING[0],))
        assert one(connection, place_of(MOVING[0])) == "s0"
        connection.commit()
        asking = Asking(proxy, lambda c: one(c, place_of(MOVING[0])))
        wait_held(proxy)
        moving.flip()
        assert asking.end() == "s1"


def test_busy_until_it_ends(proxy, moving):
    """What has begun before the hold is counted until it is over; what begins after it, or is held, is not."""
    with closing(proxy.connect(autocommit=False)) as before, closing(proxy.connect()) as after:
        one(before, place_of(STAYING[0]))
        sleeping = Asking(proxy, lambda c: one(c, f"SELECT n FROM users, pg_sleep(3) WHERE id = {OTHERS[0]}"))
        wait_until(lambda: at_work(proxy) >= 2, 10.0, "it at work")
        moving.hold()
        after.cursor().execute("BEGIN")
        one(after, place_of(STAYING[1]))
        asking = Asking(proxy, lambda c: one(c, place_of(MOVING[0])))
        moving.wait_seen(busy=2, held=1)
        assert sleeping.end() == 0
        moving.wait_seen(busy=1, held=1)
        assert one(before, place_of(MOVING[0])) == "s0", "and may go on"
        before.commit()
        moving.wait_seen(busy=0, held=1)
        moving.release()
        assert asking.end() == "s0"
        moving.wait_seen(busy=0, held=0)


def test_force(proxy, moving):
    """What does not end is ended: told so as something to be run again."""
    with closing(proxy.connect(autocommit=False)) as idle, closing(proxy.connect(autocommit=False)) as writing:
        one(idle, place_of(STAYING[0]))
        writing.cursor().execute(f"UPDATE users SET n = 77 WHERE id = {STAYING[1]}")
        sleeping = Asking(proxy, lambda c: one(c, f"SELECT n FROM users, pg_sleep(30) WHERE id = {OTHERS[0]}"))
        locked = Asking(proxy, lambda c: c.cursor().execute(f"UPDATE users SET n = 5 WHERE id = {STAYING[1]}"))
        wait_until(lambda: at_work(proxy) >= 4, 10.0, "all at work")
        moving.hold()
        moving.wait_seen(busy=4)
        catalog(moving.source, "extend", moving.id, 20000, 1)
        moving.wait_seen(busy=0)
        assert sleeping.end().pgcode == "40001"
        answer = locked.end()  # it may have got its lock
        assert answer is None or answer.pgcode == "40001"
        for connection in (idle, writing):
            with refused("40001", "moving to another shard"):
                one(connection, place_of(STAYING[0]))
            connection.rollback()
            assert one(connection, place_of(STAYING[0])) == "s0"
            connection.commit()
        assert moving.source.value(f"SELECT n FROM users WHERE id = {STAYING[1]}") in (0, 5)
        moving.release()


def test_force_in_batches(proxy, moving):
    with Raw(proxy) as raw:
        raw.ask(query("BEGIN"))
        raw.ask(parse("u", "SELECT place FROM users WHERE id = $1", (20,)),
                bind("", "u", (str(STAYING[0]).encode(),)), execute(), SYNC)
        moving.hold()
        catalog(moving.source, "extend", moving.id, 20000, 1)
        moving.wait_seen(busy=0)
        found = raw.ask(bind("", "u", (str(STAYING[0]).encode(),)), execute(), SYNC)
        assert error_of(found)["C"] == "40001", found
        assert raw.ask(query("ROLLBACK"))[-1] == ("Z", b"I")
        assert rows(raw.ask(bind("", "u", (str(STAYING[0]).encode(),)), execute(), SYNC)) == [[b"s0"]]


def test_lease_ends(proxy, moving):
    """Nobody waits for a job that has died."""
    moving.hold(lease=2500)
    assert proxy.value(f"UPDATE users SET n = 3 WHERE id = {MOVING[0]} RETURNING place") == "s0"
    assert one_of(proxy, OTHERS[0]) == "s1"


def one_of(proxy, key):
    return proxy.value(place_of(key))


def test_session_mode(cluster, moving):
    """A client that keeps its servers waits between transactions, too."""
    with Proxy(cluster, keyspaces=KEYSPACES, options={"pool": {"mode": "session"}}) as keeping:
        keeping.wait_nodes()
        moving.proxy = keeping
        moving.wait_known()
        with closing(keeping.connect()) as connection:
            assert one(connection, place_of(STAYING[0])) == "s0"
            moving.hold()
            moving.wait_seen(busy=0)
            assert one(connection, place_of(STAYING[1])) == "s0"
            asking = Asking(keeping, lambda c: one(connection, place_of(MOVING[0])))
            wait_held(keeping)
            moving.flip()
            assert asking.end() == "s1"


def test_begin_alone_is_no_transaction_from_before(proxy, moving):
    def work(connection):
        cursor = connection.cursor()
        cursor.execute("BEGIN")
        ready.set()
        go.wait(10.0)
        found = one(connection, place_of(MOVING[0]))
        cursor.execute("COMMIT")
        return found

    ready, go = threading.Event(), threading.Event()
    asking = Asking(proxy, work)
    assert ready.wait(10.0)
    moving.hold()
    go.set()
    wait_held(proxy)
    moving.flip()
    assert asking.end() == "s1"


def test_transaction_from_after(proxy, moving):
    """It has begun on another shard's row, waits for the moving one, and is one transaction over both then."""
    moving.hold()
    ready = threading.Event()

    def work(connection):
        cursor = connection.cursor()
        cursor.execute("BEGIN")
        cursor.execute("UPDATE users SET n = 1 WHERE id = %s", (STAYING[0],))
        ready.set()
        found = one(connection, f"UPDATE users SET n = 1 WHERE id = {MOVING[0]} RETURNING place")
        cursor.execute("COMMIT")
        return found

    asking = Asking(proxy, work)
    assert ready.wait(10.0)
    wait_held(proxy)
    moving.flip()
    assert asking.end() == "s1"
    source, target = (moving.source, moving.target)
    assert source.value(f"SELECT n FROM users WHERE id = {STAYING[0]}") == 1
    assert target.value(f"SELECT n FROM users WHERE id = {MOVING[0]}") == 1


def test_cancel_while_held(proxy, moving):
    moving.hold()
    with closing(proxy.connect()) as connection:
        asking = Asking(proxy, lambda c: one(connection, place_of(MOVING[0])))
        wait_held(proxy)
        connection.cancel()
        assert asking.end().pgcode == "57014"
        assert one(connection, place_of(STAYING[0])) == "s0"


def test_death_while_held(proxy, moving):
    moving.hold()
    raw = Raw(proxy)
    raw.send(query(place_of(MOVING[0])))
    wait_held(proxy)
    raw.close()
    wait_held(proxy, 0)
    moving.flip()
    assert proxy.value(place_of(MOVING[0])) == "s1"


def test_pinned_client(proxy, moving):
    """Between transactions it does not stand in the way; then it runs where its pin lets it."""
    with closing(proxy.connect()) as connection:
        connection.cursor().execute("CREATE TEMP TABLE t (x int)")  # on s0
        moving.hold()
        assert one(connection, place_of(STAYING[0])) == "s0"
        asking = Asking(proxy, lambda c: one(connection, place_of(MOVING[0])))
        wait_held(proxy)
        moving.flip()
        assert asking.end() == "s1"
        assert one(connection, "SELECT count(*) FROM t") == 0


def test_many_clients(proxy, moving):
    """All of them wait, none fails, and all are answered."""
    moving.hold()
    asking = [Asking(proxy, lambda c, key=key: one(c, f"UPDATE users SET n = n + 1 WHERE id = {key} RETURNING place"))
              for key in MOVING[:200]]
    wait_held(proxy, 200)
    moving.flip()
    assert {one.end() for one in asking} == {"s1"}
    source, target = (moving.source, moving.target)
    assert source.value("SELECT sum(n) FROM users") == 0 and target.value("SELECT sum(n) FROM users") == 200


def test_queued_clients_are_held(proxy, moving, cluster):
    """Who waits for a server when the hold comes has not begun: it waits for the hold, too."""
    with Proxy(cluster, keyspaces=KEYSPACES, options={"pool": {"size": 1}, "workers": 1}) as small:
        small.wait_nodes()
        moving.proxy = small
        with closing(small.connect(autocommit=False)) as busy:
            one(busy, place_of(STAYING[0]))
            asking = Asking(small, lambda c: one(c, f"UPDATE users SET n = 1 WHERE id = {MOVING[0]} RETURNING place"))
            wait_held(small)
            moving.hold()
            busy.commit()
            assert one(busy, place_of(STAYING[0])) == "s0"
            busy.commit()
            assert held(small) == 1
            moving.flip()
            assert asking.end() == "s1"
