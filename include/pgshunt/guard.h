/*
 * guard.h: the trigger that keeps writers with an old map off a shard's tables; see docs/internals/resharding.md.
 *
 * Who may write is told by the session's pgshunt.epoch, compared with the trigger's argument: nothing is read, so
 * it holds for a transaction whose snapshot is from before, too.
 */
#ifndef PGSHUNT_GUARD_H
#define PGSHUNT_GUARD_H

#define GUARD_SETTING "pgshunt.epoch"
/* The trigger's name, with the epoch behind. */
#define GUARD_TRIGGER "pgshunt_guard_"
#define GUARD_SQLSTATE "55000"
/* How its message begins: by this a proxy knows that its map is old. */
#define GUARD_MESSAGE "rows of this table have moved to another shard"

#define GUARD_FUNCTION                                                                             \
    "CREATE OR REPLACE FUNCTION pgshunt.guard() RETURNS trigger LANGUAGE plpgsql AS $guard$\n"     \
    "BEGIN\n"                                                                                      \
    "  IF coalesce(pg_catalog.current_setting('pgshunt.epoch', true), '')\n"                       \
    "      OPERATOR(pg_catalog.=) '' OR pg_catalog.current_setting('pgshunt.epoch')::bigint\n"     \
    "      OPERATOR(pg_catalog.<) TG_ARGV[0]::bigint THEN\n"                                       \
    "    RAISE EXCEPTION USING ERRCODE = '" GUARD_SQLSTATE "', MESSAGE = '" GUARD_MESSAGE "',\n"   \
    "      SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME,\n"                                     \
    "      DETAIL = 'A reshard job guards it until it is complete.',\n"                            \
    "      HINT = 'Write through pgshunt, which knows where the rows are.';\n"                     \
    "  END IF;\n"                                                                                  \
    "  RETURN NULL;\n"                                                                             \
    "END $guard$"

#endif
