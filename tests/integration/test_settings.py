"""SET belongs to the client, whatever server its next transaction gets."""
from contextlib import closing

import psycopg2
import pytest

from harness import Proxy
from support import Raw, error_of, explain, fetch, fields, kinds, one, query, rows
from support import startup as startup_packet
from test_same_as_postgres import Direct, comparable

pytestmark = pytest.mark.core


@pytest.fixture(scope="module")
def narrow(cluster):
    """One server connection for all clients, so that every client meets the others' leavings."""
    with Proxy(cluster, options={"pool": {"size": 1}}) as proxy:
        yield proxy


def setting(connection, name):
    return one(connection, "SELECT current_setting(%s, true)", (name,))


def test_set_follows_the_client_and_does_not_leak(narrow):
    with closing(narrow.connect()) as first, closing(narrow.connect()) as second:
        first.cursor().execute("SET statement_timeout = '7s'")
        second.cursor().execute("SET TimeZone = 'Asia/Tokyo'")
        for _ in range(5):
            assert setting(first, "statement_timeout") == "7s"
            assert setting(second, "statement_timeout") == "0"
            assert setting(second, "TimeZone") == "Asia/Tokyo"
            assert setting(first, "TimeZone") != "Asia/Tokyo"
        with closing(narrow.connect()) as third:
            assert setting(third, "statement_timeout") == "0" and setting(third, "TimeZone") != "Asia/Tokyo"


def test_reset(narrow):
    with closing(narrow.connect()) as client, closing(narrow.connect()) as other:
        client.cursor().execute("SET work_mem = '9MB'")
        assert setting(client, "work_mem") == "9MB" and setting(other, "work_mem") == "4MB"
        client.cursor().execute("RESET work_mem")
        assert setting(client, "work_mem") == "4MB"
        client.cursor().execute("SET work_mem = '8MB'")
        client.cursor().execute("RESET ALL")
        assert setting(client, "work_mem") == "4MB"
        client.cursor().execute("SET work_mem = '8MB'")
        client.cursor().execute("DISCARD ALL")
        assert setting(client, "work_mem") == "4MB"


def test_set_local_ends_with_its_transaction(narrow):
    with closing(narrow.connect()) as client:
        cursor = client.cursor()
        cursor.execute("BEGIN")
        cursor.execute("SET LOCAL work_mem = '11MB'")
        assert setting(client, "work_mem") == "11MB"
        cursor.execute("COMMIT")
        assert setting(client, "work_mem") == "4MB"


def test_rollback_undoes_set(narrow):
    with closing(narrow.connect()) as client, closing(narrow.connect()) as other:
        cursor = client.cursor()
        cursor.execute("SET work_mem = '5MB'")
        cursor.execute("BEGIN")
        cursor.execute("SET work_mem = '12MB'")
        assert setting(client, "work_mem") == "12MB"
        cursor.execute("ROLLBACK")
        assert one(other, "SELECT 1") == 1
        assert setting(client, "work_mem") == "5MB"


def test_wrong_set_is_refused_and_not_remembered(narrow):
    with closing(narrow.connect()) as client, closing(narrow.connect()) as other:
        with pytest.raises(psycopg2.Error):
            client.cursor().execute("SET work_mem = 'a lot'")
            fetch(client, "SELECT 1")
        client.rollback()
        assert one(other, "SELECT 1") == 1
        assert setting(client, "work_mem") == "4MB"


def test_startup_parameters(narrow):
    with closing(narrow.connect(application_name="shown", options="-c statement_timeout=3s")) as client, \
            closing(narrow.connect()) as other:
        assert setting(client, "application_name") == "shown"
        assert setting(client, "statement_timeout") == "3s"
        assert setting(other, "application_name") != "shown"
        assert setting(client, "application_name") == "shown"


def test_parameter_status_is_told(narrow):
    with closing(narrow.connect()) as client:
        client.cursor().execute("SET TimeZone = 'Asia/Tokyo'")
        fetch(client, "SELECT 1")
        assert client.get_parameter_status("TimeZone") == "Asia/Tokyo"


def test_client_encoding(narrow):
    with closing(narrow.connect()) as client, closing(narrow.connect()) as other:
        client.set_client_encoding("LATIN1")
        for _ in range(3):
            assert one(client, "SELECT 'é'") == "é"
            assert one(other, "SELECT 'é'") == "é"


def test_search_path(cluster, narrow):
    cluster.shards[0].primary.sql("CREATE SCHEMA side; CREATE TABLE side.only_here (id int)")
    cluster.sync()
    try:
        with closing(narrow.connect()) as client, closing(narrow.connect()) as other:
            client.cursor().execute("SET search_path = side, public")
            for _ in range(3):
                assert fetch(client, "SELECT * FROM only_here") == []
                with pytest.raises(psycopg2.errors.UndefinedTable):
                    fetch(other, "SELECT * FROM only_here")
    finally:
        cluster.shards[0].primary.sql("DROP SCHEMA side CASCADE")


def test_temporary_table_stays_with_its_client(narrow):
    """What cannot move pins the server to the client; here: refused or right, never another's table."""
    with closing(narrow.connect("app")) as client:
        try:
            client.cursor().execute("CREATE TEMP TABLE mine (id int)")
        except psycopg2.Error as error:
            assert error.pgcode == "0A000" and error.diag.message_hint
            return
        client.cursor().execute("INSERT INTO mine VALUES (1)")
        assert one(client, "SELECT count(*) FROM mine") == 1
    with closing(narrow.connect()) as other:
        with pytest.raises(psycopg2.errors.UndefinedTable):
            fetch(other, "SELECT * FROM mine")


def test_pgshunt_settings(data):
    """pgshunt.key and pgshunt.shard are the proxy's own."""
    with closing(data.connect()) as client:
        client.cursor().execute("SET pgshunt.shard = 's1'")
        assert one(client, "SHOW pgshunt.shard") == "s1"
        ports = {one(client, "SELECT inet_server_port()") for _ in range(4)}
        client.cursor().execute("RESET pgshunt.shard")
        nodes = {row["port"] for row in data.show("NODES") if row["shard"] == "s1" and row["database"] == "app"}
        assert {int(port) for port in ports} <= {int(port) for port in nodes}


@pytest.mark.parametrize("startup", [{"options": "-c pgshunt.shard=s1 -c work_mem=9MB"},
                                     {"pgshunt.shard": "s1", "work_mem": "9MB"}], ids=["options", "parameters"])
def test_pgshunt_settings_at_startup(cluster, data, startup):
    """They are the session's from the first statement on, RESET goes back to them, and no server hears of them."""
    with Raw(data, database="app", **startup) as raw:
        def value(sql):
            return [row[0].decode() for row in rows(raw.ask(query(sql)))][0]
        assert value("SHOW pgshunt.shard") == "s1"
        assert {value("SELECT inet_server_port()") for _ in range(3)} <= ports_of(data, "s1")
        assert value("SHOW work_mem") == "9MB"
        assert value("SELECT count(*) FROM pg_settings WHERE name LIKE 'pgshunt%'") == "0"
        for back in ("RESET pgshunt.shard", "SET pgshunt.shard TO DEFAULT", "RESET ALL", "DISCARD ALL"):
            raw.ask(query("SET pgshunt.shard = 's0'"))
            assert value("SELECT inet_server_port()") in ports_of(data, "s0")
            raw.ask(query(back))
            assert value("SHOW pgshunt.shard") == "s1", back
            assert value("SELECT inet_server_port()") in ports_of(data, "s1"), back


def ports_of(proxy, shard):
    return {str(row["port"]) for row in proxy.show("NODES") if row["shard"] == shard and row["database"] == "app"}


def test_pgshunt_key_at_startup(data):
    with closing(data.connect3(options=r"-c pgshunt.key=it's\ a\\b")) as client:
        assert client.execute("SHOW pgshunt.key").fetchone()[0] == r"it's a\b"
    with closing(data.connect(options="-c pgshunt.key=42")) as client:
        client.cursor().execute("SET pgshunt.key = '7'")
        client.cursor().execute("RESET pgshunt.key")
        assert one(client, "SHOW pgshunt.key") == "42"
        assert "pgshunt.key = 42" in explain(client, "SELECT name FROM users")


@pytest.mark.parametrize("option, told", [("pgshunt.shard=s7", 'there is no shard "s7"'),
                                          ("pgshunt.nothing=1", 'unrecognized configuration parameter "pgshunt.nothing"'),
                                          ("pgshunt.version=1", 'unrecognized configuration parameter "pgshunt.version"')])
def test_wrong_pgshunt_settings_are_refused_at_login(data, option, told):
    with pytest.raises(psycopg2.OperationalError) as refused:
        data.connect(options=f"-c {option}")
    assert told in str(refused.value)


# ---- one Postgres and pgshunt, statement by statement ----

# name: (startup parameters, statements). Between them, outside transactions, another client with other settings
# uses the only server connection.
SEQUENCES = {
    "list values": ({}, ['SET search_path = a, "B", \'\'', "SHOW search_path", "SET search_path TO 'a, \"B\"'",
                         "SHOW search_path", "SET datestyle = German, DMY", "SHOW datestyle",
                         "SET search_path TO DEFAULT", "SHOW search_path"]),
    "units and numbers": ({}, ["SET work_mem = 8192", "SHOW work_mem", "SET statement_timeout = '1.5s'",
                               "SHOW statement_timeout", "SET seq_page_cost = 1.25", "SHOW seq_page_cost",
                               "SET random_page_cost TO 1e1", "SHOW random_page_cost",
                               "SET extra_float_digits = -3", "SHOW extra_float_digits",
                               "SET enable_seqscan = off", "SHOW enable_seqscan", "SET geqo = true", "SHOW geqo"]),
    "own names": ({}, ["SET myapp.user_id = 42", "SHOW myapp.user_id", "SET MyApp.Name TO 'it''s \\ \"x\"; --'",
                       "SELECT current_setting('myapp.name')", "RESET myapp.user_id", "SHOW myapp.user_id",
                       "SET \"odd\".\"name\" = 'x'", "SHOW odd.name", "SELECT current_setting('no.such', true)"]),
    "backslashes under both rules": ({}, ["SET standard_conforming_strings = off", "SET application_name = 'a\\\\b'",
                                          "SHOW application_name", "SET standard_conforming_strings = on",
                                          "SHOW application_name", "SET application_name = 'c\\d'",
                                          "SET standard_conforming_strings = off", "SHOW application_name"]),
    "time zones": ({}, ["SET TIME ZONE 'Asia/Tokyo'", "SHOW timezone", "SET TIME ZONE -8", "SHOW timezone",
                        "SET TIME ZONE INTERVAL '+02:30' HOUR TO MINUTE", "SHOW timezone", "SET TIME ZONE LOCAL",
                        "SHOW timezone", "SET timezone TO 'utc'", "SHOW timezone", "SET TIME ZONE DEFAULT"]),
    "encodings": ({}, ["SET NAMES 'LATIN1'", "SHOW client_encoding", "SET NAMES DEFAULT", "SHOW client_encoding",
                       "SET client_encoding TO 'sql_ascii'", "SHOW client_encoding", "RESET client_encoding"]),
    "session characteristics": ({}, [
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY, DEFERRABLE",
        "SHOW default_transaction_isolation", "SHOW default_transaction_read_only",
        "SHOW default_transaction_deferrable", "SHOW transaction_isolation",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE, NOT DEFERRABLE, ISOLATION LEVEL SERIALIZABLE",
        "SHOW default_transaction_isolation", "SHOW default_transaction_read_only",
        "SHOW default_transaction_deferrable", "BEGIN",
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED", "ROLLBACK",
        "SHOW default_transaction_isolation"]),
    "who one is": ({}, ["SET ROLE app", "SELECT current_user, session_user", "SET work_mem = '2MB'",
                        "SELECT current_user, current_setting('work_mem')", "SET SESSION AUTHORIZATION app",
                        "SELECT current_user, session_user", "SET ROLE app", "SELECT current_user, session_user",
                        "RESET SESSION AUTHORIZATION", "SELECT current_user, session_user", "SET ROLE app",
                        "RESET ALL", "SELECT current_user", "SHOW work_mem", "SET ROLE NONE", "SELECT current_user",
                        "SET LOCAL ROLE app", "SELECT current_user"]),
    "who one is, and more than that one may": ({}, ["SET log_min_messages = 'error'", "SET ROLE app",
                                                    "SHOW log_min_messages", "SET log_min_messages = 'info'",
                                                    "SHOW log_min_messages", "RESET ROLE", "RESET log_min_messages",
                                                    "SHOW log_min_messages"]),
    "who one is, in a transaction": ({}, ["BEGIN", "SET ROLE app", "SELECT current_user", "ROLLBACK",
                                          "SELECT current_user", "BEGIN", "SET LOCAL ROLE app", "SELECT current_user",
                                          "COMMIT", "SELECT current_user", "BEGIN", "SET ROLE app", "COMMIT",
                                          "SELECT current_user"]),
    "startup parameters are what RESET goes back to": (
        {"work_mem": "9MB", "TimeZone": "asia/tokyo", "options": "-c statement_timeout=7s --lock-timeout=3s"},
        ["SHOW work_mem", "SHOW timezone", "SHOW statement_timeout", "SHOW lock_timeout", "SET work_mem = '2MB'",
         "RESET work_mem", "SHOW work_mem", "SET statement_timeout = 0", "RESET ALL", "SHOW statement_timeout", "SHOW timezone", "SET lock_timeout = 0",
         "DISCARD ALL", "SHOW lock_timeout", "SHOW work_mem"]),
    "... in a transaction too": (
        {"work_mem": "9MB", "application_name": "mine"},
        ["BEGIN", "SET work_mem = '2MB'", "SAVEPOINT a", "RESET work_mem", "SHOW work_mem", "ROLLBACK TO a",
         "SHOW work_mem", "RESET ALL", "SHOW work_mem", "SHOW application_name", "ROLLBACK", "SHOW work_mem",
         "BEGIN", "SET work_mem TO DEFAULT", "SHOW work_mem", "COMMIT", "SHOW work_mem", "SHOW application_name"]),
    "SET LOCAL over SET over SET LOCAL": ({}, [
        "SET work_mem = '2MB'", "BEGIN", "SET LOCAL work_mem = '3MB'", "SHOW work_mem", "SET work_mem = '4MB'",
        "SHOW work_mem", "SET LOCAL work_mem = '5MB'", "SHOW work_mem", "COMMIT", "SHOW work_mem", "BEGIN",
        "SET LOCAL work_mem = '6MB'", "COMMIT", "SHOW work_mem", "SET LOCAL work_mem = '7MB'", "SHOW work_mem"]),
    "savepoints in savepoints": ({}, [
        "BEGIN", "SET work_mem = '2MB'", "SAVEPOINT a", "SET work_mem = '3MB'", "SAVEPOINT b", "SET work_mem = '4MB'",
        "RELEASE b", "SHOW work_mem", "ROLLBACK TO a", "SHOW work_mem", "SAVEPOINT a", "SET work_mem = '5MB'",
        "ROLLBACK TO a", "RELEASE a", "SHOW work_mem", "COMMIT", "SHOW work_mem"]),
    "an error takes it back": ({}, ["BEGIN", "SET work_mem = '2MB'", "SELECT 1/0", "SHOW work_mem", "COMMIT",
                                    "SHOW work_mem", "BEGIN", "SAVEPOINT a", "SET work_mem = '3MB'", "SELECT 1/0",
                                    "ROLLBACK TO a", "SHOW work_mem", "SET work_mem = '4MB'", "COMMIT", "SHOW work_mem"]),
    "set_config()": ({}, [
        "SELECT set_config('work_mem', '2MB', false)", "SHOW work_mem", "BEGIN",
        "SELECT set_config('work_mem', '3MB', true), set_config('myapp.x', 'y', true)", "SHOW work_mem", "COMMIT",
        "SHOW work_mem", "SELECT current_setting('myapp.x', true)", "SELECT set_config('work_mem', '9', true)",
        "SHOW work_mem", "SELECT set_config('search_path', 'a, \"B\", public', false)", "SHOW search_path",
        "SELECT set_config('work_mem', NULL, false)", "SHOW work_mem", "SELECT set_config('TimeZone', 'utc', false)",
        "SHOW timezone", "SELECT set_config('work_mem', '7MB', false) WHERE false", "SHOW work_mem",
        "BEGIN", "SELECT set_config('work_mem', '8MB', false)", "ROLLBACK", "SHOW work_mem",
        "SELECT set_config('work_mem', 'much', false)", "SHOW work_mem"]),
    "inside functions": ({}, [
        "DO $$ BEGIN PERFORM set_config('TimeZone', 'Asia/Tokyo', false); END $$", "SHOW timezone",
        "DO $$ BEGIN SET LOCAL TimeZone = 'UTC'; END $$", "SHOW timezone", "BEGIN",
        "DO $$ BEGIN SET application_name = 'by do'; END $$", "ROLLBACK", "SHOW application_name",
        "DO $$ BEGIN SET application_name = 'by do'; END $$", "SHOW application_name", "RESET application_name",
        "SHOW application_name", "RESET timezone", "SHOW timezone"]),
    "a transaction's own settings": ({}, ["BEGIN", "SET transaction_isolation = 'serializable'",
                                          "SHOW transaction_isolation", "COMMIT", "SHOW transaction_isolation",
                                          "SET transaction_read_only = on", "SHOW transaction_read_only", "BEGIN",
                                          "SET TRANSACTION READ ONLY", "SHOW transaction_read_only", "COMMIT",
                                          "SHOW transaction_read_only"]),
    "nonsense": ({}, ["SET work_mem = '-1'", "SET TimeZone = 'Nowhere'", "SET client_encoding = 'klingon'",
                      "SET no_such = 1", "SET search_path = 1", "SET ROLE nobody_at_all", "SET max_connections = 5",
                      "RESET no_such", "SET work_mem = '2MB', '3MB'", "SHOW work_mem", "SHOW timezone",
                      "SELECT current_user"]),
    "in one message": ({}, ["SET work_mem = '2MB'; SET timezone = 'UTC'; SELECT 1", "SHOW work_mem", "SHOW timezone",
                            "BEGIN; SET work_mem = '3MB'; SAVEPOINT a; SET work_mem = '4MB'; ROLLBACK TO a; COMMIT",
                            "SHOW work_mem", "SET work_mem = '5MB'; SELECT 1/0", "SHOW work_mem"]),
}

OTHER = ("SET work_mem = '64MB'", "SET TimeZone = 'America/Lima'", "SET application_name = 'the other'",
         "SET search_path = elsewhere", "SET DateStyle = 'SQL, DMY'", "SET myapp.user_id = 'other'",
         "SET statement_timeout = '77s'", "SET client_encoding = 'LATIN9'", "SET myapp.x = 'other'")


def play(raw, statements, between=None):
    found = []
    for statement in statements:
        answer = raw.ask(query(statement))
        found.append((statement, [comparable(*item) for item in answer]))
        if between and answer[-1][1] == b"I":
            between()
    return found


def without_order(played, heard):
    """Each answer without its ParameterStatus, and what they have changed: 13 tells them at once, 16 and later in
    another order, some of them twice."""
    known, found = dict(heard), []
    for statement, answer in played:
        told = dict(item[1].decode().split("\0")[:2] for item in answer if item[0] == "S")
        changed = {name: value for name, value in told.items() if known.get(name) != value}
        known.update(told)
        found.append((statement, [item for item in answer if item[0] != "S"], changed))
    return found


@pytest.mark.parametrize("name", SEQUENCES)
def test_as_one_postgres_has_it(cluster, narrow, name):
    startup, statements = SEQUENCES[name]
    exact = cluster.shards[0].primary.value("SHOW server_version_num").startswith("15")
    with Raw(Direct(cluster.shards[0].primary), **startup) as raw:
        heard = dict(raw.parameters)
        expected = play(raw, statements)
    with Raw(narrow) as other, Raw(narrow, **startup) as raw:
        for setting in OTHER:
            assert error_of(other.ask(query(setting))) is None
        assert raw.parameters == heard

        def between():
            assert rows(other.ask(query("SELECT current_setting('work_mem'), current_setting('TimeZone')"))) == \
                [[b"64MB", b"America/Lima"]]

        between()
        answers = play(raw, statements, between)
        assert answers == expected if exact else without_order(answers, heard) == without_order(expected, heard)
        assert other.ask(query("SHOW application_name"))[1][1][6:] == b"the other"


def test_a_wrong_startup_setting_is_fatal_and_harms_nobody(narrow, cluster):
    for parameters in ({"TimeZone": "Nowhere"}, {"options": "-c work_mem=much"}, {"options": "-c no_such=1"},
                       {"options": "-x"}, {"role": "nobody_at_all"}):
        refusals = []
        for target in (Direct(cluster.shards[0].primary), narrow):
            with Raw(target, login=False) as raw:
                raw.send(startup_packet(**parameters))
                messages = [raw.read()]
                while messages[-1][0] != "E":
                    messages.append(raw.read())
                refusals.append({key: value for key, value in fields(messages[-1][1]).items() if key in "SVCM"})
                assert raw.at_end()
        assert refusals[0] == refusals[1], parameters
    with closing(narrow.connect()) as client:
        assert one(client, "SELECT 1") == 1 and setting(client, "work_mem") == "4MB"


def test_what_cannot_be_carried_over_stops_the_statement_and_not_the_pool(cluster):
    primary = cluster.shards[0].primary
    primary.sql("CREATE ROLE passing; CREATE TABLE written (who text); GRANT INSERT ON written TO public")
    with Proxy(cluster, dbname="plain", databases=[{"name": "plain", "shards": cluster.shard_config()[:1]}],
               options={"pool": {"size": 1}}) as proxy, closing(proxy.connect()) as client, \
            closing(proxy.connect()) as other:
        client.cursor().execute("SET ROLE passing")
        assert fetch(other, "SELECT current_user, txid_current()")[0][0] == "postgres"  # of the primary
        primary.sql("REVOKE INSERT ON written FROM public; ALTER ROLE passing RENAME TO renamed")
        for _ in range(3):
            with pytest.raises(psycopg2.Error) as caught:
                client.cursor().execute("INSERT INTO written VALUES (current_user)")
            assert "passing" in str(caught.value) and "DISCARD ALL" in caught.value.diag.message_hint
            assert one(other, "SELECT current_user") == "postgres"
        with pytest.raises(psycopg2.Error):
            client.cursor().execute("BEGIN")
            client.cursor().execute("INSERT INTO written VALUES (current_user)")
        client.cursor().execute("ROLLBACK")
        assert primary.sql("SELECT count(*) FROM written")[0][0] in (0, "0")  # nothing ran as somebody else
        client.cursor().execute("DISCARD ALL")
        assert one(client, "SELECT current_user") == "postgres"
    primary.sql("DROP TABLE written; DROP ROLE renamed")


def test_defaults_of_roles_and_databases(cluster):
    primary = cluster.shards[0].primary
    primary.sql("CREATE ROLE tuned LOGIN; ALTER ROLE tuned SET work_mem = '21MB'; "
                "ALTER ROLE tuned SET TimeZone = 'Asia/Tokyo'")
    try:
        with Proxy(cluster, dbname="plain", databases=[{"name": "plain", "shards": cluster.shard_config()[:1]}],
                   options={"pool": {"size": 1}}) as proxy, closing(proxy.connect(user="tuned")) as client:
            assert client.get_parameter_status("TimeZone") == "Asia/Tokyo"
            assert setting(client, "work_mem") == "21MB"
            client.cursor().execute("SET work_mem = '22MB'")
            client.cursor().execute("RESET work_mem")
            assert setting(client, "work_mem") == "21MB"
            client.cursor().execute("RESET ALL")
            assert setting(client, "TimeZone") == "Asia/Tokyo"
    finally:
        primary.sql("DROP ROLE tuned")


def test_clients_hear_of_servers_whose_own_values_are_other(cluster):
    """Two shards with other defaults: a client hears which holds, ahead of the answer's end."""
    for shard, zone in zip(cluster.shards, ("Asia/Tokyo", "America/Lima")):
        shard.primary.sql(f"ALTER ROLE app SET TimeZone = '{zone}'")
    cluster.sync()
    try:
        with Proxy(cluster) as proxy, Raw(proxy, user="app") as client, Raw(proxy, user="app") as fixed:
            fixed.ask(query("SET TimeZone = 'Europe/Vienna'"))
            names = [shard["name"] for shard in cluster.shard_config()]
            for name, zone in ((names[1], b"America/Lima"), (names[0], b"Asia/Tokyo"), (names[1], b"America/Lima")):
                answer = client.ask(query(f"/* pgshunt: shard={name} */ SELECT current_setting('TimeZone')"))
                assert rows(answer) == [[zone]]
                assert [body for kind, body in answer if kind == "S"] == [b"TimeZone\0" + zone + b"\0"] or \
                    zone == b"Asia/Tokyo" and client.parameters["TimeZone"] == "Asia/Tokyo"
                answer = fixed.ask(query(f"/* pgshunt: shard={name} */ SELECT current_setting('TimeZone')"))
                assert rows(answer) == [[b"Europe/Vienna"]] and "S" not in kinds(answer)
    finally:
        for shard in cluster.shards:
            shard.primary.sql("ALTER ROLE app RESET TimeZone")


def test_settings_go_to_every_shard_of_a_transaction(data):
    """Also to those that join late, and with what was said in between."""
    names = [shard["name"] for shard in data.config["databases"][0]["shards"]]
    with closing(data.connect(options="-c work_mem=9MB")) as client:
        cursor = client.cursor()

        def at(shard, name):
            return one(client, f"/* pgshunt: shard={shard} */ SELECT current_setting('{name}', true)")

        cursor.execute("BEGIN")
        cursor.execute("SET LOCAL myapp.a = 'first'")
        cursor.execute("SELECT set_config('myapp.b', 'x', true), set_config('myapp.c', 'y', false)")
        assert at(names[0], "myapp.b") == "x"
        cursor.execute("SAVEPOINT s")
        cursor.execute("SET myapp.a = 'second'")
        assert (at(names[1], "myapp.a"), at(names[1], "myapp.b"), at(names[1], "myapp.c")) == ("second", "x", "y")
        cursor.execute("ROLLBACK TO s")
        assert at(names[0], "myapp.a") == at(names[1], "myapp.a") == "first"
        cursor.execute("RESET work_mem")
        assert at(names[0], "work_mem") == at(names[1], "work_mem") == "9MB"
        cursor.execute("COMMIT")
        for name in names:
            assert at(name, "myapp.c") == "y" and not at(name, "myapp.a") and at(name, "work_mem") == "9MB"
