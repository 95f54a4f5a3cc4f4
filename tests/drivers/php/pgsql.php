<?php
// PHP's pgsql: parameters, prepared statements, asynchronous queries, COPY, cancel, notifications.

require 'cases.php';

set_error_handler(fn ($number, $text) => throw new ErrorException($text));

function connect($database = 'DATABASE', $password = null)
{
    return pg_connect(sprintf("host=%s port=%s user=%s password='%s' dbname=%s connect_timeout=20 application_name=matrix",
        getenv('PGSHUNT_HOST'), getenv('PGSHUNT_PORT'), getenv('PGSHUNT_USER'),
        addslashes($password ?? getenv('PGSHUNT_PASSWORD')), getenv("PGSHUNT_$database")), PGSQL_CONNECT_FORCE_NEW);
}

function value($connection, $sql, $values = [])
{
    return pg_fetch_result(pg_query_params($connection, $sql, $values), 0, 0);
}

// Sends the statement and returns the SQLSTATE that it ends with.
function state($connection, $sql, $values = [])
{
    pg_send_query_params($connection, $sql, $values);
    $state = pg_result_error_field(pg_get_result($connection), PGSQL_DIAG_SQLSTATE);
    check(pg_get_result($connection), false);
    return $state;
}

run([
    'connect' => function () {
        $c = connect();
        check(value($c, 'SHOW application_name'), 'matrix');
        check(pg_ping($c), true);
        try {
            connect('DATABASE', 'wrong');
            throw new Exception('let in');
        } catch (ErrorException $error) {
            check(str_contains($error->getMessage(), 'password authentication failed'), true);
        }
        pg_close($c);
    },
    'types' => function () {
        $c = connect();
        foreach (VALUES as $type => $value) {
            check(value($c, "SELECT \$1::$type", [$value]), $value);
        }
        check(value($c, 'SELECT $1::bool', ['true']), 't');
        check(value($c, "SELECT \$1::timestamptz = '2026-02-03 04:05:06.789012+00'", ['2026-02-03 04:05:06.789012Z']), 't');
        check(pg_unescape_bytea(value($c, 'SELECT $1::bytea', [pg_escape_bytea($c, BYTES)])), BYTES);
        pg_close($c);
    },
    'prepared' => function () {
        [$a, $b] = [connect(), connect()];
        pg_prepare($a, 'mine', "SELECT 'a' || \$1::int");
        pg_prepare($b, 'mine', "SELECT 'b' || \$1::int");
        for ($turn = 0; $turn < 20; $turn++) {
            pg_query($a, 'BEGIN');
            pg_query($b, 'BEGIN');
            check(pg_fetch_result(pg_execute($a, 'mine', [$turn]), 0, 0), "a$turn");
            check(pg_fetch_result(pg_execute($b, 'mine', [$turn]), 0, 0), "b$turn");
            foreach ($turn % 2 ? [$a, $b] : [$b, $a] as $c) {
                pg_query($c, 'COMMIT');
            }
        }
        pg_close($a);
        pg_close($b);
    },
    'transactions' => function () {
        $c = connect();
        pg_query($c, 'BEGIN');
        check(pg_transaction_status($c), PGSQL_TRANSACTION_INTRANS);
        pg_query($c, 'INSERT INTO ' . TABLE . " VALUES (1, 1, 'kept')");
        pg_query($c, 'SAVEPOINT s');
        check(state($c, 'INSERT INTO ' . TABLE . " VALUES (1, 1, 'twice')"), '23505');
        check(state($c, 'SELECT 1'), '25P02');
        pg_query($c, 'ROLLBACK TO s');
        pg_query($c, 'COMMIT');
        pg_query($c, 'BEGIN; UPDATE ' . TABLE . " SET body = 'gone'; ROLLBACK");
        check(value($c, 'SELECT body FROM ' . TABLE), 'kept');
        check(pg_affected_rows(pg_query($c, 'DELETE FROM ' . TABLE)), 1);
        pg_close($c);
    },
    'errors' => function () {
        $c = connect();
        check(state($c, 'SELECT * FROM missing_table'), '42P01');
        check(state($c, 'SELECT 1 / $1::int', [0]), '22012');
        check(state($c, 'INSERT INTO ' . TABLE . " VALUES (\$1, 1, 'refused')", [1]), '23514');
        check(value($c, 'SELECT 1'), '1');
        pg_close($c);
    },
    'copy' => function () {
        $c = connect();
        $lines = array_map(fn ($n) => "$n\t1\tline $n\n", range(0, 2999));
        pg_copy_from($c, TABLE, $lines);
        $found = pg_copy_to($c, TABLE);
        sort($found, SORT_NATURAL);
        check($found, $lines);
        check(pg_affected_rows(pg_query($c, 'DELETE FROM ' . TABLE)), 3000);
        pg_close($c);
    },
    'cursor' => function () {
        $c = connect();
        pg_query($c, 'BEGIN');
        pg_query($c, 'DECLARE reader CURSOR FOR SELECT n FROM generate_series(1, 10) AS n');
        check(pg_fetch_all_columns(pg_query($c, 'FETCH 3 FROM reader')), ['1', '2', '3']);
        pg_query($c, 'COMMIT');
        pg_close($c);
    },
    'cancel' => function () {
        $c = connect();
        pg_send_query($c, 'SELECT pg_sleep(30)');
        usleep(300000);
        $began = microtime(true);
        pg_cancel_query($c);
        check(microtime(true) - $began < 20, true);
        check(value($c, 'SELECT 1'), '1');
        pg_close($c);
    },
    'listen' => function () {
        [$listener, $c] = [connect(), connect()];
        pg_query($listener, 'LISTEN ' . TABLE);
        pg_query($c, 'NOTIFY ' . TABLE . ", 'hello'");
        for ($tries = 0; !($heard = pg_get_notify($listener)) && $tries < 400; $tries++) {
            usleep(50000);
        }
        check($heard['payload'], 'hello');
        pg_close($listener);
        pg_close($c);
    },
    'many' => function () {
        $clients = array_map(fn () => connect(), range(1, CLIENTS));
        foreach ($clients as $c) {
            pg_prepare($c, 'put', 'INSERT INTO ' . TABLE . ' VALUES ($1, $2, $3)');
        }
        in_turns(function ($who, $id, $body) use ($clients) {
            pg_query($clients[$who], 'BEGIN');
            pg_execute($clients[$who], 'put', [$id, $who, $body]);
        }, function ($who, $id, $body) use ($clients) {
            check(value($clients[$who], 'SELECT body FROM ' . TABLE . ' WHERE id = $1', [$id]), $body);
            pg_query($clients[$who], 'COMMIT');
        });
        array_map('pg_close', $clients);
    },
    'sharded' => function () {
        $c = connect('SHARDED');
        pg_prepare($c, 'by id', 'SELECT name FROM users WHERE id = $1');
        for ($id = 1; $id <= 20; $id++) {
            check(pg_fetch_result(pg_execute($c, 'by id', [$id]), 0, 0), sprintf('user %04d', $id));
        }
        check(value($c, 'SELECT id FROM users ORDER BY id DESC LIMIT $1', [1]), '200');
        pg_query_params($c, "INSERT INTO users (id, name) VALUES (\$1, 'a'), (\$2, 'b')", [501, 502]);
        check(pg_affected_rows(pg_query_params($c, 'DELETE FROM users WHERE id > $1', [500])), 2);
        pg_close($c);
    },
]);
