"""Each row lives on its shard, a key finds it there, and statements without one go everywhere."""
import uuid
from contextlib import closing

import psycopg2
import pytest

from harness.sample import drop_tables
from harness import Proxy, wait_until
from support import explain, fetch, one, refused

pytestmark = pytest.mark.core


@pytest.fixture
def app(data):
    with closing(data.connect()) as connection:
        yield connection


def ids_by_shard(cluster, table="users", column="id"):
    return [{row[0] for row in node.sql(f"SELECT {column} FROM {table}")} for node in cluster.primaries]


def test_rows_are_spread_and_none_is_twice(cluster, data):
    first, second = ids_by_shard(cluster)
    assert first and second and not first & second
    assert first | second == set(range(1, 201))
    assert 60 < len(first) < 140


def test_tables_of_a_keyspace_share_their_shards(cluster, data):
    """An order lies where its user lies."""
    users = ids_by_shard(cluster)
    orders = ids_by_shard(cluster, "orders", "user_id")
    assert [found <= wanted for found, wanted in zip(orders, users)] == [True, True]
    assert sum(node.value("SELECT count(*) FROM orders") for node in cluster.primaries) == 1000


def test_reference_table_is_whole_everywhere(cluster, data):
    rows = [sorted(node.sql("SELECT code, name FROM countries")) for node in cluster.primaries]
    assert rows[0] == rows[1] and len(rows[0]) == 4


def test_unsharded_table_lives_on_the_first_shard(cluster, data):
    assert [node.value("SELECT count(*) FROM notes") for node in cluster.primaries] == [5, 0]


@pytest.mark.parametrize("number", [1, 2, 3, 50, 100, 199, 200])
def test_point_query_finds_its_shard(cluster, data, app, number):
    home = next(index for index, ids in enumerate(ids_by_shard(cluster)) if number in ids)
    assert fetch(app, "SELECT id, name FROM users WHERE id = %s", (number,)) == [(number, f"user {number:04d}")]
    port = one(app, "SELECT inet_server_port() FROM users WHERE id = %s", (number,))
    assert cluster.node_at(port).shard == home
    plan = explain(app, "SELECT * FROM users WHERE id = %s", (number,))
    assert f"s{home}" in plan and f"s{1 - home}" not in plan


WHERE_FORMS = [
    "id = {id}", "{id} = id", "users.id = {id}", "id = '{id}'", "id = {id}::bigint", "id = {id}::int",
    "id = CAST('{id}' AS bigint)", "id = {id} AND name <> ''", "(id = {id}) AND (country = 'x' OR true)",
    "id IN ({id})",
]


@pytest.mark.parametrize("where", WHERE_FORMS)
def test_key_is_found_in_every_spelling(app, where):
    sql = "SELECT id FROM users WHERE " + where.format(id=42)
    assert fetch(app, sql) == [(42,)]
    assert "direct" in explain(app, sql)


@pytest.mark.parametrize("form", ["%s", "%b", "%t"])
@pytest.mark.parametrize("number", [1, 7, 127, 128, 200])
def test_parameters_in_text_and_binary(data, form, number):
    with data.connect3() as connection:
        found = connection.execute(f"SELECT id, name FROM users WHERE id = {form}", (number,)).fetchall()
        assert found == [(number, f"user {number:04d}")]


@pytest.mark.parametrize("number", [0, -1, 32767, 32768, 2147483647, 2147483648, -2147483649,
                                    9223372036854775807, -9223372036854775808])
def test_integers_of_every_width_land_alike(cluster, data, app, number):
    """Written as a literal, found as a text and as a binary parameter (int2, int4, int8 by its size)."""
    app.cursor().execute(f"INSERT INTO users (id, name) VALUES ({number}, 'wide')")
    cluster.sync()  # another session reads it below
    try:
        assert fetch(app, f"SELECT id FROM users WHERE id = {number}") == [(number,)]
        cluster.sync()  # other clients read from replicas
        with data.connect3() as connection:
            for form in ("%s", "%b", "%t", "%b::bigint"):
                sql = f"SELECT id FROM users WHERE id = {form}"
                assert connection.execute(sql, (number,)).fetchall() == [(number,)], form
    finally:
        app.cursor().execute(f"DELETE FROM users WHERE id = {number}")


def test_in_list_over_several_shards(app):
    assert fetch(app, "SELECT id FROM users WHERE id IN (3, 1, 2, 200, 77) ORDER BY id") == [
        (1,), (2,), (3,), (77,), (200,)]


def test_join_within_one_key(app, oracle):
    sql = ("SELECT u.name, o.id, o.amount FROM users u JOIN orders o ON o.user_id = u.id "
           "WHERE u.id = 17 ORDER BY o.id")
    assert fetch(app, sql) == fetch(oracle, sql)


def test_join_with_a_reference_table(app, oracle):
    sql = ("SELECT u.id, c.name FROM users u JOIN countries c ON c.code = u.country WHERE u.id = 17")
    assert fetch(app, sql) == fetch(oracle, sql)


def test_multi_row_insert_is_split(cluster, app):
    cursor = app.cursor()
    cursor.execute("INSERT INTO users (id, name) VALUES " + ", ".join(f"({i}, 'split')" for i in range(1000, 1040)))
    assert cursor.rowcount == 40
    per_shard = [node.value("SELECT count(*) FROM users WHERE id BETWEEN 1000 AND 1039")
                 for node in cluster.primaries]
    assert sum(per_shard) == 40 and all(per_shard)
    cursor.execute("DELETE FROM users WHERE id BETWEEN 1000 AND 1039")
    assert cursor.rowcount == 40


def test_multi_row_insert_with_parameters_and_returning(cluster, data):
    with data.connect3() as connection:
        cursor = connection.execute(
            "INSERT INTO users (id, name, balance) VALUES (%s, %s, %s), (%s, %s, 5), (%s, upper(%s), %s) "
            "RETURNING id, name", (2001, "a", 1, 2002, "b", 2003, "c", 3))
        assert sorted(cursor.fetchall()) == [(2001, "a"), (2002, "b"), (2003, "C")]
        assert cursor.rowcount == 3
        assert connection.execute("SELECT sum(balance) FROM users WHERE id >= 2001").fetchone()[0] == 9
        assert connection.execute("DELETE FROM users WHERE id >= 2001").rowcount == 3


def test_insert_with_the_key_not_first(cluster, app):
    cursor = app.cursor()
    cursor.execute("INSERT INTO users (name, balance, id) VALUES ('last', 1, 3001)")
    assert fetch(app, "SELECT name FROM users WHERE id = 3001") == [("last",)]
    cursor.execute("DELETE FROM users WHERE id = 3001")


def test_insert_without_column_list(cluster, app):
    app.cursor().execute("INSERT INTO users VALUES (3002, 'plain', 'at', '2000-01-01', 0)")
    assert fetch(app, "SELECT name FROM users WHERE id = 3002") == [("plain",)]
    app.cursor().execute("DELETE FROM users WHERE id = 3002")


def test_update_and_delete_by_key(cluster, app):
    cursor = app.cursor()
    cursor.execute("INSERT INTO users (id, name) VALUES (3003, 'x')")
    cursor.execute("UPDATE users SET name = 'y' WHERE id = 3003")
    assert cursor.rowcount == 1
    cursor.execute("DELETE FROM users WHERE id = 3003 RETURNING name")
    assert cursor.fetchall() == [("y",)]


def test_update_and_delete_without_a_key_reach_all_shards(cluster, app):
    cursor = app.cursor()
    cursor.execute("INSERT INTO users (id, name) VALUES " + ", ".join(f"({i}, 'mass')" for i in range(4000, 4030)))
    cursor.execute("UPDATE users SET balance = 7 WHERE name = 'mass'")
    assert cursor.rowcount == 30
    assert one(app, "SELECT sum(balance) FROM users WHERE name = 'mass'") == 210
    cursor.execute("DELETE FROM users WHERE name = 'mass' RETURNING id")
    assert sorted(row[0] for row in cursor.fetchall()) == list(range(4000, 4030))


def test_reference_table_is_written_everywhere(cluster, app):
    cursor = app.cursor()
    cursor.execute("INSERT INTO countries VALUES ('xx', 'Nowhere')")
    assert cursor.rowcount == 1
    cursor.execute("UPDATE countries SET name = 'Somewhere' WHERE code = 'xx'")
    assert cursor.rowcount == 1
    assert [node.value("SELECT name FROM countries WHERE code = 'xx'") for node in cluster.primaries] == [
        "Somewhere", "Somewhere"]
    cursor.execute("DELETE FROM countries WHERE code = 'xx'")
    assert cursor.rowcount == 1
    assert [node.value("SELECT count(*) FROM countries") for node in cluster.primaries] == [4, 4]


def test_schema_changes_reach_all_shards(cluster, data, app):
    cursor = app.cursor()
    cursor.execute("CREATE TABLE made (id int PRIMARY KEY, v text)")
    cursor.execute("ALTER TABLE users ADD COLUMN extra int DEFAULT 3")
    cursor.execute("CREATE INDEX users_extra ON users (extra)")
    for node in cluster.primaries:
        assert node.value("SELECT to_regclass('made') IS NOT NULL")
        assert node.value("SELECT count(*) FROM users WHERE extra = 3") > 0
        assert node.value("SELECT to_regclass('users_extra') IS NOT NULL")
    assert one(app, "SELECT sum(extra) FROM users") == 600
    cursor.execute("DROP INDEX users_extra")
    cursor.execute("CREATE INDEX CONCURRENTLY users_extra ON users (extra)")
    cursor.execute("ALTER TABLE users DROP COLUMN extra")
    cursor.execute("DROP TABLE made")
    for node in cluster.primaries:
        assert node.value("SELECT to_regclass('made') IS NULL AND to_regclass('users_extra') IS NULL")


def test_failed_schema_change_fails_as_in_postgres(cluster, app):
    with pytest.raises(psycopg2.errors.DuplicateTable):
        app.cursor().execute("CREATE TABLE users (id int)")
    assert one(app, "SELECT 1") == 1


def test_error_on_one_shard_of_a_fan_out(cluster, app):
    """Division by zero only where id 1 lives: the client gets that error and goes on."""
    with pytest.raises(psycopg2.errors.DivisionByZero):
        fetch(app, "SELECT 1 / (id - 1) FROM users")
    assert one(app, "SELECT count(*) FROM users") == 200


def test_duplicate_key_in_a_split_insert(cluster, app):
    with pytest.raises(psycopg2.errors.UniqueViolation):
        app.cursor().execute("INSERT INTO users (id, name) VALUES " +
                             ", ".join(f"({i}, 'dup')" for i in range(190, 230)))
    # Nothing of the statement may stay: it is one statement for the client.
    assert one(app, "SELECT count(*) FROM users") == 200


def test_the_cancels_of_a_failed_fan_out_hit_nothing_that_follows(data):
    """What the other shards still do is cancelled; the transaction's next statement on them must not be."""
    rows = ", ".join(f"({i}, 'dup')" for i in range(190, 230))
    with closing(data.connect()) as connection:
        connection.autocommit = False
        cursor = connection.cursor()
        for _ in range(150):
            cursor.execute("SAVEPOINT here")
            with pytest.raises(psycopg2.errors.UniqueViolation):
                cursor.execute(f"INSERT INTO users (id, name) VALUES {rows}")
            cursor.execute("ROLLBACK TO here; SELECT count(*) FROM users")
            assert cursor.fetchone()[0] == 200
        connection.rollback()


REFUSED = [
    "SELECT u.name, o.id FROM users u JOIN orders o ON o.id = u.id",
    "SELECT name, row_number() OVER (ORDER BY id) FROM users",
    "SELECT id FROM users UNION SELECT user_id FROM orders",
    "WITH big AS (SELECT user_id, sum(amount) AS total FROM orders GROUP BY user_id) SELECT max(total) FROM big",
    "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY amount) FROM orders",
    "SELECT name FROM users WHERE id IN (SELECT user_id FROM orders WHERE amount > 400)",
    "INSERT INTO users (name) VALUES ('no key')",
    "SELECT * FROM users ORDER BY id LIMIT 3 FOR UPDATE",
]


@pytest.mark.parametrize("sql", REFUSED)
def test_refused_with_a_hint_or_answered_rightly(app, oracle, sql):
    """What is not supported yet says so; should a later version support it, the answer must be Postgres'."""
    try:
        found = fetch(app, sql)
    except psycopg2.Error as error:
        if error.pgcode in ("23502",):
            return  # the server itself refused: NULL in the key column
        assert error.pgcode == "0A000", error
        assert error.diag.message_hint
    else:
        assert sql.startswith("SELECT") or sql.startswith("WITH"), "a write like this was not refused"
        assert sorted(found, key=str) == sorted(fetch(oracle, sql), key=str)
    assert one(app, "SELECT count(*) FROM users") == 200


def homes(cluster, numbers):
    """The shard that each of these user ids belongs to, found by writing them."""
    cluster_ids = ids_by_shard(cluster)
    return {number: next(index for index, ids in enumerate(cluster_ids) if number in ids) for number in numbers}


def test_update_of_the_key(cluster, app):
    """A row is where its key is looked for, whatever that was before."""
    cursor = app.cursor()
    numbers = range(500000, 500020)
    cursor.execute("INSERT INTO users (id, name) VALUES " + ", ".join(f"({i}, 'moved')" for i in numbers))
    home = homes(cluster, numbers)
    cursor.execute("DELETE FROM users WHERE id >= 500000")
    cursor.execute("INSERT INTO users (id, name) VALUES (500000, 'moving')")
    near = next(i for i in numbers[1:] if home[i] == home[500000])
    far = next(i for i in numbers[1:] if home[i] != home[500000])
    now = 500000
    for new, sql in [(near, f"UPDATE users SET id = {near} WHERE id = {now}"),
                     (far, f"UPDATE users SET id = {far} WHERE id = {near}"),
                     (far + 1, f"UPDATE users SET id = id + 1 WHERE id = {far}"),
                     (near, f"UPDATE users SET id = {near} WHERE name = 'moving'")]:
        cursor.execute(sql)
        assert cursor.statusmessage == "UPDATE 1"
        assert fetch(app, "SELECT id FROM users WHERE id >= 500000") == [(new,)]
        assert fetch(app, f"SELECT name FROM users WHERE id = {new}") == [("moving",)]
    cursor.execute(f"DELETE FROM users WHERE id = {near}")
    assert cursor.rowcount == 1


def test_refusal_leaves_no_trace_in_a_transaction(data):
    with data.connect3(autocommit=False) as connection:
        connection.execute("SELECT count(*) FROM users WHERE id = 1")
        with refused("0A000"):
            connection.execute("SELECT * FROM users LIMIT 5 FOR UPDATE")
        with refused("25P02", hint=False):
            connection.execute("SELECT 1")
        connection.rollback()
        assert connection.execute("SELECT name FROM users WHERE id = 1").fetchone() == ("user 0001",)


# ---- other key types ----

@pytest.fixture(scope="module")
def typed(cluster):
    drop_tables(cluster)
    keyspaces = [
        {"name": "documents", "type": "uuid", "tables": [{"name": "docs", "key": "id"}]},
        {"name": "tenants", "type": "text", "tables": [{"name": "tenants", "key": "slug"}]},
    ]
    with Proxy(cluster, keyspaces=keyspaces) as proxy:
        proxy.wait_nodes()
        proxy.sql("CREATE TABLE docs (id uuid PRIMARY KEY, body text)")
        proxy.sql("CREATE TABLE tenants (slug text PRIMARY KEY, n int)")
        wait_until(lambda: proxy.value("SELECT count(*) FROM docs") == 0, 10.0, "table known")
        yield proxy
    drop_tables(cluster)


def test_uuid_keys(cluster, typed):
    numbers = [uuid.UUID(int=i * 0x1234567890abcdef1234567) for i in range(1, 41)]
    connection = typed.connect3()
    for number in numbers:
        connection.execute("INSERT INTO docs VALUES (%b, 'd')", (number,))
    parts = [{row[0] for row in node.sql("SELECT id::text FROM docs")} for node in cluster.primaries]
    assert all(parts) and not parts[0] & parts[1] and len(parts[0] | parts[1]) == 40
    for number in numbers:
        for form, value in (("%s", number), ("%b", number), ("%t", str(number)), ("%t", str(number).upper())):
            sql = f"SELECT count(*) FROM docs WHERE id = {form}"
            assert connection.execute(sql, (value,)).fetchone()[0] == 1, (sql, value)
        spelled = "{" + number.hex.upper() + "}"
        assert typed.value(f"SELECT count(*) FROM docs WHERE id = '{spelled}'") == 1
        assert typed.value(f"SELECT count(*) FROM docs WHERE id = '{number}'::uuid") == 1
    connection.close()


def test_text_keys(cluster, typed):
    words = ["a", "b", "", "Ärger", "日本語", "it's", "back\\slash", "trailing ", "x" * 5000] + [
        f"tenant-{i}" for i in range(31)]
    connection = typed.connect3()
    for number, word in enumerate(words):
        connection.execute("INSERT INTO tenants VALUES (%s, %s)", (word, number))
    parts = [{row[0] for row in node.sql("SELECT slug FROM tenants")} for node in cluster.primaries]
    assert all(parts) and not parts[0] & parts[1] and parts[0] | parts[1] == set(words)
    for number, word in enumerate(words):
        for form in ("%s", "%b", "%t"):
            sql = f"SELECT n FROM tenants WHERE slug = {form}"
            assert connection.execute(sql, (word,)).fetchall() == [(number,)], (sql, word)
        with closing(typed.connect()) as simple:  # psycopg2 puts it in as a literal, E'' where needed
            assert fetch(simple, "SELECT n FROM tenants WHERE slug = %s", (word,)) == [(number,)]
            assert fetch(simple, f"SELECT n FROM tenants WHERE slug = $q${word}$q$") == [(number,)]
    connection.close()


def test_a_value_that_is_no_key_is_judged_by_the_server(cluster, typed):
    with pytest.raises(psycopg2.errors.InvalidTextRepresentation):
        typed.sql("SELECT * FROM docs WHERE id = 'no uuid'")
