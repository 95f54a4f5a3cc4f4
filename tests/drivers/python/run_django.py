"""Django's ORM over psycopg2: migrations, relations, transactions, server-side cursors at their default."""
import datetime
import decimal
import io
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import django
from django.conf import settings

from cases import CLIENTS, DATABASE, HOST, JSON, PASSWORD, PORT, ROUNDS, SHARDED, TABLE, USER, case, main, raises


def database(name, **more):
    return {"ENGINE": "django.db.backends.postgresql", "HOST": HOST, "PORT": PORT, "USER": USER, "PASSWORD": PASSWORD,
            "NAME": name, "CONN_MAX_AGE": None, **more}


settings.configure(USE_TZ=True, TIME_ZONE="UTC", DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
                   INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions"],
                   DATABASES={"default": database(DATABASE), "sharded": database(SHARDED),
                              "wrong": database(DATABASE, PASSWORD="wrong"),
                              "named": database(DATABASE, OPTIONS={"application_name": "matrix"})})
django.setup()

from django.contrib.auth.models import Group, User  # noqa: E402
from django.contrib.postgres.fields import ArrayField  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection, connections, models, transaction, utils  # noqa: E402


class Row(models.Model):
    id = models.BigIntegerField(primary_key=True)
    who = models.IntegerField(null=True)
    body = models.TextField(null=True)

    class Meta:
        app_label, db_table, managed = "matrix", TABLE, False


class Shard(models.Model):
    id = models.BigIntegerField(primary_key=True)
    name = models.TextField()

    class Meta:
        app_label, db_table, managed = "matrix", "users", False


class Thing(models.Model):
    number = models.BigIntegerField()
    exact = models.DecimalField(max_digits=30, decimal_places=9)
    text = models.TextField()
    bytes = models.BinaryField()
    yes = models.BooleanField()
    at = models.DateTimeField()
    key = models.UUIDField()
    json = models.JSONField()
    array = ArrayField(models.IntegerField(null=True))
    nothing = models.TextField(null=True)

    class Meta:
        app_label, db_table = "matrix", "django_thing"


def execute(sql, values=None, using="default"):
    with connections[using].cursor() as cursor:
        cursor.execute(sql, values)
        return cursor.fetchall() if cursor.description else cursor.rowcount


@case
def connect_():
    assert execute("SHOW application_name", using="named") == [("matrix",)]
    assert "password authentication failed" in str(raises(utils.OperationalError, execute, "SELECT 1", None, "wrong"))


@case
def types():
    values = dict(number=-9007199254740993, exact=decimal.Decimal("12345678901234567890.123456789"),
                  text="Grüße 🐘 'x' \\", bytes=b"\0\1\xff", yes=True, key=uuid.uuid4(), json=JSON,
                  at=datetime.datetime(2026, 2, 3, 4, 5, 6, 789012, datetime.timezone.utc), array=[1, None, 3],
                  nothing=None)
    with connection.schema_editor() as editor:
        editor.create_model(Thing)
    try:
        key = Thing.objects.create(**values).pk
        found = Thing.objects.get(pk=key)
        for name, value in values.items():
            saved = getattr(found, name)
            assert (bytes(saved) if name == "bytes" else saved) == value, name
        assert Thing.objects.filter(json__a__1=2.5, array__contains=[3], key=values["key"]).count() == 1
    finally:
        with connection.schema_editor() as editor:
            editor.delete_model(Thing)


@case
def prepared():
    """Django has no prepared statements: the same query many times, in transactions and out of them."""
    for turn in range(12):
        assert execute("SELECT %s::int * 2", (turn,)) == [(turn * 2,)]
        with transaction.atomic():
            assert execute("SELECT %s::int * 2", (turn,)) == [(turn * 2,)]


@case
def transactions():
    with transaction.atomic():
        Row.objects.create(id=1, who=1, body="kept")
        raises(utils.IntegrityError, nested)
        raises(ZeroDivisionError, undone)
    assert Row.objects.get(id=1).body == "kept"
    with transaction.atomic():
        assert Row.objects.select_for_update().get(id=1).who == 1
    assert Row.objects.all().delete()[0] == 1


def nested():
    with transaction.atomic():
        Row.objects.create(id=1, who=1, body="twice")


def undone():
    with transaction.atomic():
        Row.objects.update(body="gone")
        raise ZeroDivisionError


@case
def errors():
    error = raises(utils.ProgrammingError, execute, "SELECT * FROM missing_table")
    assert error.__cause__.pgcode == "42P01"
    raises(utils.DataError, execute, "SELECT 1 / %s", (0,))
    raises(utils.IntegrityError, lambda: Row.objects.create(id=1, body="refused"))
    assert execute("SELECT 1") == [(1,)]


@case
def batch():
    Row.objects.bulk_create([Row(id=n, who=1, body=str(n)) for n in range(2500)], batch_size=500)
    rows = list(Row.objects.filter(id__lt=100))
    for row in rows:
        row.body = "changed"
    Row.objects.bulk_update(rows, ["body"])
    assert Row.objects.filter(body="changed").count() == 100
    Row.objects.all().delete()


@case
def cursor():
    """QuerySet.iterator() outside a transaction is a cursor WITH HOLD."""
    Row.objects.bulk_create(Row(id=n, who=1, body=str(n)) for n in range(1000))
    for _ in range(2):
        assert [row.id for row in Row.objects.order_by("id").iterator(chunk_size=100)] == list(range(1000))
    with transaction.atomic():
        assert len(list(Row.objects.iterator(chunk_size=100))) == 1000
    Row.objects.all().delete()


@case
def copy():
    """Of the driver beneath."""
    with connection.cursor() as cursor:
        cursor.copy_expert(f"COPY {TABLE} FROM STDIN", io.StringIO("".join(f"{n}\t1\tline {n}\n" for n in range(3000))))
        out = io.StringIO()
        cursor.copy_expert(f"COPY (SELECT id, body FROM {TABLE} ORDER BY id) TO STDOUT WITH (FORMAT csv)", out)
    assert out.getvalue() == "".join(f"{n},line {n}\n" for n in range(3000))
    assert Row.objects.all().delete()[0] == 3000


@case
def cancel():
    execute("SELECT 1")
    timer = threading.Timer(0.3, connection.connection.cancel)
    timer.start()
    error = raises(utils.OperationalError, execute, "SELECT pg_sleep(30)")
    assert error.__cause__.pgcode == "57014"
    timer.join()
    assert execute("SELECT 1") == [(1,)]


@case
def orm():
    """The migrations of Django's own applications, relations and aggregates; everything undone by migrating back."""
    call_command("migrate", verbosity=0)
    users = [User.objects.create_user(f"user{n}", password=None) for n in range(5)]
    group = Group.objects.create(name="readers")
    group.user_set.set(users[:3])
    found = User.objects.filter(groups__name="readers").annotate(n=models.Count("groups")).order_by("username")
    assert [(user.username, user.n) for user in found] == [(f"user{n}", 1) for n in range(3)]
    assert list(User.objects.prefetch_related("groups"))[0].groups.all()[0].name == "readers"
    raises(utils.IntegrityError, lambda: User.objects.create_user("user1"))
    assert "auth_user" in connection.introspection.table_names()
    for app in ("sessions", "auth", "contenttypes"):
        call_command("migrate", app, "zero", verbosity=0)
    assert "auth_user" not in connection.introspection.table_names()


@case
def many():
    def work(who):
        for turn in range(ROUNDS):
            with transaction.atomic():
                Row.objects.create(id=who * 1000 + turn, who=who, body=f"{who} {turn}")
                assert Row.objects.get(id=who * 1000 + turn).body == f"{who} {turn}"
        connection.close()

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(work, range(CLIENTS)))


@case
def sharded():
    users = Shard.objects.using("sharded")
    for number in range(1, 21):
        assert users.get(id=number).name == f"user {number:04d}"
    assert [user.id for user in users.order_by("-id")[:2]] == [200, 199]
    users.bulk_create([Shard(id=501, name="a"), Shard(id=502, name="b")])
    assert users.filter(id__gt=500).update(name="c") == 2
    assert users.filter(id__gt=500).delete()[0] == 2


main()
