"""LISTEN and NOTIFY in transaction pooling: many clients listen over one server connection."""
import os
import select
import signal
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg
import psycopg2
import pytest
from harness import Proxy
from harness.process import wait_until
from support import SYNC, Raw, bind, execute, fetch, fields, kinds, one, parse, query, rows

pytestmark = pytest.mark.core


@pytest.fixture(scope="module")
def narrow(cluster):
    """One server connection for statements: listening must not take it."""
    with Proxy(cluster, options={"pool": {"size": 1}}) as proxy:
        yield proxy


def run(connection, *statements):
    for statement in statements:
        connection.cursor().execute(statement)


def heard(connection, count=1, seconds=15.0):
    """The next notifications of a psycopg2 connection, waited for, as (channel, payload)."""
    until = time.monotonic() + seconds
    while len(connection.notifies) < count and time.monotonic() < until:
        if select.select([connection], [], [], 0.2)[0]:
            connection.poll()
    found = [(notify.channel, notify.payload) for notify in connection.notifies]
    connection.notifies.clear()
    return found


def shared(proxy, cluster):
    """Server processes whose last statement was a LISTEN (or UNLISTEN) of the hub."""
    return int(cluster.shards[0].primary.sql(
        "SELECT count(*) FROM pg_stat_activity WHERE query ILIKE 'LISTEN %' OR query ILIKE 'UNLISTEN %'")[0][0])


def test_a_listener_hears_and_keeps_no_server(narrow):
    with closing(narrow.connect()) as listener, closing(narrow.connect()) as other:
        run(listener, "LISTEN news")
        for number in range(3):
            assert one(other, "SELECT 1") == 1  # pool.size is 1: the listener does not hold it
            run(other, f"NOTIFY news, 'number {number}'")
            assert heard(listener) == [("news", f"number {number}")]
        assert one(listener, "SELECT 1") == 1
        run(other, "SELECT pg_notify('news', 'by function')")
        assert heard(listener) == [("news", "by function")]


def test_own_notifications_come_with_the_end_of_the_transaction(narrow):
    """... ahead of ReadyForQuery, and with the pid of the session, as libpq knows it."""
    with closing(narrow.connect()) as client:
        own = client.info.backend_pid
        run(client, "LISTEN mine", "BEGIN", "NOTIFY mine, 'me'")
        assert not client.notifies
        run(client, "COMMIT")
        assert [(n.channel, n.payload, n.pid) for n in client.notifies] == [("mine", "me", own)]
        client.notifies.clear()
        for number in range(50):
            run(client, f"NOTIFY mine, '{number}'")
            assert [(n.payload, n.pid) for n in client.notifies] == [(str(number), own)]
            client.notifies.clear()


def test_others_notifications_come_with_the_transaction_they_wait_for(narrow):
    """What came while the client was in a transaction is ahead of the ReadyForQuery that ends it."""
    with Raw(narrow) as listener, closing(narrow.connect()) as other, closing(narrow.connect()) as own:
        run(own, "LISTEN busy")
        listener.ask(query("LISTEN busy"))
        for attempt in range(20):
            listener.ask(query("BEGIN"))
            run(other, "NOTIFY busy, 'x'")
            assert heard(own) == [("busy", "x")]
            time.sleep(0.02 * attempt)  # it may be on its way to the listener's worker
            answer = listener.ask(query("COMMIT"))
            if kinds(answer) == "CAZ":
                break
            assert kinds(answer) == "CZ" and listener.read()[0] == "A"
        assert kinds(answer) == "CAZ"
        assert struct.unpack("!I", answer[1][1][:4])[0] != listener.key[0]


def test_its_ready_for_query_does_not_wait_for_a_server_that_is_not_there(cluster):
    """The connection that listens is lost again and again: every NOTIFY is answered."""
    primary = cluster.shards[0].primary
    with Proxy(cluster) as proxy, closing(proxy.connect()) as client:
        run(client, "LISTEN torn")
        for number in range(5):
            for server in proxy.show("SERVERS"):
                if server["pin_reason"] == "listens for clients":
                    primary.sql(f"SELECT pg_terminate_backend({server['remote_pid']})")
            run(client, f"NOTIFY torn, '{number}'")
        wait_until(lambda: (run(client, "NOTIFY torn, 'again'"), heard(client, seconds=0.2))[1] != [], 60,
                   "it listens again")


def test_a_cancel_ends_the_wait_for_its_own_notifications(cluster):
    """The connection that listens does not answer; what is committed stays so, without an error."""
    primary = cluster.shards[0].primary
    with Proxy(cluster) as proxy, closing(proxy.connect()) as client:
        run(client, "LISTEN mute")
        pid = int(primary.sql("SELECT pid FROM pg_stat_activity WHERE query ILIKE 'LISTEN%mute%' AND pid <> "
                              "pg_backend_pid()", dbname="postgres")[0][0])
        os.kill(pid, signal.SIGSTOP)
        try:
            with ThreadPoolExecutor(1) as thread:
                notified = thread.submit(run, client, "NOTIFY mute, 'x'")
                time.sleep(0.3)
                assert not notified.done()
                client.cancel()
                notified.result(20)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert heard(client) == [("mute", "x")]
        assert one(client, "SELECT 1") == 1


def test_unlisten(narrow):
    with closing(narrow.connect()) as listener, closing(narrow.connect()) as other:
        run(listener, "LISTEN a", "LISTEN b", "LISTEN c")
        run(listener, "UNLISTEN a")
        run(other, "NOTIFY a, 'no'", "NOTIFY b, 'yes'")
        assert heard(listener) == [("b", "yes")]
        run(listener, "UNLISTEN *", "LISTEN c")
        run(other, "NOTIFY b, 'no'", "NOTIFY c, 'yes'")
        assert heard(listener) == [("c", "yes")]
        run(listener, "DISCARD ALL", "LISTEN last")
        run(other, "NOTIFY c, 'no'", "NOTIFY last, 'yes'")
        assert heard(listener) == [("last", "yes")]
        run(listener, "UNLISTEN nothing_there")


def test_in_a_transaction_it_counts_at_commit(narrow):
    with closing(narrow.connect()) as listener, closing(narrow.connect()) as other:
        run(listener, "BEGIN", "LISTEN later")
        assert fetch(listener, "SELECT pg_listening_channels()") == []
        run(listener, "COMMIT")
        assert fetch(listener, "SELECT pg_listening_channels()") == [("later",)]
        run(other, "NOTIFY later, 'now'")
        assert heard(listener) == [("later", "now")]
        run(listener, "BEGIN", "UNLISTEN later", "ROLLBACK")
        run(other, "NOTIFY later, 'still'")
        assert heard(listener) == [("later", "still")]
        run(listener, "BEGIN", "LISTEN never", "ROLLBACK", "BEGIN", "LISTEN nor_this")
        with pytest.raises(psycopg2.Error):
            run(listener, "SELECT 1/0")
        run(listener, "COMMIT")
        run(listener, "BEGIN", "LISTEN kept", "SAVEPOINT s", "LISTEN undone", "UNLISTEN kept", "ROLLBACK TO s", "COMMIT")
        assert sorted(fetch(listener, "SELECT pg_listening_channels()")) == [("kept",), ("later",)]
        run(listener, "BEGIN")
        with pytest.raises(psycopg2.Error):
            run(listener, "SELECT 1/0")
        with pytest.raises(psycopg2.errors.InFailedSqlTransaction):
            run(listener, "LISTEN at_last")
        run(listener, "ROLLBACK")


def test_in_a_transaction_nothing_is_delivered(narrow):
    with closing(narrow.connect()) as listener, closing(narrow.connect()) as other:
        run(listener, "LISTEN busy", "BEGIN")
        run(other, "NOTIFY busy, 'while in a transaction'")
        assert heard(listener, seconds=0.5) == []
        run(listener, "COMMIT")
        assert heard(listener) == [("busy", "while in a transaction")]


def test_what_a_transaction_stops_listening_to_is_not_told_at_its_end(cluster):
    with Proxy(cluster, options={"workers": 1}) as proxy, closing(proxy.connect()) as listener, \
            closing(proxy.connect()) as witness, closing(proxy.connect()) as other:
        run(witness, "LISTEN gone", "LISTEN kept", "LISTEN again")
        run(listener, "LISTEN gone", "LISTEN kept", "LISTEN again")
        for end, told in (("ROLLBACK", ["gone", "kept", "again"]), ("COMMIT", ["kept", "again"])):
            run(listener, "BEGIN", "UNLISTEN gone", "UNLISTEN again", "LISTEN again")
            run(other, "NOTIFY gone, 'x'", "NOTIFY kept, 'x'", "NOTIFY again, 'x'")
            assert len(heard(witness, 3)) == 3  # so they have reached the worker, and wait for the listener
            run(listener, end)
            assert one(listener, "SELECT 1") == 1
            assert [channel for channel, _ in heard(listener, len(told))] == told


def test_names_and_payloads_of_any_kind(narrow):
    with closing(narrow.connect()) as listener, closing(narrow.connect()) as other:
        run(listener, 'LISTEN "Odd ""Name"""', "LISTEN Folded", 'LISTEN "ünïcode"')
        run(other, "NOTIFY \"Odd \"\"Name\"\"\", 'it''s'", "NOTIFY FOLDED", "NOTIFY \"ünïcode\", 'é'")
        assert heard(listener, 3) == [('Odd "Name"', "it's"), ("folded", ""), ("ünïcode", "é")]
        other.cursor().execute("SELECT pg_notify('folded', %s)", ("x" * 7999,))
        assert heard(listener) == [("folded", "x" * 7999)]


def test_extended_protocol_and_polling_with_empty_queries(narrow):
    """As JDBC's getNotifications() and psycopg 3's notifies() do it."""
    with Raw(narrow) as listener, closing(narrow.connect()) as other:
        answer = listener.ask(parse("", "LISTEN polled"), bind("", ""), execute(), SYNC)
        assert kinds(answer) == "12CZ" and b"LISTEN\0" in [body for kind, body in answer if kind == "C"]
        run(other, "NOTIFY polled, 'x'")
        found = []
        until = time.monotonic() + 15
        while not found and time.monotonic() < until:
            found = [body for kind, body in listener.ask(query("")) if kind == "A"]
        assert found and found[0][4:] == b"polled\0x\0"
        answer = listener.ask(parse("", "SELECT pg_listening_channels()"), bind("", ""),
                              b"D\0\0\0\x06P\0", execute(), SYNC)
        assert kinds(answer) == "12TDCZ" and rows(answer) == [[b"polled"]]
    with psycopg.connect(narrow.dsn(), autocommit=True) as listener, closing(narrow.connect()) as other:
        listener.execute("LISTEN three")
        run(other, "NOTIFY three, '1'", "NOTIFY three, '2'")
        notifies = listener.notifies()
        assert [next(notifies).payload, next(notifies).payload] == ["1", "2"]


def test_together_with_other_statements_the_server_stays(cluster):
    with Proxy(cluster, options={"pool": {"size": 2}}) as proxy, closing(proxy.connect()) as listener, \
            closing(proxy.connect()) as other:
        run(listener, "LISTEN first; SELECT 1")
        run(listener, "LISTEN second")
        assert proxy.show("CLIENTS") and "LISTEN" in [row["pin_reason"] for row in proxy.show("CLIENTS")]
        run(other, "NOTIFY first, 'a'", "NOTIFY second, 'b'")
        assert heard(listener, 2) == [("first", "a"), ("second", "b")]
        run(listener, "UNLISTEN *")
        assert "LISTEN" not in [row["pin_reason"] for row in proxy.show("CLIENTS")]
        run(listener, "LISTEN third")
        run(other, "NOTIFY first, 'no'", "NOTIFY third, 'c'")
        assert heard(listener) == [("third", "c")]


@pytest.mark.slow
def test_a_thousand_listeners_are_one_connection(cluster):
    count = 1000
    with Proxy(cluster, options={"pool": {"size": 3}, "limits": {"max_clients": 2000}}) as proxy:
        proxy.wait_nodes()
        before = shared(proxy, cluster)
        clients = []
        try:
            for _ in range(count):
                clients.append(Raw(proxy))
            for client in clients:
                client.send(query("LISTEN all_of_us"))
            for client in clients:
                assert kinds(client.until_ready()) == "CZ"
            assert shared(proxy, cluster) - before <= 1
            with closing(proxy.connect()) as sender:
                run(sender, "NOTIFY all_of_us, 'hear'")
            for client in clients:
                kind, body = client.read()
                assert kind == "A" and body[4:] == b"all_of_us\0hear\0"
        finally:
            for client in clients:
                client.close()
        wait_until(lambda: shared(proxy, cluster) == before, 15, "the shared connection closed")


def shared_pids(cluster):
    return [row[0] for row in cluster.shards[0].primary.sql(
        "SELECT pid FROM pg_stat_activity WHERE query ILIKE 'LISTEN %'")]


@pytest.mark.parametrize("how", ["warn", "close"])
def test_a_lost_connection_listens_again_and_is_reported(cluster, how):
    with Proxy(cluster, options={"pool": {"listen_lost": how}}) as proxy, closing(proxy.connect()) as listener, \
            closing(proxy.connect()) as other:
        run(listener, "LISTEN fragile")
        for pid in shared_pids(cluster):
            cluster.shards[0].primary.sql(f"SELECT pg_terminate_backend({pid})")
        proxy.wait_log("listening for clients again", 20)
        if how == "close":
            until = time.monotonic() + 15
            with pytest.raises(psycopg2.OperationalError):
                while time.monotonic() < until:
                    run(listener, "SELECT 1")
                    time.sleep(0.05)
            return
        wait_until(lambda: (listener.poll(), "may have been missed" in "".join(listener.notices))[1], 15, "the warning")
        run(other, "NOTIFY fragile, 'again'")
        assert heard(listener) == [("fragile", "again")]


def test_who_does_not_read_is_disconnected(cluster):
    with Proxy(cluster, options={"limits": {"notifications": "64kB"}}) as proxy, Raw(proxy) as lazy, \
            closing(proxy.connect()) as other:
        assert kinds(lazy.ask(query("LISTEN flood"))) == "CZ"
        assert kinds(lazy.ask(query("BEGIN"))) == "CZ"  # nothing is delivered now
        for number in range(20):
            other.cursor().execute("SELECT pg_notify('flood', %s)", (str(number) + "x" * 7000,))
        proxy.wait_log("limits.notifications", 15)
        assert lazy.at_end()
        assert one(other, "SELECT 1") == 1


def test_a_listener_that_leaves_is_forgotten(narrow, cluster):
    with closing(narrow.connect()) as other:
        for _ in range(20):
            with closing(narrow.connect()) as listener:
                run(listener, "LISTEN shortly")
            run(other, "NOTIFY shortly")
        assert one(other, "SELECT 1") == 1


def test_who_may_not_log_in_is_told(cluster):
    primary = cluster.shards[0].primary
    primary.sql("CREATE ROLE lonely LOGIN")
    cluster.sync()
    with Proxy(cluster) as proxy, closing(proxy.connect(user="lonely")) as client, \
            closing(proxy.connect()) as other:
        one(client, "SELECT 1")
        primary.sql("ALTER ROLE lonely NOLOGIN")
        with pytest.raises(psycopg2.Error) as caught:
            run(client, "LISTEN nowhere")
        assert caught.value.pgcode == "28000" and "cannot listen" in str(caught.value)
        assert one(client, "SELECT 1") == 1  # the session goes on
        run(other, "LISTEN nowhere")  # somebody else can
        run(client, "LISTEN nowhere", "NOTIFY nowhere, 'x'")
        assert heard(client) == [("nowhere", "x")] and heard(other) == [("nowhere", "x")]
    primary.sql("DROP ROLE lonely")


def test_channels_are_listed_where_it_can_be(narrow):
    with closing(narrow.connect()) as client:
        run(client, "LISTEN one", "LISTEN two")
        assert sorted(fetch(client, "SELECT * FROM pg_listening_channels()")) == [("one",), ("two",)]
        with pytest.raises(psycopg2.Error) as caught:
            fetch(client, "SELECT count(*) FROM pg_listening_channels() AS channels")
        assert caught.value.pgcode == "0A000" and caught.value.diag.message_hint
