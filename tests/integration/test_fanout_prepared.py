"""A client's named statement that runs on several shards is prepared on each of them once."""
import pytest
from harness import Proxy
from harness.sample import USERS
from support import SYNC, Raw, bind, describe, error_of, execute, kinds, parse, query, rows

pytestmark = pytest.mark.core

ON_SHARD = "/* pgshunt: shard={} primary */ SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%{}%'"


@pytest.fixture(scope="module")
def narrow(cluster):
    """One server connection for each shard, so that what is prepared on it is seen."""
    with Proxy(cluster, keyspaces=[USERS, {"name": "things", "type": "bigint",
                                           "tables": [{"name": "things", "key": "owner"}]}],
               options={"workers": 1, "pool": {"size": 1}, "routing": {"read_write_split": "off"}}) as proxy:
        proxy.wait_nodes()
        with Raw(proxy) as raw:
            assert "E" not in kinds(raw.ask(query("CREATE TABLE things (owner bigint, n int)")))
            assert "E" not in kinds(raw.ask(query("INSERT INTO things SELECT 1, 1")))
            raw.ask(query("INSERT INTO things VALUES " + ", ".join(f"({i}, {i})" for i in range(2, 41))))
        yield proxy
        with Raw(proxy) as raw:
            raw.ask(query("DROP TABLE things"))


def prepared(proxy, text, shard="s0"):
    with Raw(proxy) as raw:
        answer = raw.ask(query(ON_SHARD.format(shard, text)))
        assert "E" not in kinds(answer), error_of(answer)
        return int(rows(answer)[0][0])


def run(raw, name, arguments=(), described=True):
    parts = [bind("", name, arguments), describe("P", "") if described else b"", execute(""), SYNC]
    return raw.ask(*parts)


def test_prepared_once_on_each_shard(narrow):
    with Raw(narrow) as raw:
        raw.ask(parse("many", "SELECT n AS one_of_many FROM things WHERE n < $1"), SYNC)
        for limit in (5, 9, 30, 41):
            answer = run(raw, "many", [str(limit).encode()])
            assert kinds(answer) == "2T" + "D" * (limit - 1) + "CZ"
    assert [prepared(narrow, "one_of_many%$1", shard) for shard in ("s0", "s1")] == [1, 1]


def test_unnamed_ones_are_not(narrow):
    with Raw(narrow) as raw:
        for _ in range(3):
            answer = raw.ask(parse("", "SELECT n AS nameless FROM things"), bind("", ""), execute(""), SYNC)
            assert kinds(answer) == "12" + "D" * 40 + "CZ"
    assert prepared(narrow, "nameless FROM%") == 0


def test_limits_by_parameters(narrow):
    """Each shard is asked for as many rows as LIMIT and OFFSET are together: one text for all values."""
    with Raw(narrow) as raw:
        raw.ask(parse("page", "SELECT n AS paged FROM things ORDER BY n LIMIT $1 OFFSET $2", [20, 20]), SYNC)
        for offset in range(0, 30, 5):
            answer = run(raw, "page", [b"3", str(offset).encode()])
            assert [row[0] for row in rows(answer)] == [str(offset + i).encode() for i in (1, 2, 3)]
    assert prepared(narrow, "paged FROM%LEAST") == 1


def test_texts_that_differ_from_shard_to_shard(narrow):
    """Each shard gets its own elements of the list: such texts are not worth keeping."""
    with Raw(narrow) as raw:
        raw.ask(parse("pick", "SELECT n AS picked FROM things WHERE owner IN ($1, $2, $3)", [20, 20, 20]), SYNC)
        for first in range(1, 30):
            wanted = [str(first + i).encode() for i in range(3)]
            assert sorted(row[0] for row in rows(run(raw, "pick", wanted))) == sorted(wanted)
    assert sum(prepared(narrow, "picked FROM", shard) for shard in ("s0", "s1")) <= 3


def test_shards_errors_reach_the_client_and_the_statement_lives_on(narrow):
    with Raw(narrow) as raw:
        raw.ask(parse("ratio", "SELECT 100 / (n - $1) AS ratio FROM things", [23]), SYNC)
        for divisor, failed in ((0, False), (50, False), (7, True), (60, False), (7, True), (0, False)):
            answer = run(raw, "ratio", [str(divisor).encode()])
            assert ("E" in kinds(answer)) == failed, divisor
            if failed:
                assert error_of(answer)["C"] == "22012"
            else:
                assert kinds(answer).count("D") == 40


def test_a_change_of_the_tables_shape(narrow):
    """Who asks for a description gets rows of the new shape; who does not is told, as by one Postgres."""
    with Raw(narrow) as raw, Raw(narrow) as other:
        raw.ask(parse("all", "SELECT * FROM things WHERE n <= $1", [23]), SYNC)
        for _ in range(3):
            assert kinds(run(raw, "all", [b"2"])) == "2TDDCZ"
        other.ask(query("ALTER TABLE things ADD COLUMN colour text DEFAULT 'red'"))
        for _ in range(2):
            answer = run(raw, "all", [b"2"])
            assert kinds(answer) == "2TDDCZ", answer
            assert [row[2] for row in rows(answer)] == [b"red", b"red"]
        other.ask(query("ALTER TABLE things DROP COLUMN colour"))
        answer = run(raw, "all", [b"2"], described=False)
        assert kinds(answer) == "2EZ" or kinds(answer) == "EZ", answer
        assert error_of(answer)["C"] == "0A000" and "cached plan" in error_of(answer)["M"]
        assert kinds(run(raw, "all", [b"2"])) == "2TDDCZ"


def test_deallocated_behind_the_proxys_back(narrow):
    with Raw(narrow) as raw, Raw(narrow) as other:
        raw.ask(parse("again", "SELECT n AS once_more FROM things WHERE n < $1", [23]), SYNC)
        for _ in range(3):
            assert kinds(run(raw, "again", [b"3"])) == "2TDDCZ"
        for shard in ("s0", "s1"):
            other.ask(query(f"/* pgshunt: shard={shard} */ DO 'BEGIN EXECUTE ''DEALLOCATE ALL''; END'"))
        assert kinds(run(raw, "again", [b"3"])) == "2TDDCZ"


def test_in_a_transaction(narrow):
    with Raw(narrow) as raw:
        raw.ask(parse("inside", "SELECT n AS inside FROM things WHERE n <= $1", [23]), SYNC)
        raw.ask(query("BEGIN"))
        for _ in range(3):
            assert kinds(run(raw, "inside", [b"4"])) == "2TDDDDCZ"
        raw.ask(query("INSERT INTO things VALUES (77, 0)"))
        assert kinds(run(raw, "inside", [b"4"])) == "2TDDDDDCZ"
        raw.ask(query("ROLLBACK"))
        assert kinds(run(raw, "inside", [b"4"])) == "2TDDDDCZ"
