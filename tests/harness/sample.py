"""The sample schema and data that tests share: users and orders sharded, countries everywhere, notes unsharded."""
import psycopg2

from .process import wait_until

USERS = {"name": "users", "type": "bigint",
         "tables": [{"name": "users", "key": "id"}, {"name": "orders", "key": "user_id"}]}

SCHEMA = """
CREATE TABLE users (id bigint PRIMARY KEY, name text NOT NULL, country text, born date,
                    balance numeric(12,2) NOT NULL DEFAULT 0);
CREATE TABLE orders (id bigint NOT NULL, user_id bigint NOT NULL, amount numeric(10,2) NOT NULL,
                     item text, placed timestamptz NOT NULL DEFAULT '2026-01-01 00:00:00+00',
                     PRIMARY KEY (user_id, id));
CREATE TABLE countries (code text PRIMARY KEY, name text NOT NULL);
CREATE TABLE notes (id int PRIMARY KEY, body text);
"""


def statements(script):
    return [part.strip() for part in script.split(";") if part.strip()]


def drop_tables(cluster):
    for node in cluster.primaries:
        node.sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public; GRANT ALL ON SCHEMA public TO PUBLIC")


def wait_schema(proxy):
    """Waits until the proxy's router has seen the new tables: `SELECT *` with a sort is planned then."""
    def known():
        try:
            proxy.sql("SELECT * FROM users ORDER BY name")
            return True
        except psycopg2.Error:
            return False

    wait_until(known, 10.0, "tables known to the proxy")


COUNTRIES = [("at", "Austria"), ("de", "Germany"), ("fr", "France"), ("jp", "Japan")]


def user_row(number):
    country = None if number % 7 == 0 else COUNTRIES[number % 4][0]
    return (number, f"user {number:04d}", country, f"19{50 + number % 50}-0{1 + number % 9}-11",
            f"{number * 13 % 1000}.{number % 100:02d}")


def order_row(number):
    return (number, 1 + number % 200, f"{number * 7 % 500}.50", ["pen", "ink", "desk", "lamp"][number % 4])


def load(connection):
    cursor = connection.cursor()

    def insert(table, columns, rows):
        one = "(" + ", ".join(["%s"] * len(rows[0])) + ")"
        for start in range(0, len(rows), 100):
            part = rows[start:start + 100]
            cursor.execute(f"INSERT INTO {table} ({columns}) VALUES " + ", ".join([one] * len(part)),
                           [value for row in part for value in row])
            assert cursor.rowcount == len(part)

    insert("users", "id, name, country, born, balance", [user_row(number) for number in range(1, 201)])
    insert("orders", "id, user_id, amount, item", [order_row(number) for number in range(1, 1001)])
    insert("countries", "code, name", COUNTRIES)
    insert("notes", "id, body", [(number, f"note {number}") for number in range(1, 6)])
