<?php
// Ends the statement with MARK in it, as soon as it runs.

$c = new PDO(sprintf('pgsql:host=%s;port=%s;dbname=%s', getenv('PGSHUNT_HOST'), getenv('PGSHUNT_PORT'),
    getenv('PGSHUNT_DATABASE')), getenv('PGSHUNT_USER'), getenv('PGSHUNT_PASSWORD'));
$ask = $c->prepare("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE state = 'active' AND query LIKE ?
    AND query NOT LIKE '%pg_cancel_backend%'");
$c->beginTransaction();
for ($try = 0; $try < 200; $try++) {
    $ask->execute(['%' . getenv('MARK') . '%']);
    if ($ask->fetchColumn()) {
        $c->commit();
        exit(0);
    }
    usleep(100000);
}
exit(1);
