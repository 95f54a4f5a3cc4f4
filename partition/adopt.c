/* adopt.c: policies for tables that have partitions already: told from them, or from pg_partman's configuration. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "partition/create.h"

/* ---- what pg_partman has ---- */

/* $1: schema.table. Where it is installed is found first. */
static const char partman_sql[] = "SELECT partition_interval, premake::text, retention, "
                                  "retention_keep_table::text, retention_schema,"
                                  " epoch FROM %s.part_config WHERE parent_table = $1";

/* Intervals as Postgres prints them ("1 mon", "7 days", "01:00:00"), as ours. NULL: none that we have. */
static const char *interval_text(struct arena *arena, const char *text)
{
    struct interval interval;
    char printed[INTERVAL_TEXT];
    int hours, minutes, seconds;
    char end;
    if (text && sscanf(text, "%d:%d:%d%c", &hours, &minutes, &seconds, &end) == 3 && seconds == 0) {
        int all = hours * 60 + minutes;
        return all ? arena_printf(arena, "%d %s", all % 60 ? all : all / 60,
                                  all % 60 ? "minutes" : "hours")
                   : NULL;
    }
    return text && interval_parse(text, &interval)
               ? arena_strdup(arena, interval_print(&interval, printed))
               : NULL;
}

static const char *field(struct arena *arena, const PGresult *rows, int column)
{
    return PQgetisnull(rows, 0, column) ? NULL : arena_strdup(arena, PQgetvalue(rows, 0, column));
}

static void take_partman(struct creating *creating, const PGresult *rows,
                         struct partition_wish *wish)
{
    struct arena *arena = &creating->work.arena;
    const char *every = interval_text(arena, field(arena, rows, 0));
    const char *keep = interval_text(arena, field(arena, rows, 2));
    const char *schema = field(arena, rows, 4), *epoch = field(arena, rows, 5);
    bool detaches = PQgetvalue(rows, 0, 3)[0] == 't';
    wish->every = wish->every ? wish->every : every;
    wish->ahead = wish->ahead ? wish->ahead : field(arena, rows, 1);
    wish->keep = wish->keep ? wish->keep : keep;
    if (!wish->on_expiry && keep)
        wish->on_expiry = schema     ? arena_printf(arena, "archive:%s", schema)
                          : detaches ? "detach"
                                     : "drop";
    if (!wish->key && epoch && strcmp(epoch, "none") != 0)
        wish->key = epoch;
    work_tell(&creating->work, FLEET_NOTE, -1, creating->policy.shown,
              arena_printf(arena, "pg_partman has it: every %s, %s ahead, kept %s",
                           every ? every : "?", PQgetvalue(rows, 0, 1), keep ? keep : "forever"),
              arena_printf(arena,
                           "UPDATE part_config SET automatic_maintenance = 'off' WHERE "
                           "parent_table = '%s': two are one too many",
                           creating->policy.shown));
}

static void read_partman(struct creating *creating, struct db *db, struct partition_wish *wish)
{
    struct work *work = &creating->work;
    struct db_error ignored;
    PGresult *rows =
        db_query(db, WORK_QUERY_MS, &ignored,
                 "SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace AS n ON "
                 "n.oid = extnamespace WHERE extname = 'pg_partman'",
                 0);
    const char *schema = rows && PQntuples(rows) ? field(&work->arena, rows, 0) : NULL;
    PQclear(rows);
    if (!schema)
        return;
    rows = db_query(db, WORK_QUERY_MS, &ignored, arena_printf(&work->arena, partman_sql, schema), 1,
                    creating->policy.shown);
    if (rows && PQntuples(rows))
        take_partman(creating, rows, wish);
    PQclear(rows);
}

/* ---- what its partitions tell ---- */

/* The newest one with two ends; NULL: none. */
static const struct have *newest(const struct parent *parent)
{
    for (int i = parent->nhave - 1; i >= 0; i--)
        if (!parent->have[i].is_default && parent->have[i].range.from != BOUND_LEAST &&
            parent->have[i].range.to != BOUND_MOST)
            return &parent->have[i];
    return NULL;
}

static bool is_month(int64_t local)
{
    return civil_of(local).day == 1 && local % USECS_OF_DAY == 0;
}

static int64_t months_between(int64_t from, int64_t to)
{
    struct civil one = civil_of(from), other = civil_of(to);
    return (other.year - one.year) * INT64_C(12) + other.month - one.month;
}

/* How wide a partition from and to these local times (or numbers) is. */
static struct interval width_of(enum control control, int64_t from, int64_t to)
{
    if (control == CONTROL_ID)
        return (struct interval){UNIT_NUMBER, to - from};
    if (is_month(from) && is_month(to) && months_between(from, to) > 0)
        return (struct interval){UNIT_MONTH, months_between(from, to)};
    if (from % USECS_OF_DAY == 0 && to % USECS_OF_DAY == 0)
        return (struct interval){UNIT_DAY, (to - from) / USECS_OF_DAY};
    if ((to - from) % USECS_OF_HOUR == 0)
        return (struct interval){UNIT_HOUR, (to - from) / USECS_OF_HOUR};
    return (struct interval){UNIT_MINUTE, (to - from) / USECS_OF_MINUTE};
}

/* What others call their partitions; the first that gives the name that the newest one has. */
static const char *const formats[] = {
    "_p%Y%m%d", "_p%Y%m%d_%H%M", "_p%Y_%m", "_p%Y_%m_%d",      "_p%Gw%V", "_p%Y", "_p%Yq%q",
    "_p%i",     "_%Y%m%d",       "_%Y_%m",  "_%Y_%m_%d",       "_%Y%m",   "_%Y",  "_%Gw%V",
    "_y%Ym%m",  "_%Yq%q",        "_p%Y%m",  "_p%Y_%m_%d_%H%M", "_%i",     "_y%Y", "_p%Y%m%d_%H%M00",
};

static const char *told_format(const struct policy *policy, const char *name, int64_t begin)
{
    char made[NAME_SIZE];
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (name_refuses(formats[i], &policy->every))
            continue;
        name_of(policy->table, formats[i], &policy->every, begin, made);
        if (strcmp(made, name) == 0)
            return formats[i];
    }
    return NULL;
}

/* The zone that its days begin in: UTC, else the database's own. */
static const char *told_zone(struct creating *creating, struct db *db, const struct have *have)
{
    struct work *work = &creating->work;
    struct db_error ignored;
    int64_t from = have->range.from;
    if (!control_is_instant(creating->policy.control) || from % USECS_OF_DAY == 0)
        return "UTC";
    PGresult *rows = db_query(db, WORK_QUERY_MS, &ignored,
                              "SELECT reset_val FROM pg_settings WHERE name = 'TimeZone'", 0);
    creating->policy.timezone = rows ? field(&work->arena, rows, 0) : "UTC";
    PQclear(rows);
    bool fits = aim_locals(work, &creating->policy, &from, 1) && from % USECS_OF_DAY == 0;
    return fits ? creating->policy.timezone : "UTC";
}

/* ---- how they are divided again ---- */

/*
 * $1: the newest partition, $2: the table's column. How it is divided, as --sub takes it: '' where it is not, 'range' where it is by
 * the table's column; NULL where it is neither that nor by hash into equal parts nor by list.
 */
static const char divided_sql[] =
    "WITH c AS (SELECT h.inhrelid, pg_get_expr(l.relpartbound, l.oid) AS bound FROM pg_inherits AS "
    "h JOIN pg_class AS l ON l.oid = h.inhrelid WHERE h.inhparent = $1::oid), v AS (SELECT "
    "c.inhrelid, string_agg(CASE WHEN m[2] = 'NULL' THEN 'null' ELSE '\"' || "
    "replace(coalesce(replace(m[1], '''''', ''''), m[2]), '\"', '\"\"') || '\"' END, '+' ORDER BY "
    "o) AS list FROM c, regexp_matches(substr(bound, 16), "
    "'''((?:[^'']|'''')*)''|([^,() ]+)', 'g') WITH ORDINALITY AS r(m, o) WHERE bound LIKE 'FOR "
    "VALUES IN (%' GROUP BY 1)"
    " SELECT CASE WHEN p.partrelid IS NULL THEN '' WHEN p.partnatts <> 1 OR a.attname IS NULL THEN "
    "NULL WHEN p.partstrat = 'h' THEN (SELECT format('hash:\"%s\":%s', replace(a.attname, '\"', "
    "'\"\"'), count(*)) FROM c HAVING count(*) > 0 AND count(*) = ALL (SELECT "
    "(regexp_match(bound, 'modulus (\\d+)'))[1]::int FROM c)) WHEN p.partstrat = 'l' THEN (SELECT "
    "format('list:\"%s\":%s%s', replace(a.attname, '\"', '\"\"'), string_agg(list, ',' ORDER BY "
    "list), CASE WHEN p.partdefid <> 0 THEN ':default' ELSE '' END) FROM v HAVING count(*) > 0) "
    "WHEN a.attname = $2 THEN 'range' END FROM pg_class AS n LEFT JOIN pg_partitioned_table AS p "
    "ON "
    "p.partrelid = n.oid LEFT JOIN pg_attribute AS a ON a.attrelid = n.oid AND a.attnum = "
    "p.partattrs[0] AND a.attnum > 0 WHERE n.oid = $1::oid";

/* The widest of its parts tells how wide they are: the first and the last may be cut. NULL: none is like ours. */
static const char *told_range(struct creating *creating, struct db *db, const char *partition)
{
    struct work *work = &creating->work;
    struct interval width, widest = {UNIT_NUMBER, 0};
    char text[INTERVAL_TEXT];
    PGresult *rows =
        db_query(db, WORK_QUERY_MS, &work->error,
                 "SELECT pg_get_expr(relpartbound, oid) FROM pg_class JOIN pg_inherits "
                 "ON inhrelid = oid WHERE inhparent = $1::oid",
                 1, partition);
    for (int i = 0; rows && i < PQntuples(rows); i++) {
        struct bound_range range;
        if (!bound_read_range(creating->policy.control, PQgetvalue(rows, i, 0), &range) ||
            range.from == BOUND_LEAST || range.to == BOUND_MOST)
            continue;
        int64_t ends[2] = {range.from, range.to};
        if (!aim_locals(work, &creating->policy, ends, 2))
            break;
        width = width_of(creating->policy.control, ends[0], ends[1]);
        if (width.count > 0 && (!widest.count || interval_shorter(&widest, &width)))
            widest = width;
    }
    PQclear(rows);
    return widest.count ? WORK_TEXT(&work->arena, "range:%s", interval_print(&widest, text)) : NULL;
}

/* False: told that it is divided in a way that is not ours. */
static bool tell_sub(struct creating *creating, struct db *db, const struct have *have,
                     struct partition_wish *wish)
{
    struct work *work = &creating->work;
    PGresult *rows = db_query(db, WORK_QUERY_MS, &work->error, divided_sql, 2, have->oid,
                              creating->policy.column);
    const char *told = rows && PQntuples(rows) ? field(&work->arena, rows, 0) : NULL;
    if (!rows)
        return work_fails(work, -1, creating->policy.shown, "cannot look at its partitions",
                          &work->error);
    PQclear(rows);
    if (told && strcmp(told, "range") == 0)
        told = told_range(creating, db, have->oid);
    if (told && *told) {
        wish->sub = told;
        work_tell(work, FLEET_NOTE, -1, creating->policy.shown,
                  WORK_TEXT(&work->arena, "each is divided again: --sub '%s'", told), NULL);
    }
    if (!told)
        creating_problem(
            creating, -1,
            WORK_TEXT(&work->arena, "%s is divided in a way that is not maintained", have->name),
            "say how new ones are to be divided: --sub hash:user_id:8, or --sub none");
    return told != NULL;
}

/* ---- all of it ---- */

static bool tell_from(struct creating *creating, struct db *db, const struct parent *parent,
                      struct partition_wish *wish)
{
    struct work *work = &creating->work;
    struct policy *policy = &creating->policy;
    const struct have *have = newest(parent);
    char text[INTERVAL_TEXT];
    if (!have) {
        creating_problem(creating, -1, "it has no partition that tells how wide they are",
                         "pgshuntctl partition create, for a table without partitions");
        return false;
    }
    policy->timezone = wish->timezone =
        wish->timezone ? wish->timezone : told_zone(creating, db, have);
    int64_t ends[2] = {have->range.from, have->range.to};
    if (!aim_locals(work, policy, ends, 2))
        return false;
    struct interval width = width_of(policy->control, ends[0], ends[1]);
    if (!wish->every && width.count > 0)
        wish->every = arena_strdup(&work->arena, interval_print(&width, text));
    if (!wish->sub && !tell_sub(creating, db, have, wish))
        return false;
    if (!wish->every || !interval_parse(wish->every, &policy->every))
        return wish->every != NULL;
    if (!wish->name_format)
        wish->name_format = told_format(policy, have->name, ends[0]);
    work_tell(work, FLEET_NOTE, -1, policy->shown,
              WORK_TEXT(&work->arena, "partitions of %s, in %s; new ones are called %s%s",
                        wish->every, wish->timezone, policy->table,
                        wish->name_format ? wish->name_format : name_usual_format(&policy->every)),
              NULL);
    return true;
}

/* ---- the command ---- */

/* Again with its control known, on one shard: bounds are read by it. */
static bool tell_policy(struct creating *creating, struct partition_wish *wish)
{
    struct work *work = &creating->work;
    struct parent parent;
    struct shard_work shard = {.work = work, .shard = (unsigned)creating_first(creating)};
    arena_init(&shard.arena);
    shard.db = work_open(work, shard.shard, &shard.error);
    bool good = shard.db != NULL;
    if (good)
        read_partman(creating, shard.db, wish);
    creating->wish = wish;
    good = good && creating_control(creating) &&
           look_parents(&shard, &creating->policy, 1, &parent) &&
           tell_from(creating, shard.db, &parent, wish);
    if (!good && shard.error.text[0])
        work_fails(work, (int)shard.shard, creating->policy.shown, "cannot look at its partitions",
                   &shard.error);
    creating->policy.has_default = good && parent.nhave && parent.have[parent.nhave - 1].is_default;
    db_close(shard.db);
    arena_free(&shard.arena);
    return good;
}

static void adopt(struct creating *creating, const struct partition_wish *said)
{
    struct partition_wish wish = *said;
    struct work *work = &creating->work;
    creating_check(creating, true);
    if (work->problems || !tell_policy(creating, &wish) ||
        !policy_apply(work, &wish, &creating->policy) || !creating_may_divide(creating))
        return;
    if (work->call->fleet.dry_run) {
        work_tell(work, FLEET_PLANNED, -1, creating->policy.shown, "record its policy", NULL);
        creating_maintain(creating);
    } else
        creating_record(creating);
}

enum fleet_outcome partition_adopt(const struct partition_call *call,
                                   const struct partition_wish *wish)
{
    struct creating creating;
    if (creating_begin(&creating, call, wish, false) && creating_look(&creating))
        adopt(&creating, wish);
    return creating_end(&creating);
}
