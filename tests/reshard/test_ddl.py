"""DDL through the proxies again and again while a job streams, before and behind its switch."""
import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "integration"))

from test_reshard_ddl import cluster, columns, indexes, job_error, same_everywhere, scene  # noqa: E402, F401 (fixtures)

pytestmark = pytest.mark.slow


def test_through_the_proxy_while_streaming(scene):  # noqa: F811
    """Columns come, go and change their type again and again under writes, before and behind the switch, and the job goes on by itself."""
    scene.create()
    scene.run()
    one, other = scene.proxies
    changes = ["ADD COLUMN one int DEFAULT 1", "ADD COLUMN two text", "ALTER COLUMN one TYPE bigint", "DROP COLUMN two",
               "ADD COLUMN three numeric(8, 2) NOT NULL DEFAULT 1.5", "ALTER COLUMN note TYPE varchar(800)"]
    for change in changes:
        one.sql(f"ALTER TABLE users {change}")
        other.sql("UPDATE users SET balance = balance WHERE id >= 1000000000 AND id % 7 = 0")
        scene.ledger.progress()
        if change.startswith("DROP"):
            scene.must("verify", "job")  # who has just come cannot tell it from a rename while rows from before are on their way
    other.sql("UPDATE users SET one = id, three = 2.5 WHERE id >= 1000000000 AND id % 2 = 0")
    one.sql("CREATE INDEX CONCURRENTLY users_one ON users (one)")
    scene.must("verify", "job")
    scene.repeat("switch", "job", "--max-pause", "5s")
    one.sql("ALTER TABLE users ADD COLUMN four int DEFAULT 4")
    other.sql("UPDATE users SET four = 5 WHERE id >= 1000000000 AND id % 5 = 0")
    scene.ledger.progress()
    scene.must("verify", "job")
    scene.repeat("rollback", "job", "--max-pause", "5s")
    same_everywhere(columns(scene.cluster))
    same_everywhere(indexes(scene.cluster))
    rows = one.sql("SELECT id, one, three, four FROM users WHERE id >= 1000000000")
    assert len(rows) == 3000
    assert all((bool(one == user), float(three), four) == (user % 2 == 0, 2.5 if user % 2 == 0 else 1.5, 5 if user % 5 == 0 else 4)
               for user, one, three, four in rows)
    assert scene.runner.poll() is None and job_error(scene) is None
    scene.repeat("cancel", "job")
    scene.stop_runner()
    scene.nothing_is_left()
    scene.judge()
