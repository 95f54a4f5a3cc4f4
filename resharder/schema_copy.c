/* schema_copy.c: the source's schema restored on targets, in two parts, and rows of reference tables. */
#include "resharder/schema_copy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pgshunt/copyio.h"
#include "resharder/foreign_keys.h"
#include "resharder/index_watch.h"
#include "resharder/program.h"
#include "resharder/tables.h"

#define LONG_MS 3600000
#define DEADLOCK_TRIES 20
#define LOCK_TRIES 200

/* A schema on its way from a source to a target. */
struct schema_copy {
    struct reshard *reshard;
    unsigned source, target;
    bool only; /* the tables that move, next to others */
    const char *target_name;
    char folder[64];
    const char *dump, *list, *complaints; /* files in it */
};

static bool fails(struct schema_copy *copy, const char *text)
{
    copy->reshard->error = (struct db_error){.sqlstate = "58000"};
    snprintf(copy->reshard->error.text, sizeof copy->reshard->error.text, "%s", text);
    return false;
}

bool schema_is_empty(struct reshard *reshard, unsigned shard, bool *empty)
{
    struct db *db = reshard_primary(reshard, shard);
    PGresult *rows =
        db ? db_query(
                 db, RESHARD_QUERY_MS, &reshard->error,
                 "SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
                 " WHERE c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't'"
                 " AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgshunt')"
                 " AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass"
                 "  AND d.objid = c.oid AND d.deptype = 'e') LIMIT 1",
                 0)
           : NULL;
    *empty = rows && !PQntuples(rows);
    PQclear(rows);
    return rows != NULL;
}

/* ---- what is not taken along ---- */

/* Every relation with the root that it is a partition of; the map says of roots what they are. */
static const char root_query[] =
    "SELECT c.oid, n.nspname, r.relname FROM pg_class c JOIN pg_class r ON r.oid ="
    " CASE WHEN c.relispartition THEN pg_partition_root(c.oid)::oid ELSE c.oid END"
    " JOIN pg_namespace n ON n.oid = r.relnamespace WHERE c.relkind IN ('r', 'p', 'f')"
    " AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT IN ('information_schema', 'pgshunt')";
/* ... and views on them, and on those. $1: an array. */
static const char with_views_query[] =
    "WITH RECURSIVE gone(oid) AS (SELECT unnest($1::oid[]) UNION SELECT r.ev_class FROM gone g"
    " JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = g.oid"
    " AND d.classid = 'pg_rewrite'::regclass JOIN pg_rewrite r ON r.oid = d.objid)"
    " SELECT DISTINCT format('%I.%I', n.nspname, c.relname) FROM gone JOIN pg_class c USING (oid)"
    " JOIN pg_namespace n ON n.oid = c.relnamespace";

/* The relations that the target is not to have. NULL: reshard->error. */
static PGresult *read_excluded(struct schema_copy *copy)
{
    struct reshard *reshard = copy->reshard;
    struct db *db = reshard_primary(reshard, copy->source);
    const char *oids = "";
    PGresult *rows = db ? db_query(db, RESHARD_QUERY_MS, &reshard->error, root_query, 0) : NULL;
    for (int i = 0; rows && i < PQntuples(rows); i++) {
        const struct table_rule *rule =
            shardmap_table(reshard->map, PQgetvalue(rows, i, 1), PQgetvalue(rows, i, 2));
        if (rule->class != TABLE_SHARDED && rule->class != TABLE_REFERENCE)
            oids = RESHARD_TEXT(reshard, "%s%s%s", oids, *oids ? "," : "", PQgetvalue(rows, i, 0));
    }
    if (!rows)
        return NULL;
    PQclear(rows);
    return db_query(db, RESHARD_QUERY_MS, &reshard->error, with_views_query, 1,
                    RESHARD_TEXT(reshard, "{%s}", oids));
}

/* The tables that move, with their partitions and views, as pg_dump's options. False: reshard->error. */
static bool add_tables(struct schema_copy *copy, const char **argv, int *count, int most)
{
    struct reshard *reshard = copy->reshard;
    struct move_tables tables;
    struct db *db = reshard_primary(reshard, copy->source);
    if (!db || !tables_read(db, &reshard->moves, &reshard->arena, &tables, &reshard->error))
        return false;
    for (int i = 0; i < tables.count; i++) {
        PGresult *rows = db_query(
            db, RESHARD_QUERY_MS, &reshard->error,
            "WITH RECURSIVE wanted(oid) AS (SELECT $1::oid UNION SELECT r.ev_class FROM wanted w"
            " JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = w.oid"
            " AND d.classid = 'pg_rewrite'::regclass JOIN pg_rewrite r ON r.oid = d.objid)"
            " SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON"
            " n.oid = c.relnamespace WHERE c.oid IN (SELECT oid FROM wanted) OR c.oid IN (SELECT"
            " relid FROM pg_partition_tree($1::oid))",
            1, RESHARD_TEXT(reshard, "%u", tables.items[i].oid));
        if (!rows)
            return false;
        for (int row = 0; row < PQntuples(rows) && *count < most; row++)
            argv[(*count)++] = RESHARD_TEXT(reshard, "--table=%s", PQgetvalue(rows, row, 0));
        PQclear(rows);
    }
    return true;
}

/* ---- dump and restore ---- */

/* The last complaint that is none of what is there already; NULL: none. In the arena. */
static const char *real_complaint(struct schema_copy *copy)
{
    static const char *const harmless[] = {"already exists", "multiple primary keys for table",
                                           "unrecognized configuration parameter"};
    FILE *file = fopen(copy->complaints, "r");
    const char *found = NULL;
    char line[1024];
    while (file && fgets(line, sizeof line, file)) {
        bool counts = strstr(line, "error: ") != NULL;
        for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++)
            counts = counts && !strstr(line, harmless[i]);
        line[strcspn(line, "\n")] = '\0';
        if (counts && !found)
            found = RESHARD_TEXT(copy->reshard, "%.400s", line);
    }
    if (file)
        fclose(file);
    return found;
}

static bool dump(struct schema_copy *copy)
{
    struct reshard *reshard = copy->reshard;
    PGresult *excluded = read_excluded(copy);
    if (!excluded)
        return false;
    int most = PQntuples(excluded) + 4096, count = 0;
    const char **argv = arena_array(&reshard->arena, const char *, most);
    argv[count++] = program_find(reshard, "pg_dump");
    argv[count++] = "--format=custom";
    argv[count++] = "--schema-only";
    argv[count++] = "--no-publications";
    argv[count++] = "--no-subscriptions";
    argv[count++] = "--exclude-schema=pgshunt";
    argv[count++] = "--lock-wait-timeout=5s";
    argv[count++] = RESHARD_TEXT(reshard, "--file=%s", copy->dump);
    for (int i = 0; i < PQntuples(excluded); i++)
        argv[count++] = RESHARD_TEXT(reshard, "--exclude-table=%s", PQgetvalue(excluded, i, 0));
    PQclear(excluded);
    if (copy->only && !add_tables(copy, argv, &count, most - 1))
        return false;
    int status = program_run(reshard, copy->source, argv, NULL, copy->complaints);
    const char *complaint = status > 0 ? real_complaint(copy) : NULL;
    if (status > 0)
        fails(copy, complaint ? complaint : "pg_dump has failed");
    return status == 0;
}

/*
 * `options`: ends with NULL. What is there already is no failure. Where pg_restore makes several things at once, it may be in its own
 * way at indexes of partitions: again, until what is left of them is there.
 */
static bool restore(struct schema_copy *copy, const char *const *options)
{
    struct reshard *reshard = copy->reshard;
    const char *argv[16];
    int count = 0;
    struct db *target = reshard_primary(reshard, copy->target);
    if (!target)
        return false;
    argv[count++] = program_find(reshard, "pg_restore");
    argv[count++] = RESHARD_TEXT(reshard, "--dbname=%s", PQdb(db_connection(target)));
    for (; *options; options++)
        argv[count++] = *options;
    argv[count++] = copy->dump;
    argv[count] = NULL;
    int status;
    const char *complaint;
    int tries = DEADLOCK_TRIES;
    do {
        struct index_watch watch = {.reshard = reshard, .shard = copy->target};
        status = program_run_watched(reshard, copy->target, argv, NULL, copy->complaints,
                                     index_watch, &watch);
        complaint = status > 0 ? real_complaint(copy) : NULL;
    } while (complaint && strstr(complaint, "deadlock detected") && --tries > 0 &&
             !reshard_stopped(reshard));
    return status == 0 || (status > 0 && !complaint) || (complaint && fails(copy, complaint));
}

/* ---- primary keys: behind the tables in a dump, and wanted before the rows ---- */

/* "schema name" of the indexes that stand behind constraints. */
static const char constraints_query[] =
    "SELECT n.nspname || ' ' || c.relname FROM pg_constraint k JOIN pg_class c ON c.oid = "
    "k.conindid"
    " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE k.contype IN ('p', 'u', 'x')";

static bool is_listed(const PGresult *names, const char *text)
{
    for (int i = 0; i < PQntuples(names); i++) {
        size_t length = strlen(PQgetvalue(names, i, 0));
        if (strncmp(text, PQgetvalue(names, i, 0), length) == 0 && text[length] == ' ')
            return true;
    }
    return false;
}

/* A line of a list: "3191; 2606 16390 CONSTRAINT public users users_pkey owner". */
static bool is_wanted(const char *line, const PGresult *names)
{
    int at = 0;
    if (sscanf(line, "%*d; %*d %*d %n", &at) < 0 || !at)
        return false;
    const char *what = line + at;
    static const char attach[] = "INDEX ATTACH ";
    return strncmp(what, "CONSTRAINT ", 11) == 0 ||
           (strncmp(what, attach, sizeof attach - 1) == 0 &&
            is_listed(names, what + sizeof attach - 1));
}

/* Appends lines of one list to another: all, or those that is_wanted() (`names` not NULL). */
static bool append_list(struct schema_copy *copy, const char *list, const PGresult *names)
{
    FILE *from = fopen(list, "r"), *to = fopen(copy->list, "a");
    char line[2048];
    while (from && to && fgets(line, sizeof line, from))
        if (!names || is_wanted(line, names))
            fputs(line, to);
    bool good = from && to;
    if (from)
        fclose(from);
    if (to)
        good = fclose(to) == 0 && good;
    return good || fails(copy, "cannot write the list of what is restored");
}

/* What a section of the dump has, in a file. */
static bool list_section(struct schema_copy *copy, const char *section, const char *list)
{
    struct reshard *reshard = copy->reshard;
    const char *argv[] = {program_find(reshard, "pg_restore"), "--list", section, copy->dump, NULL};
    int status = program_run(reshard, copy->source, argv, list, copy->complaints);
    return status == 0 || (status > 0 && fails(copy, "pg_restore cannot list what was dumped"));
}

static bool restore_tables(struct schema_copy *copy)
{
    struct reshard *reshard = copy->reshard;
    const char *all = RESHARD_TEXT(reshard, "%s.all", copy->list);
    const char *options[] = {"--single-transaction",
                             RESHARD_TEXT(reshard, "--use-list=%s", copy->list), NULL};
    struct db *db = reshard_primary(reshard, copy->source);
    PGresult *names =
        db ? db_query(db, RESHARD_QUERY_MS, &reshard->error, constraints_query, 0) : NULL;
    bool good = names && list_section(copy, "--section=pre-data", all) &&
                append_list(copy, all, NULL) && list_section(copy, "--section=post-data", all) &&
                append_list(copy, all, names) && restore(copy, options);
    PQclear(names);
    unlink(all);
    return good;
}

/* ---- reference tables ---- */

static const char references_query[] =
    "SELECT n.nspname, c.relname, format('%I.%I', n.nspname, c.relname), (SELECT"
    " string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute a WHERE"
    " a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '')"
    " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p')"
    " AND NOT c.relispartition AND n.nspname NOT LIKE 'pg\\_%'"
    " AND n.nspname NOT IN ('information_schema', 'pgshunt')";

static bool pour(struct schema_copy *copy, struct db *from, struct db *to, const char *relation,
                 const char *columns)
{
    struct reshard *reshard = copy->reshard;
    struct db_error *error = &reshard->error;
    struct copyio out = {from, reshard->request->stop}, in = {to, reshard->request->stop};
    char *bytes;
    int length = -1;
    bool good =
        copyio_begin_out(
            &out, RESHARD_TEXT(reshard, "COPY (SELECT %s FROM %s) TO STDOUT", columns, relation),
            error) &&
        copyio_begin_in(&in, RESHARD_TEXT(reshard, "COPY %s (%s) FROM STDIN", relation, columns),
                        error);
    while (good && (length = copyio_get(&out, &bytes, error)) > 0) {
        good = copyio_put(&in, bytes, (size_t)length, error);
        PQfreemem(bytes);
    }
    return good && length == 0 && copyio_end_in(&in, error);
}

/* Writers of the table wait meanwhile, on both: a row written then is on both, or comes with the copy. */
static bool copy_reference_once(struct schema_copy *copy, struct db *from, struct db *to,
                                const char *relation, const char *columns)
{
    struct reshard *reshard = copy->reshard;
    struct db_error *error = &reshard->error;
    static const char begin[] = "BEGIN; SET LOCAL lock_timeout = '300ms'; SET LOCAL"
                                " session_replication_role = replica; LOCK TABLE %s IN %s MODE";
    if (!db_run(to, RESHARD_QUERY_MS, error,
                RESHARD_TEXT(reshard, begin, relation, "SHARE ROW EXCLUSIVE"), 0))
        return false;
    PGresult *rows = db_query(to, RESHARD_QUERY_MS, error,
                              RESHARD_TEXT(reshard, "SELECT EXISTS (SELECT FROM %s)", relation), 0);
    bool good = rows != NULL, filled = good && PQgetvalue(rows, 0, 0)[0] == 't';
    PQclear(rows);
    if (good && !filled)
        good = db_run(from, RESHARD_QUERY_MS, error,
                      RESHARD_TEXT(reshard, begin, relation, "SHARE"), 0) &&
               pour(copy, from, to, relation, columns);
    return good && db_run(to, LONG_MS, error, "COMMIT", 0);
}

static bool copy_reference(struct schema_copy *copy, const char *relation, const char *columns)
{
    struct reshard *reshard = copy->reshard;
    bool good = false, locked_out = true;
    for (int i = 0; i < LOCK_TRIES && !good && locked_out && !reshard_stopped(reshard); i++) {
        struct db *from = reshard_open(reshard, copy->source, &reshard->error);
        struct db *to = from ? reshard_open(reshard, copy->target, &reshard->error) : NULL;
        good = to && copy_reference_once(copy, from, to, relation, columns);
        locked_out = !good && strcmp(reshard->error.sqlstate, "55P03") == 0;
        db_close(to);
        db_close(from);
        if (locked_out)
            reshard_sleep(reshard, 100000);
    }
    return good;
}

static bool copy_references(struct schema_copy *copy)
{
    struct reshard *reshard = copy->reshard;
    struct db *db = reshard_primary(reshard, copy->source);
    PGresult *rows =
        db ? db_query(db, RESHARD_QUERY_MS, &reshard->error, references_query, 0) : NULL;
    bool good = rows != NULL;
    for (int i = 0; good && i < PQntuples(rows); i++)
        if (shardmap_table(reshard->map, PQgetvalue(rows, i, 0), PQgetvalue(rows, i, 1))->class ==
            TABLE_REFERENCE)
            good = copy_reference(copy, PQgetvalue(rows, i, 2), PQgetvalue(rows, i, 3));
    PQclear(rows);
    return good;
}

/* ---- both parts ---- */

static bool is_wished(const struct job *job)
{
    return json_is_true(json_object_get(job->options, "prepare_schema"));
}

static bool open_copy(struct schema_copy *copy, struct reshard *reshard, const struct link *link)
{
    const char *folder = getenv("TMPDIR");
    *copy =
        (struct schema_copy){.reshard = reshard, .source = link->source, .target = link->target};
    copy->target_name = shardmap_shard_name(reshard->map, link->target);
    snprintf(copy->folder, sizeof copy->folder, "%.40s/pgshunt-XXXXXX",
             folder && *folder && strlen(folder) < 40 ? folder : "/tmp");
    if (!mkdtemp(copy->folder)) {
        copy->folder[0] = '\0';
        return fails(copy, "cannot make a temporary folder");
    }
    copy->dump = RESHARD_TEXT(reshard, "%s/dump", copy->folder);
    copy->list = RESHARD_TEXT(reshard, "%s/list", copy->folder);
    copy->complaints = RESHARD_TEXT(reshard, "%s/complaints", copy->folder);
    return true;
}

static void close_copy(struct schema_copy *copy)
{
    if (!copy->folder[0])
        return;
    unlink(copy->dump);
    unlink(copy->list);
    unlink(copy->complaints);
    rmdir(copy->folder);
}

/* Foreign keys that are made here, not by pg_restore, are found in the list by the source's number. */
static bool take_key(const struct foreign_keys *keys, const char *line)
{
    unsigned oid = 0;
    bool constraint = sscanf(line, "%*d; 2606 %u", &oid) == 1;
    for (int i = 0; constraint && i < keys->count; i++)
        if (keys->items[i].oid == oid)
            return keys->items[i].wanted = true;
    return false;
}

/* What may be about a foreign key, or would be called when one is made, comes behind them. */
static bool is_late(const char *line)
{
    int at = 0;
    return sscanf(line, "%*d; %*u %*u %n", &at) >= 0 && at &&
           (strncmp(line + at, "COMMENT ", 8) == 0 ||
            strncmp(line + at, "EVENT TRIGGER ", 14) == 0);
}

/* What of the list is restored ahead of foreign keys, and behind them; these are marked. */
static bool divide_list(struct schema_copy *copy, const char *all, const char *late,
                        const struct foreign_keys *keys)
{
    FILE *from = fopen(all, "r"), *early_to = fopen(copy->list, "w"), *late_to = fopen(late, "w");
    char line[2048];
    while (from && early_to && late_to && fgets(line, sizeof line, from))
        if (!take_key(keys, line))
            fputs(line, is_late(line) ? late_to : early_to);
    bool good = from && early_to && late_to;
    if (from)
        fclose(from);
    if (early_to)
        good = fclose(early_to) == 0 && good;
    if (late_to)
        good = fclose(late_to) == 0 && good;
    return good || fails(copy, "cannot write the list of what is restored");
}

static bool make_rest(struct schema_copy *copy, int jobs)
{
    struct reshard *reshard = copy->reshard;
    struct foreign_keys keys;
    const char *all = RESHARD_TEXT(reshard, "%s.all", copy->list);
    const char *late = RESHARD_TEXT(reshard, "%s.late", copy->list);
    const char *at_once = RESHARD_TEXT(reshard, "--jobs=%d", jobs);
    const char *early_options[] = {RESHARD_TEXT(reshard, "--use-list=%s", copy->list), at_once,
                                   NULL};
    const char *late_options[] = {RESHARD_TEXT(reshard, "--use-list=%s", late), NULL};
    reshard_tell(reshard, RESHARD_NOTE, copy->target_name, NULL,
                 "indexes, triggers and foreign keys are made", NULL);
    bool good = dump(copy) && foreign_keys_read(reshard, copy->source, &keys) &&
                list_section(copy, "--section=post-data", all) &&
                divide_list(copy, all, late, &keys) && restore(copy, early_options) &&
                foreign_keys_make(reshard, copy->target, &keys, jobs) &&
                restore(copy, late_options);
    unlink(all);
    unlink(late);
    return good;
}

/* Whether a link before this one has the same target. */
static bool is_known(const struct link *links, int index)
{
    for (int i = 0; i < index; i++)
        if (links[i].target == links[index].target)
            return true;
    return false;
}

bool schema_copy_tables(struct reshard *reshard, unsigned source, unsigned target, bool only)
{
    struct link link = {source, target};
    struct schema_copy copy;
    bool good = open_copy(&copy, reshard, &link);
    copy.only = only;
    good = good && dump(&copy) && restore_tables(&copy) && (only || copy_references(&copy));
    close_copy(&copy);
    return good;
}

static bool finish_target(struct reshard *reshard, const struct job *job, const struct link *link,
                          int jobs)
{
    struct schema_copy copy;
    bool good = open_copy(&copy, reshard, link);
    copy.only = json_is_true(json_object_get(job->options, "only_tables"));
    good = good && make_rest(&copy, jobs ? jobs : 2);
    close_copy(&copy);
    return good;
}

/* Statistics of what has just come there: plans are made by them right behind the switch. */
static bool analyze(struct reshard *reshard, unsigned shard)
{
    struct move_tables tables;
    struct db *db = reshard_primary(reshard, shard);
    bool good = db && tables_read(db, &reshard->moves, &reshard->arena, &tables, &reshard->error);
    for (int i = 0; good && i < tables.count; i++)
        good = db_run(db, LONG_MS, &reshard->error,
                      RESHARD_TEXT(reshard, "ANALYZE %s", tables.items[i].relation), 0);
    return good;
}

bool schema_copy_finish(struct reshard *reshard, const struct job *job, int jobs)
{
    int count;
    bool good = true;
    const struct link *links = moves_links(&reshard->moves, &reshard->arena, &count);
    for (int i = 0; i < count && good; i++)
        good = is_known(links, i) ||
               ((!is_wished(job) || finish_target(reshard, job, &links[i], jobs)) &&
                analyze(reshard, links[i].target));
    return good;
}
