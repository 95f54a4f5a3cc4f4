/* policy.c: policies checked, recorded in the catalog and read from it. */
#include "partition/policy.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/catalog.h"

#define AHEAD_USUAL 4
#define LOCK "7741936514602253"

/* ---- the tables ---- */

#define TABLES                                                                                     \
    "CREATE TABLE IF NOT EXISTS pgshunt.partition_policy (database text, schema_name text, "       \
    "table_name text, column_name text NOT NULL, control text NOT NULL, every text NOT NULL, "     \
    "ahead int NOT NULL, keep text, on_expiry text NOT NULL, archive text, start text, "           \
    "timezone text NOT NULL, has_default boolean NOT NULL, template text, "                        \
    "name_format text NOT NULL, created_at timestamptz NOT NULL DEFAULT now(), "                   \
    "changed_at timestamptz NOT NULL DEFAULT now(), "                                              \
    "export_format text, keep_table boolean, sub text, "                                           \
    "PRIMARY KEY (database, schema_name, table_name)); "                                           \
    "CREATE TABLE IF NOT EXISTS pgshunt.partition_run (id bigint GENERATED ALWAYS AS IDENTITY "    \
    "PRIMARY KEY, database text NOT NULL, started_at timestamptz NOT NULL DEFAULT now(), "         \
    "finished_at timestamptz, outcome text, made int, expired int, failed int); "                  \
    "GRANT SELECT ON pgshunt.partition_policy, pgshunt.partition_run "                             \
    "TO PUBLIC;"

static const char make_sql[] =
    "DO $pgshunt$ BEGIN PERFORM pg_advisory_xact_lock(" LOCK "); "
    "IF to_regclass('pgshunt.partition_run') IS NULL THEN " TABLES
    " END IF; ALTER TABLE pgshunt.partition_policy ADD COLUMN IF NOT EXISTS export_format text, "
    "ADD COLUMN IF NOT EXISTS keep_table boolean, ADD COLUMN IF NOT EXISTS sub text; END "
    "$pgshunt$";

static bool has_tables(struct work *work, bool *has)
{
    PGresult *rows = db_query(work->catalog, WORK_QUERY_MS, &work->error,
                              "SELECT to_regclass('pgshunt.partition_run') IS NOT NULL", 0);
    *has = rows && PQgetvalue(rows, 0, 0)[0] == 't';
    PQclear(rows);
    return rows != NULL;
}

/* ... with all columns: earlier versions had fewer. */
static bool has_columns(struct work *work, bool *has)
{
    PGresult *rows = db_query(work->catalog, WORK_QUERY_MS, &work->error,
                              "SELECT count(*) FROM pg_attribute WHERE attrelid = "
                              "to_regclass('pgshunt.partition_policy') AND attname = 'sub'",
                              0);
    *has = rows && PQgetvalue(rows, 0, 0)[0] == '1';
    PQclear(rows);
    return rows != NULL;
}

bool policy_prepare(struct work *work)
{
    bool has;
    if (!has_columns(work, &has))
        return false;
    return has || (catalog_prepare(work->catalog, &work->error) &&
                   db_run(work->catalog, WORK_QUERY_MS, &work->error, make_sql, 0));
}

static const char may_write_sql[] =
    "SELECT bool_and(has_table_privilege(t, p)), format('%s may not record policies', "
    "quote_ident(current_user)), format('GRANT SELECT, INSERT, UPDATE, DELETE ON "
    "pgshunt.partition_policy, pgshunt.partition_run TO %I', current_user) FROM "
    "unnest('{pgshunt.partition_policy,pgshunt.partition_run}'::text[]) AS t, "
    "unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) AS p";

bool policy_may_write(struct work *work, const char *shown)
{
    PGresult *rows = db_query(work->catalog, WORK_QUERY_MS, &work->error, may_write_sql, 0);
    bool may = rows && PQgetvalue(rows, 0, 0)[0] == 't';
    if (rows && !may)
        work_tell(work, FLEET_PROBLEM, -1, shown, PQgetvalue(rows, 0, 1), PQgetvalue(rows, 0, 2));
    else if (!rows)
        work_fails(work, -1, shown, "cannot read the rights on policies", &work->error);
    PQclear(rows);
    return may;
}

/* ---- names ---- */

/* One part of a name: quoted, or as it is up to a point. */
static const char *take_part(struct arena *arena, const char **at)
{
    char *part = arena_alloc(arena, strlen(*at) + 1), *to = part;
    bool quoted = **at == '"';
    *at += quoted;
    while (**at && (quoted || **at != '.')) {
        if (quoted && **at == '"' && *++*at != '"')
            break;
        *to++ = *(*at)++;
    }
    return part;
}

void policy_name(struct work *work, const char *table, struct policy *policy)
{
    const char *at = table;
    struct arena *arena = &work->arena;
    policy->table = take_part(arena, &at);
    policy->schema = "public";
    if (*at == '.') {
        at++;
        policy->schema = policy->table;
        policy->table = take_part(arena, &at);
    }
    policy->shown = arena_printf(arena, "%s.%s", policy->schema, policy->table);
    policy->quoted = arena_printf(arena, "%s.%s", work_quote(arena, policy->schema),
                                  work_quote(arena, policy->table));
}

/* ---- reading ---- */

static const char read_sql[] =
    "SELECT schema_name, table_name, column_name, control, every, ahead, keep, on_expiry, archive,"
    " start, timezone, has_default, template, name_format, to_jsonb(p) ->> 'export_format',"
    " to_jsonb(p) ->> 'keep_table', to_jsonb(p) ->> 'sub' FROM pgshunt.partition_policy AS p"
    " WHERE database = $1 AND ($2::text IS NULL OR (schema_name = $2 AND table_name = $3))"
    " ORDER BY 1, 2";

enum {
    SCHEMA,
    TABLE,
    COLUMN,
    CONTROL,
    EVERY,
    AHEAD,
    KEEP,
    ON_EXPIRY,
    ARCHIVE,
    START,
    TIMEZONE,
    HAS_DEFAULT,
    TEMPLATE,
    FORMAT,
    EXPORT_FORMAT,
    KEEP_TABLE,
    SUB,
};

static const char *const expiries[] = {
    [EXPIRY_DETACH] = "detach",
    [EXPIRY_DROP] = "drop",
    [EXPIRY_ARCHIVE] = "archive",
    [EXPIRY_EXPORT] = "export",
};

const char *expiry_name(enum expiry expiry)
{
    return expiries[expiry];
}

bool expiry_by_name(const char *name, enum expiry *expiry)
{
    for (int i = 0; i < (int)(sizeof expiries / sizeof *expiries); i++)
        if (strcmp(expiries[i], name) == 0) {
            *expiry = (enum expiry)i;
            return true;
        }
    return false;
}

const char *policy_expiry_text(struct arena *arena, const struct policy *policy)
{
    const char *name = expiries[policy->expiry];
    if (policy->expiry != EXPIRY_ARCHIVE && policy->expiry != EXPIRY_EXPORT)
        return name;
    return arena_printf(arena, "%s:%s", name, policy->archive);
}

static const char *copy(struct work *work, const PGresult *rows, int row, int column)
{
    return PQgetisnull(rows, row, column)
               ? NULL
               : arena_strdup(&work->arena, PQgetvalue(rows, row, column));
}

static bool fill(struct work *work, const PGresult *rows, int row, struct policy *policy)
{
    struct arena *arena = &work->arena;
    *policy = (struct policy){
        .schema = copy(work, rows, row, SCHEMA),
        .table = copy(work, rows, row, TABLE),
        .column = copy(work, rows, row, COLUMN),
        .ahead = atoi(PQgetvalue(rows, row, AHEAD)),
        .keeps = !PQgetisnull(rows, row, KEEP),
        .archive = copy(work, rows, row, ARCHIVE),
        .start = copy(work, rows, row, START),
        .timezone = copy(work, rows, row, TIMEZONE),
        .has_default = PQgetvalue(rows, row, HAS_DEFAULT)[0] == 't',
        .template = copy(work, rows, row, TEMPLATE),
        .format = copy(work, rows, row, FORMAT),
        .export_format = copy(work, rows, row, EXPORT_FORMAT),
        .keep_table = PQgetvalue(rows, row, KEEP_TABLE)[0] == 't',
        .sub_text = copy(work, rows, row, SUB),
    };
    policy->shown = arena_printf(arena, "%s.%s", policy->schema, policy->table);
    policy->quoted = arena_printf(arena, "%s.%s", work_quote(arena, policy->schema),
                                  work_quote(arena, policy->table));
    return expiry_by_name(PQgetvalue(rows, row, ON_EXPIRY), &policy->expiry) &&
           control_by_name(PQgetvalue(rows, row, CONTROL), &policy->control) &&
           interval_parse(PQgetvalue(rows, row, EVERY), &policy->every) &&
           (!policy->keeps || interval_parse(PQgetvalue(rows, row, KEEP), &policy->keep)) &&
           (!policy->sub_text || !sub_parse(arena, policy->sub_text, &policy->sub));
}

/* A policy that a later version has written is left alone. */
static void fill_all(struct work *work, const PGresult *rows, struct policy *policies, int *count)
{
    for (int i = 0; i < PQntuples(rows); i++) {
        if (fill(work, rows, i, &policies[*count]))
            (*count)++;
        else
            work_tell(work, FLEET_FAILED, -1, policies[*count].shown,
                      "its policy is not understood: is another version of pgshunt at work?", NULL);
    }
}

bool policy_read(struct work *work, struct policy **policies, int *count)
{
    bool has;
    struct policy named = {.schema = NULL};
    *count = 0;
    *policies = NULL;
    if (!has_tables(work, &has))
        return false;
    if (!has)
        return true;
    if (work->call->table)
        policy_name(work, work->call->table, &named);
    PGresult *rows = db_query(work->catalog, WORK_QUERY_MS, &work->error, read_sql, 3,
                              work->database->name, named.schema, named.table);
    if (!rows)
        return false;
    *policies = arena_array(&work->arena, struct policy, PQntuples(rows) + 1);
    fill_all(work, rows, *policies, count);
    PQclear(rows);
    return true;
}

/* ---- a wish laid over a policy ---- */

struct applying {
    struct work *work;
    struct policy *policy;
    bool good;
};

static void wrong(struct applying *applying, const char *text, const char *mend)
{
    work_tell(applying->work, FLEET_PROBLEM, -1, applying->policy->shown, text, mend);
    applying->good = false;
}

static void apply_every(struct applying *applying, const char *every)
{
    struct policy *policy = applying->policy;
    struct arena *arena = &applying->work->arena;
    if (every && !interval_parse(every, &policy->every))
        wrong(applying, arena_printf(arena, "\"%s\" is no interval", every),
              "--every takes a number of minutes, hours, days, weeks, months, quarters or years "
              "(1month, 2weeks), or for ids a number");
    else if (!policy->every.count)
        wrong(applying, "it is not said how wide partitions are", "--every 1month");
    else if (control_refuses(policy->control, &policy->every))
        wrong(applying, control_refuses(policy->control, &policy->every),
              policy->control == CONTROL_ID
                  ? "--every 1000000, or --key seconds|milliseconds|microseconds if the numbers "
                    "are times"
                  : "--every 1month");
}

static void apply_ahead(struct applying *applying, const char *ahead)
{
    char *end;
    long count = ahead ? strtol(ahead, &end, 10) : 0;
    if (!ahead)
        return;
    if (*end || !isdigit((unsigned char)*ahead) || count < 1 || count > POLICY_AHEAD_MAX)
        wrong(applying, "--ahead takes a number from 1 to 1000: partitions beyond the present one",
              NULL);
    else
        applying->policy->ahead = (int)count;
}

static void apply_keep(struct applying *applying, const char *keep)
{
    struct policy *policy = applying->policy;
    struct arena *arena = &applying->work->arena;
    char every[INTERVAL_TEXT];
    if (keep && strcmp(keep, "forever") == 0)
        policy->keeps = false;
    else if (keep && !(policy->keeps = interval_parse(keep, &policy->keep)))
        wrong(applying, arena_printf(arena, "\"%s\" is no interval", keep),
              "--keep takes what --every does (12months), or forever");
    if (!policy->keeps || !applying->good)
        return;
    if ((policy->keep.unit == UNIT_NUMBER) != (policy->control == CONTROL_ID))
        wrong(applying, "--keep and --every are of different kinds",
              policy->control == CONTROL_ID ? "--keep takes a number of ids: --keep 50000000"
                                            : "--keep 12months");
    else if (interval_shorter(&policy->keep, &policy->every))
        wrong(applying,
              arena_printf(arena, "--keep is shorter than one partition, which is %s wide",
                           interval_print(&policy->every, every)),
              "rows can only go with all of their partition: keep longer, or make partitions "
              "smaller (--every)");
}

/* What goes with an export only. */
static void apply_export(struct applying *applying, const struct partition_wish *wish)
{
    struct policy *policy = applying->policy;
    const char *format = wish->format, *keep = wish->keep_table;
    if (policy->expiry != EXPIRY_EXPORT) {
        if (format || keep)
            wrong(applying,
                  format ? "--format is that of files" : "--keep-table goes with an export",
                  "--on-expiry export:DIRECTORY");
        return;
    }
    if (policy->archive[0] != '/')
        wrong(applying, "--on-expiry export: takes the whole path of a directory",
              "--on-expiry export:/var/lib/pgshunt/archive");
    if (format && strcmp(format, "csv") != 0 && strcmp(format, "binary") != 0)
        wrong(applying, "--format takes csv or binary", NULL);
    else if (format || !policy->export_format)
        policy->export_format = format ? format : "csv";
    if (keep && strcmp(keep, "on") != 0 && strcmp(keep, "off") != 0)
        wrong(applying, "--keep-table takes on or off", NULL);
    else if (keep)
        policy->keep_table = strcmp(keep, "on") == 0;
}

static void apply_expiry(struct applying *applying, const char *on_expiry)
{
    struct policy *policy = applying->policy;
    if (!on_expiry)
        return;
    policy->keep_table = false;
    policy->export_format = NULL;
    policy->archive = NULL;
    if (strcmp(on_expiry, "drop") == 0)
        policy->expiry = EXPIRY_DROP;
    else if (strcmp(on_expiry, "detach") == 0)
        policy->expiry = EXPIRY_DETACH;
    else if (strncmp(on_expiry, "archive:", 8) == 0 && on_expiry[8]) {
        policy->expiry = EXPIRY_ARCHIVE;
        policy->archive = on_expiry + 8;
    } else if (strncmp(on_expiry, "export:", 7) == 0 && on_expiry[7]) {
        policy->expiry = EXPIRY_EXPORT;
        policy->archive = on_expiry + 7;
    } else
        wrong(applying, "--on-expiry takes drop, detach, archive:SCHEMA, or export:DIRECTORY",
              NULL);
}

static void apply_zone(struct applying *applying, const char *zone)
{
    struct work *work = applying->work;
    if (!zone)
        return;
    PGresult *rows =
        db_query(work->catalog, WORK_QUERY_MS, &work->error,
                 "SELECT name FROM pg_timezone_names WHERE lower(name) = lower($1)", 1, zone);
    if (rows && PQntuples(rows))
        applying->policy->timezone = copy(work, rows, 0, 0);
    else
        wrong(applying, arena_printf(&work->arena, "there is no time zone \"%s\"", zone),
              "--timezone takes a name like UTC or Europe/Berlin (SELECT name FROM "
              "pg_timezone_names)");
    PQclear(rows);
}

static void apply_start(struct applying *applying, const char *start)
{
    int64_t value;
    char *end;
    struct policy *policy = applying->policy;
    if (!start)
        return;
    bool good = policy->control == CONTROL_ID ? (strtoll(start, &end, 10), end != start && !*end)
                                              : civil_read(start, &value, NULL);
    if (!good)
        wrong(applying,
              arena_printf(&applying->work->arena, "\"%s\" is no beginning for this column", start),
              policy->control == CONTROL_ID ? "--start takes a number" : "--start 2026-01-01");
    policy->start = start;
}

static void apply_format(struct applying *applying, const char *format)
{
    struct policy *policy = applying->policy;
    bool usual = !policy->format || name_refuses(policy->format, &policy->every);
    if (format || usual)
        policy->format = format ? format : name_usual_format(&policy->every);
    const char *why = applying->good ? name_refuses(policy->format, &policy->every) : NULL;
    if (why)
        wrong(applying,
              arena_printf(&applying->work->arena, "--name-format \"%s\": %s", policy->format, why),
              arena_printf(&applying->work->arena, "--name-format '%s'",
                           name_usual_format(&policy->every)));
}

static void apply_default(struct applying *applying, const char *has_default)
{
    if (!has_default)
        return;
    applying->policy->has_default = strcmp(has_default, "on") == 0;
    if (!applying->policy->has_default && strcmp(has_default, "off") != 0)
        wrong(applying, "--default takes on or off", NULL);
}

/* Narrower than the partitions are, in steps that the column can tell apart. */
static void check_range(struct applying *applying)
{
    struct policy *policy = applying->policy;
    char every[INTERVAL_TEXT];
    const char *why = control_refuses(policy->control, &policy->sub.every);
    if (why)
        wrong(applying, why, "--sub range:1day");
    else if (!interval_shorter(&policy->sub.every, &policy->every))
        wrong(applying,
              arena_printf(&applying->work->arena,
                           "--sub range: is not narrower than a partition, which is %s wide",
                           interval_print(&policy->every, every)),
              "--every 1month --sub range:1day");
}

static void apply_sub(struct applying *applying, const char *sub)
{
    struct policy *policy = applying->policy;
    struct arena *arena = &applying->work->arena;
    const char *why = sub ? sub_parse(arena, sub, &policy->sub) : NULL;
    if (why)
        wrong(applying, arena_printf(arena, "--sub \"%s\": %s", sub, why),
              "--sub hash:user_id:8, --sub 'list:country:de,fr,us:default'");
    if (sub)
        policy->sub_text = policy->sub.kind == SUB_NONE ? NULL : arena_strdup(arena, sub);
    if (applying->good && policy->sub.kind == SUB_RANGE)
        check_range(applying);
}

bool policy_apply(struct work *work, const struct partition_wish *wish, struct policy *policy)
{
    struct applying applying = {.work = work, .policy = policy, .good = true};
    if (!policy->timezone)
        policy->timezone = "UTC";
    if (!policy->ahead)
        policy->ahead = AHEAD_USUAL;
    apply_every(&applying, wish->every);
    apply_ahead(&applying, wish->ahead);
    apply_keep(&applying, wish->keep);
    apply_expiry(&applying, wish->on_expiry);
    apply_export(&applying, wish);
    apply_zone(&applying, wish->timezone);
    apply_start(&applying, wish->start);
    apply_default(&applying, wish->has_default);
    apply_format(&applying, wish->name_format);
    apply_sub(&applying, wish->sub);
    if (wish->template) {
        struct policy named = {.schema = NULL};
        policy_name(work, wish->template, &named);
        policy->template = named.quoted;
    }
    return applying.good;
}

/* ---- writing ---- */

static const char write_sql[] =
    "INSERT INTO pgshunt.partition_policy (database, schema_name, table_name, column_name, control,"
    " every, ahead, keep, on_expiry, archive, start, timezone, has_default, template, name_format,"
    " export_format, keep_table, sub)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)"
    " ON CONFLICT (database, schema_name, table_name) DO UPDATE SET column_name = $4, control = $5,"
    " every = $6, ahead = $7, keep = $8, on_expiry = $9, archive = $10, start = $11,"
    " timezone = $12, has_default = $13, template = $14, name_format = $15, export_format = $16,"
    " keep_table = $17, sub = $18, changed_at = now()";

bool policy_write(struct work *work, const struct policy *policy)
{
    char every[INTERVAL_TEXT], keep[INTERVAL_TEXT], ahead[16];
    snprintf(ahead, sizeof ahead, "%d", policy->ahead);
    return db_run(work->catalog, WORK_QUERY_MS, &work->error, write_sql, 18, work->database->name,
                  policy->schema, policy->table, policy->column, control_name(policy->control),
                  interval_print(&policy->every, every), ahead,
                  policy->keeps ? interval_print(&policy->keep, keep) : NULL,
                  expiries[policy->expiry], policy->archive, policy->start, policy->timezone,
                  policy->has_default ? "t" : "f", policy->template, policy->format,
                  policy->export_format, policy->keep_table ? "t" : "f", policy->sub_text);
}

bool policy_remove(struct work *work, const struct policy *policy)
{
    return db_run(work->catalog, WORK_QUERY_MS, &work->error,
                  "DELETE FROM pgshunt.partition_policy WHERE database = $1 AND schema_name = $2 "
                  "AND table_name = $3",
                  3, work->database->name, policy->schema, policy->table);
}
