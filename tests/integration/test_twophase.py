"""Transactions over several shards are committed on all of them or on none: two-phase commit and its recovery."""
import os
import signal
import threading
import time
import urllib.request
from contextlib import closing

import psycopg2
import pytest

from harness import Cluster, Proxy, wait_until
from harness.proxy import binary
from support import SYNC, Raw, bind, execute, kinds, one, parse, query, refused

SHARDS = 3
ACCOUNTS = {"name": "bank", "type": "bigint", "tables": [{"name": "account", "key": "id"}]}
TOTAL = 100 * 30
OPTIONS = {"routing": {"recover_after": "300ms", "failover_wait": "10s"}}
# From the first step of a two-phase commit to the last.
STEPS = ["prepare_sent", "prepared_one", "prepared", "decision_sent", "decided", "finish_sent", "finished_one", "finished"]

with open(binary(), "rb") as program:
    HAS_FAILPOINTS = b"PGSHUNT_CRASH_AT" in program.read()
needs_failpoints = pytest.mark.skipif(not HAS_FAILPOINTS, reason="a release build has no failpoints")


@pytest.fixture(scope="module")
def bank():
    with Cluster(shards=SHARDS, replicas=0) as cluster:
        cluster.create_role("app")
        for node in cluster.primaries:
            node.sql("GRANT ALL ON SCHEMA public TO PUBLIC")
        yield cluster


def proxy_of(cluster, **more):
    return Proxy(cluster, keyspaces=[ACCOUNTS], options=more.pop("options", OPTIONS), **more)


@pytest.fixture(scope="module")
def proxy(bank):
    with proxy_of(bank) as proxy:
        proxy.wait_nodes()
        proxy.sql("CREATE TABLE account (id bigint PRIMARY KEY, balance bigint NOT NULL CHECK (balance >= 0), note text)")
        yield proxy


@pytest.fixture(autouse=True)
def accounts(proxy, bank):
    """Thirty accounts of 100 each; at the end nothing is prepared anywhere."""
    proxy.sql("TRUNCATE account")
    proxy.sql("INSERT INTO account (id, balance) VALUES " + ", ".join(f"({number}, 100)" for number in range(1, 31)))
    yield
    settle(bank)


def prepared(cluster):
    return [row[0] for node in cluster.primaries
            for row in node.sql("SELECT gid FROM pg_prepared_xacts")]


def settle(cluster):
    wait_until(lambda: not prepared(cluster), 20.0, "no prepared transaction left")


def money(cluster):
    return sum(int(node.value("SELECT coalesce(sum(balance), 0) FROM account")) for node in cluster.primaries)


def ids_by_shard(cluster):
    """An account of each shard."""
    return [node.value("SELECT min(id) FROM account") for node in cluster.primaries]


def balance(cluster, shard, number):
    return cluster.primaries[shard].value(f"SELECT balance FROM account WHERE id = {number}")


def test_commit_is_two_phase(proxy, bank):
    a, b, c = ids_by_shard(bank)
    before = counter(proxy)
    with closing(proxy.connect(autocommit=False)) as connection:
        cursor = connection.cursor()
        cursor.execute(f"UPDATE account SET balance = balance - 10 WHERE id = {a}")
        cursor.execute(f"UPDATE account SET balance = balance + 10 WHERE id = {b}")
        connection.commit()
        assert one(connection, f"SELECT balance FROM account WHERE id = {b}") == 110
    assert counter(proxy) == before + 1
    assert money(bank) == TOTAL and balance(bank, 0, a) == 90


def counter(proxy, name="two_phase_commits_total"):
    """Two-phase commits of the proxy so far, or another metric over all its labels."""
    with urllib.request.urlopen(f"http://{proxy.host}:{proxy.http_port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return sum(float(line.split()[-1]) for line in text.splitlines()
               if line.startswith("pgshunt_" + name))


def test_one_writer_does_not_pay(proxy, bank):
    a, b, c = ids_by_shard(bank)
    before = counter(proxy)
    with closing(proxy.connect(autocommit=False)) as connection:
        cursor = connection.cursor()
        cursor.execute(f"SELECT balance FROM account WHERE id = {a}")
        cursor.execute(f"UPDATE account SET note = 'x' WHERE id = {b}")
        cursor.execute(f"SELECT balance FROM account WHERE id = {c}")
        connection.commit()
        cursor.execute("SELECT count(*) FROM account")
        connection.commit()
        assert one(connection, f"SELECT note FROM account WHERE id = {b}") == "x"
    assert counter(proxy) == before


@pytest.mark.parametrize("sql, tag", [
    ("INSERT INTO account (id, balance) VALUES " + ", ".join(f"({n}, 0)" for n in range(1000, 1030)), "INSERT 0 30"),
    ("UPDATE account SET note = 'all'", "UPDATE 30"),
    ("DELETE FROM account", "DELETE 30"),
])
def test_autocommit(proxy, bank, sql, tag):
    before = counter(proxy)
    with closing(proxy.connect()) as connection:
        cursor = connection.cursor()
        cursor.execute(sql)
        assert cursor.statusmessage == tag
    assert counter(proxy) == before + 1


def test_extended_protocol(proxy, bank):
    a, b, _ = ids_by_shard(bank)
    before = counter(proxy)
    raw = Raw(proxy)
    with closing(raw.socket):
        raw.ask(query("BEGIN"))
        for number, change in ((a, -5), (b, 5)):
            raw.ask(parse("", f"UPDATE account SET balance = balance + {change} WHERE id = $1", [20]),
                    bind("", "", [str(number).encode()]), execute(), SYNC)
        answer = raw.ask(parse("", "COMMIT"), bind("", ""), execute(), SYNC)
        assert kinds(answer) == "12CZ" and answer[2][1] == b"COMMIT\0"
    assert counter(proxy) == before + 1
    assert money(bank) == TOTAL and balance(bank, 1, b) == 105


def test_commit_after_an_error_rolls_back(proxy, bank):
    a, b, _ = ids_by_shard(bank)
    with closing(proxy.connect()) as connection:
        cursor = connection.cursor()
        cursor.execute("BEGIN")
        cursor.execute(f"UPDATE account SET balance = 0 WHERE id = {a}")
        with pytest.raises(psycopg2.Error):
            cursor.execute(f"UPDATE account SET balance = -1 WHERE id = {b}")
        cursor.execute("COMMIT")
        assert cursor.statusmessage == "ROLLBACK"
    assert money(bank) == TOTAL


def test_deferred_constraint_rolls_back_everywhere(proxy, bank):
    a, b, _ = ids_by_shard(bank)
    proxy.sql("ALTER TABLE account ADD CONSTRAINT once UNIQUE (note, id) DEFERRABLE INITIALLY DEFERRED")
    for node in bank.primaries:
        node.sql("CREATE OR REPLACE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS "
                 "$$ BEGIN IF NEW.note = 'bad' THEN RAISE EXCEPTION 'no'; END IF; RETURN NULL; END $$; "
                 "CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON account DEFERRABLE INITIALLY DEFERRED "
                 "FOR EACH ROW EXECUTE FUNCTION no()")
    try:
        with closing(proxy.connect()) as connection:
            cursor = connection.cursor()
            cursor.execute("BEGIN")
            cursor.execute(f"UPDATE account SET balance = 0 WHERE id = {a}")
            cursor.execute(f"UPDATE account SET note = 'bad' WHERE id = {b}")
            with pytest.raises(psycopg2.Error):
                cursor.execute("COMMIT")
            assert connection.info.transaction_status == 0
        assert money(bank) == TOTAL
    finally:
        for node in bank.primaries:
            node.sql("DROP TRIGGER late ON account; DROP FUNCTION no(); ALTER TABLE account DROP CONSTRAINT once")


def test_savepoints_over_shards(proxy, bank):
    a, b, _ = ids_by_shard(bank)
    with closing(proxy.connect()) as connection:
        cursor = connection.cursor()
        for sql in ("BEGIN", f"UPDATE account SET balance = 99 WHERE id = {a}", "SAVEPOINT s",
                    f"UPDATE account SET balance = 0 WHERE id = {b}", "ROLLBACK TO s",
                    f"UPDATE account SET balance = 101 WHERE id = {b}", "RELEASE s", "COMMIT"):
            cursor.execute(sql)
    assert balance(bank, 0, a) == 99 and balance(bank, 1, b) == 101


def test_chain_and_isolation(proxy, bank):
    a, b, _ = ids_by_shard(bank)
    with closing(proxy.connect()) as connection:
        cursor = connection.cursor()
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        for number in (a, b):
            cursor.execute(f"UPDATE account SET note = 'chained' WHERE id = {number}")
        cursor.execute("COMMIT AND CHAIN")
        assert connection.info.transaction_status != 0
        assert one(connection, "SHOW transaction_isolation") == "repeatable read"
        cursor.execute(f"UPDATE account SET note = 'gone' WHERE id = {a}")
        cursor.execute("ROLLBACK")
        assert one(connection, f"SELECT note FROM account WHERE id = {a}") == "chained"
        cursor.execute("BEGIN READ ONLY")
        for number in (a, b):
            assert one(connection, f"SELECT balance FROM account WHERE id = {number}") == 100
            assert one(connection, "SHOW transaction_read_only") == "on"
        cursor.execute("COMMIT")


def test_gathered_reads_do_not_hinder(proxy, bank):
    """The server that a gather has made tables on cannot prepare: it decides, or has nothing to commit."""
    a, b, c = ids_by_shard(bank)
    with closing(proxy.connect()) as connection:
        cursor = connection.cursor()
        cursor.execute("BEGIN")
        cursor.execute(f"UPDATE account SET balance = 90 WHERE id = {a}")
        cursor.execute("SELECT x.id, rank() OVER (ORDER BY x.balance) FROM account x JOIN account y ON x.balance = y.balance")
        cursor.fetchall()
        cursor.execute(f"UPDATE account SET balance = 110 WHERE id = {b}")
        cursor.execute("COMMIT")
        assert cursor.statusmessage == "COMMIT"
    assert money(bank) == TOTAL and balance(bank, 0, a) == 90


def test_a_plain_user_may(proxy, bank):
    """The decision is written by the client's own role."""
    proxy.sql("GRANT ALL ON account TO app")
    with closing(proxy.connect(user="app")) as connection:
        connection.cursor().execute("UPDATE account SET note = 'app'")
        with pytest.raises(psycopg2.Error):
            connection.cursor().execute("DELETE FROM pgshunt.decision")


def test_decisions_are_deleted(proxy, bank):
    proxy.sql("UPDATE account SET note = 'x'")
    def gone():
        return not any(node.value("SELECT count(*) FROM pgshunt.decision WHERE verdict = 'committed'")
                       for node in bank.primaries)
    wait_until(gone, 15.0, "decisions deleted")


def prepare_by_hand(node, gid, number, user="postgres"):
    with closing(node.connect(user=user)) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute("BEGIN")
        cursor.execute(f"UPDATE account SET note = 'left' WHERE id = {number}")
        cursor.execute(f"PREPARE TRANSACTION '{gid}'")


def shard_names(bank):
    return [shard["name"] for shard in bank.shard_config()]


def test_another_proxys_leavings(proxy, bank):
    """What a proxy that is gone left prepared: rolled back where nothing was decided, else committed."""
    a, b, _ = ids_by_shard(bank)
    names = shard_names(bank)
    undecided, decided = (f"pgshunt:dead:app:{names[2]}:{n}:00" for n in (1, 2))
    bank.primaries[2].sql(f"INSERT INTO pgshunt.decision (gid, verdict) VALUES ('{decided}', 'committed')")
    before = counter(proxy, "recovered_total")
    prepare_by_hand(bank.primaries[0], undecided, a)
    prepare_by_hand(bank.primaries[1], decided, b)
    settle(bank)
    assert bank.primaries[0].value(f"SELECT note IS NULL FROM account WHERE id = {a}")
    assert bank.primaries[1].value(f"SELECT note FROM account WHERE id = {b}") == "left"
    wait_until(lambda: counter(proxy, "recovered_total") == before + 2, 10.0, "counted")
    assert counter(proxy, "in_doubt_transactions") == 0
    # whoever would have decided it comes too late
    with pytest.raises(Exception):
        bank.primaries[2].sql(f"INSERT INTO pgshunt.decision (gid, verdict) VALUES ('{undecided}', 'committed')")


def test_a_forged_decision_does_not_count(proxy, bank):
    a, _, _ = ids_by_shard(bank)
    gid = f"pgshunt:dead:app:{shard_names(bank)[1]}:3:00"
    with closing(bank.primaries[1].connect(user="app")) as connection:
        connection.autocommit = True
        connection.cursor().execute(f"INSERT INTO pgshunt.decision (gid, verdict) VALUES ('{gid}', 'committed')")
        with pytest.raises(psycopg2.Error):
            connection.cursor().execute("INSERT INTO pgshunt.decision VALUES ('x', 'committed', 'postgres')")
    prepare_by_hand(bank.primaries[0], gid, a)
    settle(bank)
    assert bank.primaries[0].value(f"SELECT note IS NULL FROM account WHERE id = {a}")


def test_others_are_left_alone(proxy, bank):
    a, _, _ = ids_by_shard(bank)
    names = shard_names(bank)
    for gid in ("mine", f"pgshunt:dead:other:{names[0]}:1:00"):
        prepare_by_hand(bank.primaries[0], gid, a)
        time.sleep(1)
        assert prepared(bank) == [gid]
        bank.primaries[0].sql(f"ROLLBACK PREPARED '{gid}'")


def test_no_prepared_transactions(proxy):
    """max_prepared_transactions = 0: refused, with what to do; or one by one, if that is what one wants."""
    with Cluster(shards=2, replicas=0, settings={"max_prepared_transactions": "0"}) as cluster:
        with proxy_of(cluster, options={"routing": {"multi_shard_commit": "one_by_one"}}) as plain:
            plain.wait_nodes()
            plain.sql("CREATE TABLE account (id bigint PRIMARY KEY, balance bigint, note text)")
            plain.sql("INSERT INTO account (id, balance) VALUES " + ", ".join(f"({n}, 1)" for n in range(20)))
            assert counter(plain) == 0
            plain.change({"routing": {"multi_shard_commit": "atomic"}})
            plain.reload()
            with closing(plain.connect()) as connection:
                def refuses():
                    try:
                        connection.cursor().execute("UPDATE account SET note = 'x'")
                        return False
                    except psycopg2.Error as error:
                        return "multi_shard_commit" in (error.diag.message_hint or "")
                wait_until(refuses, 10.0, "refused")
                with refused("55000", "prepared transactions are disabled"):
                    connection.cursor().execute("UPDATE account SET note = 'y'")
                assert one(connection, "SELECT count(*) FROM account WHERE note = 'y'") == 0
                connection.cursor().execute("UPDATE account SET note = 'z' WHERE id = 1")


# ---- crashes ----

def transfer(connection, bank):
    a, b, c = ids_by_shard(bank)
    cursor = connection.cursor()
    cursor.execute("BEGIN")
    for number, change in ((a, -30), (b, 10), (c, 20)):
        cursor.execute(f"UPDATE account SET balance = balance + {change} WHERE id = {number}")
    cursor.execute("COMMIT")


@needs_failpoints
@pytest.mark.parametrize("step", STEPS)
def test_the_proxy_is_killed(proxy, bank, step):
    a, b, c = ids_by_shard(bank)
    with proxy_of(bank, environment={"PGSHUNT_CRASH_AT": step}) as victim:
        victim.wait_nodes()
        with closing(victim.connect()) as connection:
            with pytest.raises(psycopg2.Error):
                transfer(connection, bank)
        victim.wait(20)
        victim.kill9()
    settle(bank) # by the other proxy
    assert money(bank) == TOTAL
    done = balance(bank, 0, a) == 70
    assert (balance(bank, 1, b), balance(bank, 2, c)) == ((110, 120) if done else (100, 100))
    if step in ("decided", "finish_sent", "finished_one", "finished"):
        assert done
    if step in ("prepare_sent", "prepared_one", "prepared"):
        assert not done


# From the first look at the rows that get other keys to the last one of them in its place.
MOVES = ["change_looked", "change_read", "change_stayed", "change_inserted", "change_settled"]


def held(cluster):
    """Every account there is: number, balance."""
    return sorted(row for node in cluster.primaries for row in node.sql("SELECT id, balance FROM account"))


@needs_failpoints
@pytest.mark.slow
@pytest.mark.parametrize("step, block", [(step, False) for step in MOVES + STEPS]
                         + [(step, True) for step in ("change_read", "change_inserted", "prepared", "decided")])
def test_the_proxy_is_killed_while_rows_move(proxy, bank, step, block):
    """No row is lost, none is there twice, and none is where its key is not looked for."""
    proxy.sql("UPDATE account SET balance = 100 + id")
    before = held(bank)
    after = sorted((number + 1000 if number <= 12 else number, balance) for number, balance in before)
    with proxy_of(bank, environment={"PGSHUNT_CRASH_AT": step}) as victim:
        victim.wait_nodes()
        with closing(victim.connect()) as connection, pytest.raises(psycopg2.Error):
            cursor = connection.cursor()
            if block:
                cursor.execute("BEGIN")
            cursor.execute("UPDATE account SET id = id + 1000 WHERE id <= 12")
            cursor.execute("COMMIT")
        victim.wait(20)
        victim.kill9()
    settle(bank)
    wait_until(lambda: held(bank) in (before, after), 10.0, "the rows as they were, or moved")
    now = held(bank)
    if step in MOVES + ["prepare_sent", "prepared_one", "prepared"]:
        assert now == before
    if step in ("decided", "finish_sent", "finished_one", "finished"):
        assert now == after
    with closing(proxy.connect()) as connection:
        for number, balance in now:
            assert one(connection, f"SELECT balance FROM account WHERE id = {number}") == balance


@needs_failpoints
@pytest.mark.slow
@pytest.mark.parametrize("step, shard", [("prepare_sent", 0), ("prepared", 0), ("prepared", 2), ("decision_sent", 2),
                                         ("decided", 0), ("finish_sent", 2)])
def test_a_server_is_killed(proxy, bank, step, shard):
    """The last shard decides; the others prepare."""
    a, b, c = ids_by_shard(bank)
    with proxy_of(bank, environment={"PGSHUNT_STOP_AT": step}) as victim:
        victim.wait_nodes()
        outcome = commit_while_a_server_dies(victim, bank, shard)
        wait_until(lambda: not prepared(bank), 20.0, "finished")
        assert money(bank) == TOTAL
        done = balance(bank, 0, a) == 70
        assert (balance(bank, 1, b), balance(bank, 2, c)) == ((110, 120) if done else (100, 100))
        if outcome != "08007": # 08007 says that nobody knows
            assert done == (outcome == "COMMIT")
        if outcome == "COMMIT": # the same session's later reads see it
            assert one(victim.session, f"SELECT balance FROM account WHERE id = {a}") == 70
        victim.session.close()


def commit_while_a_server_dies(victim, bank, shard):
    victim.session = victim.connect()
    found = []

    def run():
        try:
            transfer(victim.session, bank_ids)
            found.append("COMMIT")
        except psycopg2.Error as error:
            found.append(error.pgcode)

    bank_ids = bank
    thread = threading.Thread(target=run)
    thread.start()
    pid = victim.process.pid

    def stopped():
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] == "T"

    wait_until(stopped, 20.0, "the proxy at its failpoint")
    node = bank.primaries[shard]
    node.kill9()
    os.kill(pid, signal.SIGCONT)
    node.start()
    thread.join(40)
    assert found, "no answer"
    return found[0]


@pytest.mark.core
def test_shards_in_one_server(bank):
    """Databases of one server: what is prepared has one name for all of the server."""
    node = bank.primaries[0]
    names = ["left", "middle", "right"]
    for name in names:
        bank.create_database(name)
    shards = [{"name": name, "dbname": name, "nodes": [{"host": "127.0.0.1", "port": node.port}]} for name in names]
    database = {"name": "app", "shards": shards, "keyspaces": [ACCOUNTS]}
    with Proxy(bank, databases=[database], options=OPTIONS) as proxy:
        proxy.wait_nodes()
        proxy.sql("CREATE TABLE account (id bigint PRIMARY KEY, balance bigint NOT NULL)")
        proxy.sql("INSERT INTO account (id, balance) SELECT g, 100 FROM generate_series(1, 30) g")
        proxy.sql("UPDATE account SET balance = balance + 1")
        counts = [node.value("SELECT count(*) FROM account WHERE balance = 101", dbname=name) for name in names]
        assert all(counts) and sum(counts) == 30
    assert prepared(bank) == []
