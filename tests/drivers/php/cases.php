<?php
// What the PHP programs share: where to connect, the values of the case "types", and running the cases.

define('TABLE', getenv('PGSHUNT_TABLE'));
const CLIENTS = 50;
const ROUNDS = 20;
const VALUES = [
    'int' => '2147483647', 'bigint' => '-9007199254740993', 'numeric' => '12345678901234567890.123456789',
    'text' => "Grüße, 日本語 🐘 'quoted' \"double\" back\\slash", 'uuid' => '123e4567-e89b-12d3-a456-426614174000',
    'jsonb' => '{"a": [1, 2.5, null, "ä"]}', 'int[]' => '{1,NULL,3}', 'varchar' => null,
];
const BYTES = "\x00\x01\xff\\'";

function check($found, $wanted)
{
    if ($found !== $wanted) {
        throw new Exception('found ' . var_export($found, true) . ' instead of ' . var_export($wanted, true));
    }
}

function run(array $cases)
{
    foreach ($cases as $name => $function) {
        try {
            $function();
            echo "ok $name\n";
        } catch (Throwable $error) {
            echo "failed $name: $error\n";
        }
    }
}

// PHP has no threads: the 50 clients of "many" take turns, with all their transactions open in groups of the pool.
function in_turns(callable $begin, callable $commit)
{
    for ($turn = 0; $turn < ROUNDS; $turn++) {
        foreach (array_chunk(range(0, CLIENTS - 1), 5) as $group) {
            foreach ($group as $who) {
                $begin($who, $who * 1000 + $turn, "$who $turn");
            }
            foreach ($turn % 2 ? $group : array_reverse($group) as $who) {
                $commit($who, $who * 1000 + $turn, "$who $turn");
            }
        }
    }
}
