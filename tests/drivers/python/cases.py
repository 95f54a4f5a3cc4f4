"""What the Python programs share: where to connect, the values of the case "types", and running the cases."""
import asyncio
import datetime
import decimal
import inspect
import os
import traceback
import uuid

HOST = os.environ["PGSHUNT_HOST"]
PORT = int(os.environ["PGSHUNT_PORT"])
USER = os.environ["PGSHUNT_USER"]
PASSWORD = os.environ["PGSHUNT_PASSWORD"]
DATABASE = os.environ["PGSHUNT_DATABASE"]
SHARDED = os.environ["PGSHUNT_SHARDED"]
TABLE = os.environ["PGSHUNT_TABLE"]

CLIENTS = 50
ROUNDS = 20

# (SQL type, value)
VALUES = [
    ("int", 2147483647),
    ("bigint", -9007199254740993),
    ("numeric", decimal.Decimal("12345678901234567890.123456789")),
    ("text", "Grüße, 日本語 🐘 'quoted' \"double\" back\\slash\ttab"),
    ("bytea", b"\x00\x01\xff\\'"),
    ("bool", True),
    ("timestamptz", datetime.datetime(2026, 2, 3, 4, 5, 6, 789012, datetime.timezone.utc)),
    ("uuid", uuid.UUID("123e4567-e89b-12d3-a456-426614174000")),
    ("int[]", [1, None, 3]),
    ("text[]", ["a,b", 'c"d', None, ""]),
    ("text", None),
    ("int", None),
]
JSON = {"a": [1, 2.5, None, "ä"], "b": {}}

_cases = []


def case(function):
    _cases.append(function)
    return function


def raises(kind, function, *args):
    """Calls the function, which must fail with this error; returns the error."""
    try:
        function(*args)
    except kind as error:
        return error
    raise AssertionError(f"no {kind}")


async def raises_async(kind, awaitable):
    try:
        await awaitable
    except kind as error:
        return error
    raise AssertionError(f"no {kind}")


def main():
    """Runs the cases in the order in which they are defined; a case's name is its function's."""
    for function in _cases:
        name = function.__name__.rstrip("_")
        try:
            result = function()
            if inspect.iscoroutine(result):
                asyncio.run(result)
            print("ok", name, flush=True)
        except Exception as error:
            text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
            print(f"failed {name}: {text}", flush=True)
