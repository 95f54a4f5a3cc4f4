<?php
// PDO: prepared statements of its own on the server, emulated ones as literals, COPY, notifications.

require 'cases.php';

function connect($database = 'DATABASE', $options = [], $password = null)
{
    return new PDO(sprintf('pgsql:host=%s;port=%s;dbname=%s;connect_timeout=20', getenv('PGSHUNT_HOST'),
        getenv('PGSHUNT_PORT'), getenv("PGSHUNT_$database")), getenv('PGSHUNT_USER'),
        $password ?? getenv('PGSHUNT_PASSWORD'), $options + [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION]);
}

function value($connection, $sql, $values = [])
{
    $statement = $connection->prepare($sql);
    $statement->execute($values);
    return $statement->fetchColumn();
}

function fails($state, callable $function)
{
    try {
        $function();
    } catch (PDOException $error) {
        check($error->errorInfo[0], $state);
        return $error;
    }
    throw new Exception("no error $state");
}

run([
    'connect' => function () {
        check(value(connect(), 'SELECT 1'), 1);
        try {
            connect('DATABASE', [], 'wrong');
            throw new Exception('let in');
        } catch (PDOException $error) {
            check(str_contains($error->getMessage(), 'password authentication failed'), true);
        }
    },
    'types' => function () {
        foreach ([[], [PDO::ATTR_EMULATE_PREPARES => true], [PDO::PGSQL_ATTR_DISABLE_PREPARES => true]] as $options) {
            $c = connect('DATABASE', $options);
            foreach (VALUES as $type => $value) {
                $found = value($c, "SELECT ?::$type", [$value]);
                check($found === null ? null : (string) $found, $value);
            }
            $statement = $c->prepare('SELECT ?::bool, ?::bytea');
            $statement->bindValue(1, true, PDO::PARAM_BOOL);
            $statement->bindValue(2, BYTES, PDO::PARAM_LOB);
            $statement->execute();
            $row = $statement->fetch(PDO::FETCH_NUM);
            check($row[0], true);
            check(stream_get_contents($row[1]), BYTES);
        }
    },
    'prepared' => function () {
        [$a, $b] = [connect(), connect()];
        $in_a = $a->prepare("SELECT 'a' || ?::int");
        $in_b = $b->prepare("SELECT 'b' || ?::int");
        for ($turn = 0; $turn < 20; $turn++) {
            $a->beginTransaction();
            $b->beginTransaction();
            foreach (['a' => $in_a, 'b' => $in_b] as $letter => $statement) {
                $statement->execute([$turn]);
                check($statement->fetchColumn(), "$letter$turn");
            }
            foreach ($turn % 2 ? [$a, $b] : [$b, $a] as $c) {
                $c->commit();
            }
        }
        unset($in_a); // DEALLOCATE
        check(value($a, "SELECT 'a' || ?::int", [1]), 'a1');
    },
    'transactions' => function () {
        $c = connect();
        $c->beginTransaction();
        $c->exec('INSERT INTO ' . TABLE . " VALUES (1, 1, 'kept')");
        $c->exec('SAVEPOINT s');
        fails('23505', fn () => $c->exec('INSERT INTO ' . TABLE . " VALUES (1, 1, 'twice')"));
        fails('25P02', fn () => $c->exec('SELECT 1'));
        $c->exec('ROLLBACK TO s');
        $c->commit();
        $c->beginTransaction();
        $c->exec('UPDATE ' . TABLE . " SET body = 'gone'");
        $c->rollBack();
        check(value($c, 'SELECT body FROM ' . TABLE), 'kept');
        check($c->exec('DELETE FROM ' . TABLE), 1);
    },
    'errors' => function () {
        $c = connect();
        fails('42P01', fn () => $c->query('SELECT * FROM missing_table'));
        fails('22012', fn () => value($c, 'SELECT 1 / ?::int', [0]));
        fails('23514', fn () => value($c, 'INSERT INTO ' . TABLE . " VALUES (?, 1, 'refused')", [1]));
        check(value($c, 'SELECT 1'), 1);
    },
    // PDO has no cancel of its own, and waits in the statement: another process asks the server.
    'cancel' => function () {
        $c = connect();
        $mark = TABLE . ' is cancelled';
        $program = 'require "pdo_cancel.php";';
        $other = proc_open([PHP_BINARY, '-r', $program], [], $pipes, __DIR__, ['MARK' => $mark] + getenv());
        $c->beginTransaction(); // both on the primary
        fails('57014', fn () => value($c, "SELECT pg_sleep(30) /* $mark */"));
        $c->rollBack();
        check(proc_close($other), 0);
        check(value($c, 'SELECT 1'), 1);
    },
    'copy' => function () {
        $c = connect();
        $lines = array_map(fn ($n) => "$n\t1\tline $n\n", range(0, 2999));
        $c->pgsqlCopyFromArray(TABLE, $lines);
        $found = $c->pgsqlCopyToArray(TABLE);
        sort($found, SORT_NATURAL);
        check($found, $lines);
        check($c->exec('DELETE FROM ' . TABLE), 3000);
    },
    'cursor' => function () {
        $c = connect();
        $c->beginTransaction();
        $statement = $c->prepare('SELECT n FROM generate_series(1, 10) AS n',
            [PDO::ATTR_CURSOR => PDO::CURSOR_SCROLL]);
        $statement->execute();
        check($statement->fetchColumn(), 1);
        check($statement->fetchColumn(), 2);
        check($statement->fetch(PDO::FETCH_NUM, PDO::FETCH_ORI_LAST)[0], 10);
        $statement = null;
        $c->commit();
    },
    'listen' => function () {
        [$listener, $c] = [connect(), connect()];
        $listener->exec('LISTEN ' . TABLE);
        $c->exec('NOTIFY ' . TABLE . ", 'hello'");
        check($listener->pgsqlGetNotify(PDO::FETCH_ASSOC, 20000)['payload'], 'hello');
    },
    'many' => function () {
        $clients = array_map(fn () => connect(), range(1, CLIENTS));
        $puts = array_map(fn ($c) => $c->prepare('INSERT INTO ' . TABLE . ' VALUES (?, ?, ?)'), $clients);
        in_turns(function ($who, $id, $body) use ($clients, $puts) {
            $clients[$who]->beginTransaction();
            $puts[$who]->execute([$id, $who, $body]);
        }, function ($who, $id, $body) use ($clients) {
            check(value($clients[$who], 'SELECT body FROM ' . TABLE . ' WHERE id = ?', [$id]), $body);
            $clients[$who]->commit();
        });
    },
    'sharded' => function () {
        $c = connect('SHARDED');
        $by_id = $c->prepare('SELECT name FROM users WHERE id = ?');
        for ($id = 1; $id <= 20; $id++) {
            $by_id->execute([$id]);
            check($by_id->fetchColumn(), sprintf('user %04d', $id));
        }
        check(value($c, 'SELECT id FROM users ORDER BY id DESC LIMIT ?', [1]), 200);
        check($c->exec("INSERT INTO users (id, name) VALUES (501, 'a'), (502, 'b')"), 2);
        check($c->exec('DELETE FROM users WHERE id > 500'), 2);
    },
]);
