# DBD::Pg: server-side prepare from the second execution on, COPY, asynchronous queries, notifications.
use strict;
use warnings;
use utf8;
use open qw(:std :utf8);
use DBI;
use DBD::Pg qw(:pg_types :async);

my $table   = $ENV{PGSHUNT_TABLE};
my $clients = 50;
my $rounds  = 20;

sub connect_to {
    my ($database, $password) = @_;
    return DBI->connect(
        "dbi:Pg:host=$ENV{PGSHUNT_HOST};port=$ENV{PGSHUNT_PORT};dbname=" . $ENV{ 'PGSHUNT_' . ($database // 'DATABASE') }
            . ";application_name=matrix;connect_timeout=20",
        $ENV{PGSHUNT_USER}, $password // $ENV{PGSHUNT_PASSWORD},
        { RaiseError => 1, PrintError => 0, AutoCommit => 1, PrintWarn => 0 });
}

sub check {
    my ($found, $wanted) = @_;
    die "found " . ($found // 'undef') . " instead of " . ($wanted // 'undef') . ' at line ' . (caller)[2] . "\n"
        if defined $found != defined $wanted || defined $found && $found ne $wanted;
}

sub value {
    my ($c, $sql, @values) = @_;
    return ($c->selectrow_array($sql, undef, @values))[0];
}

sub fails {
    my ($state, $c, $function) = @_;
    die "no error $state\n" if eval { $function->(); 1 };
    check($c->state, $state);
}

my @cases = (
    connect => sub {
        my $c = connect_to();
        check(value($c, 'SHOW application_name'), 'matrix');
        check($c->ping > 0, 1);
        check(!eval { connect_to('DATABASE', 'wrong') } && $DBI::errstr =~ /password authentication failed/, 1);
    },
    types => sub {
        my $c = connect_to();
        for my $prepare (0, 1) {
            $c->{pg_server_prepare} = $prepare;
            my %values = (int => 2147483647, bigint => '-9007199254740993', numeric => '12345678901234567890.123456789',
                text => qq{Grüße, 日本語 🐘 'quoted' "double" back\\slash}, bool => 1, varchar => undef,
                uuid => '123e4567-e89b-12d3-a456-426614174000', jsonb => '{"a": [1, 2.5, null, "ä"]}');
            check(value($c, "SELECT ?::$_", $values{$_}), $values{$_}) for sort keys %values;
            my $array = value($c, 'SELECT ?::int[]', [1, undef, 3]);
            check(join(',', map { $_ // 'NULL' } @$array), '1,NULL,3');
            check(value($c, q{SELECT ?::timestamptz = '2026-02-03 04:05:06.789012+00'}, '2026-02-03 04:05:06.789012Z'), 1);
            my $statement = $c->prepare('SELECT ?::bytea');
            $statement->bind_param(1, "\x00\x01\xff\\'", { pg_type => PG_BYTEA });
            $statement->execute;
            check($statement->fetchrow_array, "\x00\x01\xff\\'");
        }
    },
    prepared => sub {
        my ($x, $y) = (connect_to(), connect_to());
        my ($in_x, $in_y) = ($x->prepare(q{SELECT 'x' || ?::int}), $y->prepare(q{SELECT 'y' || ?::int}));
        for my $turn (0 .. 19) {
            $_->begin_work for $x, $y;
            for (['x', $in_x], ['y', $in_y]) {
                $_->[1]->execute($turn);
                check($_->[1]->fetchrow_array, "$_->[0]$turn");
                $_->[1]->finish;
            }
            $_->commit for $turn % 2 ? ($x, $y) : ($y, $x);
        }
        check($in_x->{pg_prepare_name} ne '', 1);
    },
    transactions => sub {
        my $c = connect_to();
        $c->begin_work;
        $c->do("INSERT INTO $table VALUES (1, 1, 'kept')");
        $c->pg_savepoint('s');
        fails('23505', $c, sub { $c->do("INSERT INTO $table VALUES (1, 1, 'twice')") });
        fails('25P02', $c, sub { $c->do('SELECT 1') });
        $c->pg_rollback_to('s');
        $c->commit;
        $c->begin_work;
        $c->do("UPDATE $table SET body = 'gone'");
        $c->rollback;
        check(value($c, "SELECT body FROM $table"), 'kept');
        check($c->do("DELETE FROM $table"), 1);
    },
    errors => sub {
        my $c = connect_to();
        fails('42P01', $c, sub { $c->do('SELECT * FROM missing_table') });
        fails('22012', $c, sub { value($c, 'SELECT 1 / ?::int', 0) });
        fails('23514', $c, sub { $c->do("INSERT INTO $table VALUES (?, 1, 'refused')", undef, 1) });
        check($c->pg_error_field('pg_diag_constraint_name'), "${table}_body_check");
        check(value($c, 'SELECT 1'), 1);
    },
    copy => sub {
        my $c = connect_to();
        $c->do("COPY $table FROM STDIN");
        $c->pg_putcopydata("$_\t1\tline $_\n") for 0 .. 2999;
        $c->pg_putcopyend;
        $c->do("COPY (SELECT id, body FROM $table ORDER BY id) TO STDOUT");
        my ($line, $lines) = ('', 0);
        while ($c->pg_getcopydata($line) >= 0) {
            check($line, "$lines\tline $lines\n");
            $lines++;
        }
        check($lines, 3000);
        check($c->do("DELETE FROM $table"), 3000);
    },
    cursor => sub {
        my $c = connect_to();
        $c->begin_work;
        $c->do('DECLARE reader CURSOR FOR SELECT n FROM generate_series(1, 10) AS n');
        check(join(',', map { @$_ } @{ $c->selectall_arrayref('FETCH 3 FROM reader') }), '1,2,3');
        $c->commit;
    },
    cancel => sub {
        my $c = connect_to();
        $c->do('SELECT pg_sleep(30)', { pg_async => PG_ASYNC });
        select undef, undef, undef, 0.3;
        check($c->pg_cancel, 1);
        check(value($c, 'SELECT 1'), 1);
    },
    listen => sub {
        my ($listener, $c) = (connect_to(), connect_to());
        $listener->do("LISTEN $table");
        $c->do("NOTIFY $table, 'hello'");
        my $heard;
        for (1 .. 400) {
            last if $heard = $listener->pg_notifies;
            select undef, undef, undef, 0.05;
        }
        check($heard->[2], 'hello');
    },
    # The 50 clients take turns, with their transactions open in groups of the pool's size.
    many => sub {
        my @clients = map { connect_to() } 1 .. $clients;
        my @puts = map { $_->prepare("INSERT INTO $table VALUES (?, ?, ?)") } @clients;
        for my $turn (0 .. $rounds - 1) {
            for (my $first = 0; $first < $clients; $first += 5) {
                my @group = $first .. $first + 4;
                for my $who (@group) {
                    $clients[$who]->begin_work;
                    $puts[$who]->execute($who * 1000 + $turn, $who, "$who $turn");
                }
                for my $who ($turn % 2 ? @group : reverse @group) {
                    check(value($clients[$who], "SELECT body FROM $table WHERE id = ?", $who * 1000 + $turn), "$who $turn");
                    $clients[$who]->commit;
                }
            }
        }
    },
    sharded => sub {
        my $c = connect_to('SHARDED');
        my $by_id = $c->prepare('SELECT name FROM users WHERE id = ?');
        for my $id (1 .. 20) {
            $by_id->execute($id);
            check($by_id->fetchrow_array, sprintf 'user %04d', $id);
        }
        check(value($c, 'SELECT id FROM users ORDER BY id DESC LIMIT ?', 1), 200);
        check($c->do(q{INSERT INTO users (id, name) VALUES (?, 'a'), (?, 'b')}, undef, 501, 502), 2);
        check($c->do('DELETE FROM users WHERE id > ?', undef, 500), 2);
    },
);

$| = 1;
while (my ($name, $function) = splice @cases, 0, 2) {
    if (eval { $function->(); 1 }) {
        print "ok $name\n";
    } else {
        print "failed $name: $@\n";
    }
}
