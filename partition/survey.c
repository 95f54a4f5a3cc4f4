/* survey.c: partitions with their sizes gathered from all shards, and put together for list and show. */
#include "partition/survey.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct gathering {
    const struct policy *policies;
    int count;
    enum survey_kind kind;
    struct found *found;
};

/* Tables that are looked at by one query. */
#define TOGETHER 32

/* ---- a shard ---- */

/*
 * $1: oids of parents. %s: how much an ordinary partition takes. Partitions that are partitioned themselves are as large as their
 * parts; foreign ones take no room here.
 */
static const char sizes_sql[] =
    "SELECT i.inhparent, i.inhrelid, CASE c.relkind WHEN 'p' THEN (SELECT sum(%s) FROM "
    "pg_partition_tree(i.inhrelid) AS l JOIN pg_class AS c ON c.oid = l.relid WHERE l.isleaf) WHEN "
    "'r' THEN %s ELSE 0 END, CASE c.relkind WHEN 'p' THEN (SELECT "
    "sum(greatest(l.reltuples, 0)) FROM pg_partition_tree(c.oid) JOIN pg_class AS l ON l.oid = "
    "relid WHERE isleaf) ELSE greatest(c.reltuples, 0) END, CASE c.relkind WHEN 'p' THEN (SELECT "
    "count(*) FROM pg_inherits AS h WHERE h.inhparent = c.oid) ELSE 0 END"
    " FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid"
    " WHERE i.inhparent = ANY ($1::oid[])";

enum { PARENT, PARTITION, BYTES, ROWS, PARTS };

static const char exact_size[] = "pg_total_relation_size(c.oid)";

/*
 * Pages as they were counted when it was last vacuumed or analyzed: to measure a partition the server has to open it, with
 * its indexes, and remembers each. What has got rows since it was made and was not counted yet is measured.
 */
static const char about_size[] =
    "CASE WHEN c.relpages = 0 AND pg_stat_get_tuples_inserted(c.oid) > 0"
    " THEN pg_total_relation_size(c.oid)"
    " ELSE current_setting('block_size')::bigint * (c.relpages"
    " + (SELECT coalesce(sum(t.relpages), 0) FROM pg_class AS t WHERE t.oid = c.reltoastrelid)"
    " + (SELECT coalesce(sum(x.relpages), 0) FROM pg_index AS y JOIN pg_class AS x"
    " ON x.oid = y.indexrelid WHERE y.indrelid IN (c.oid, c.reltoastrelid))) END";

/*
 * $1: oids of parents. Indexes that are not valid on the parent have no part on some partition. Privileges: '' is those of nobody
 * else; they are only taken apart where they are not the same at the first look.
 */
static const char care_sql[] =
    "SELECT p.oid, (SELECT count(*) FROM pg_index WHERE indrelid = p.oid AND NOT indisvalid),"
    " (SELECT count(*) FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid"
    "  WHERE i.inhparent = p.oid AND (p.relacl IS NOT NULL OR c.relacl IS NOT NULL)"
    "   AND NOT coalesce(p.relacl = c.relacl AND p.relowner = c.relowner, false) AND ("
    "   SELECT coalesce(string_agg(format('%s %s', grantee, privilege_type), ',' ORDER BY grantee, "
    "privilege_type), '')"
    "   FROM aclexplode(p.relacl) WHERE grantee <> p.relowner) <> ("
    "   SELECT coalesce(string_agg(format('%s %s', grantee, privilege_type), ',' ORDER BY grantee, "
    "privilege_type), '')"
    "   FROM aclexplode(c.relacl) WHERE grantee <> c.relowner)),"
    " (SELECT count(*) FROM pg_inherits AS i JOIN pg_partitioned_table AS d ON d.partrelid ="
    "  i.inhrelid WHERE i.inhparent = p.oid AND CASE d.partstrat WHEN 'h' THEN (SELECT"
    "  coalesce(sum(1.0 / (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'modulus "
    "(\\d+)'))[1]::int), 0) FROM pg_inherits AS h JOIN pg_class AS c ON c.oid = h.inhrelid WHERE "
    "h.inhparent = d.partrelid) < 0.9999 ELSE NOT EXISTS (SELECT FROM pg_inherits AS h WHERE "
    "h.inhparent = d.partrelid) END)"
    " FROM pg_class AS p WHERE p.oid = ANY ($1::oid[])";

static int find_have(const struct parent *parent, const char *oid)
{
    int i = 0;
    while (i < parent->nhave && strcmp(parent->have[i].oid, oid) != 0)
        i++;
    return i;
}

static int find_parent(const struct parent *parents, int count, const char *oid)
{
    int i = 0;
    while (i < count && (parents[i].kind != PARENT_GOOD || strcmp(parents[i].oid, oid) != 0))
        i++;
    return i;
}

static void note_size(const PGresult *rows, int row, const struct parent *parent,
                      struct found *found)
{
    int which = find_have(parent, PQgetvalue(rows, row, PARTITION));
    if (which == parent->nhave)
        return;
    found->bytes[which] = strtoll(PQgetvalue(rows, row, BYTES), NULL, 10);
    found->parts[which] = atoi(PQgetvalue(rows, row, PARTS));
    found->rows[which] = PQgetisnull(rows, row, ROWS) ? -1 : atof(PQgetvalue(rows, row, ROWS));
}

/* found[i * shards] is that of parents[i]; here and below. */
static bool read_sizes(struct shard_work *shard, enum survey_kind kind,
                       const struct parent *parents, int count, struct found *found)
{
    int shards = shard->work->database->nshards;
    struct arena *arena = &shard->arena;
    const char *size = kind == SURVEY_EXACT ? exact_size : about_size;
    PGresult *rows =
        db_query(shard->db, WORK_QUERY_MS, &shard->error,
                 arena_printf(arena, sizes_sql, size, size), 1, look_oids(arena, parents, count));
    for (int i = 0; rows && i < PQntuples(rows); i++) {
        int which = find_parent(parents, count, PQgetvalue(rows, i, PARENT));
        if (which < count)
            note_size(rows, i, &parents[which], &found[which * shards]);
    }
    PQclear(rows);
    return rows != NULL;
}

static bool read_care(struct shard_work *shard, const struct parent *parents, int count,
                      struct found *found)
{
    int shards = shard->work->database->nshards;
    PGresult *rows = db_query(shard->db, WORK_QUERY_MS, &shard->error, care_sql, 1,
                              look_oids(&shard->arena, parents, count));
    for (int i = 0; rows && i < PQntuples(rows); i++) {
        int which = find_parent(parents, count, PQgetvalue(rows, i, 0));
        if (which == count)
            continue;
        found[which * shards].bare_indexes = atoi(PQgetvalue(rows, i, 1));
        found[which * shards].other_privileges = atoi(PQgetvalue(rows, i, 2));
        found[which * shards].bare_parts = atoi(PQgetvalue(rows, i, 3));
    }
    PQclear(rows);
    return rows != NULL;
}

/* One statement that counts the rows of all default partitions; NULL: there is none. */
static const char *count_defaults_sql(struct arena *arena, const struct parent *parents, int count)
{
    const char *sql = NULL;
    for (int i = 0; i < count; i++) {
        const struct have *rest = parents[i].nhave ? &parents[i].have[parents[i].nhave - 1] : NULL;
        if (parents[i].kind != PARENT_GOOD || !rest || !rest->is_default)
            continue;
        sql = arena_printf(arena, "%s%sSELECT %d, count(*) FROM (SELECT FROM %s.%s LIMIT %d) AS r",
                           sql ? sql : "", sql ? " UNION ALL " : "", i,
                           work_quote(arena, rest->schema), work_quote(arena, rest->name),
                           SURVEY_ROWS_MAX);
    }
    return sql;
}

static bool count_defaults(struct shard_work *shard, const struct parent *parents, int count,
                           struct found *found)
{
    int shards = shard->work->database->nshards;
    const char *sql = count_defaults_sql(&shard->arena, parents, count);
    if (!sql)
        return true;
    PGresult *rows = db_query(shard->db, WORK_QUERY_MS, &shard->error, sql, 0);
    for (int i = 0; rows && i < PQntuples(rows); i++)
        found[atoi(PQgetvalue(rows, i, 0)) * shards].default_rows =
            strtoll(PQgetvalue(rows, i, 1), NULL, 10);
    PQclear(rows);
    return rows != NULL;
}

/* Into work's arena, which all shards share. */
static void keep(struct work *work, const struct parent *parent, struct found *found)
{
    struct arena *arena = &work->arena;
    pthread_mutex_lock(&work->telling);
    *found = (struct found){.known = true, .kind = parent->kind, .why = parent->why};
    found->nhave = parent->nhave;
    found->have = arena_array(arena, struct have, parent->nhave + 1);
    found->bytes = arena_array(arena, int64_t, parent->nhave + 1);
    found->rows = arena_array(arena, double, parent->nhave + 1);
    found->parts = arena_array(arena, int, parent->nhave + 1);
    for (int i = 0; i < parent->nhave; i++) {
        found->have[i] = parent->have[i];
        found->have[i].schema = arena_strdup(arena, parent->have[i].schema);
        found->have[i].name = arena_strdup(arena, parent->have[i].name);
        found->have[i].oid = arena_strdup(arena, parent->have[i].oid);
        found->rows[i] = -1;
        found->parts[i] = 0;
    }
    pthread_mutex_unlock(&work->telling);
}

/* Tables whose policies are policies[0 .. count - 1]; found is the first one's. */
static bool gather_some(struct shard_work *shard, const struct policy *policies, int count,
                        enum survey_kind kind, struct found *found)
{
    struct parent parents[TOGETHER];
    int shards = shard->work->database->nshards;
    if (!look_parents(shard, policies, count, parents))
        return false;
    for (int i = 0; i < count; i++) {
        if (work_place(shard->work, policies[i].schema, policies[i].table, shard->shard) ==
            PLACE_NONE)
            parents[i].kind = PARENT_MISSING;
        else
            keep(shard->work, &parents[i], &found[i * shards]);
    }
    return (kind == SURVEY_CARE ? read_care(shard, parents, count, found)
                                : read_sizes(shard, kind, parents, count, found)) &&
           count_defaults(shard, parents, count, found);
}

static void gather_task(struct shard_work *shard)
{
    const struct gathering *gathering = shard->task;
    int shards = shard->work->database->nshards;
    for (int i = 0; i < gathering->count && !work_stopped(shard->work); i += TOGETHER) {
        int count = gathering->count - i < TOGETHER ? gathering->count - i : TOGETHER;
        if (!gather_some(shard, &gathering->policies[i], count, gathering->kind,
                         &gathering->found[i * shards + (int)shard->shard])) {
            work_fails(shard->work, (int)shard->shard, NULL, "cannot look at partitions",
                       &shard->error);
            return;
        }
        arena_reset(&shard->arena);
    }
}

/* In work's arena. */
static struct found *gather(struct work *work, const struct policy *policies, int count,
                            enum survey_kind kind)
{
    struct gathering gathering = {
        .policies = policies,
        .count = count,
        .kind = kind,
        .found = arena_array(&work->arena, struct found, count * work->database->nshards + 1),
    };
    work_on_shards(work, gather_task, &gathering);
    return gathering.found;
}

/*
 * So many tables at once that neither we nor the servers' sessions, which remember each partition they have measured, need
 * memory for all of them.
 */
#define AT_ONCE 64

void survey_each(struct work *work, const struct policy *policies, int count, enum survey_kind kind,
                 survey_fn *use, void *arg)
{
    int shards = work->database->nshards;
    for (int first = 0; first < count && !work_stopped(work); first += AT_ONCE) {
        int some = count - first < AT_ONCE ? count - first : AT_ONCE;
        struct arena lasting = work->arena;
        arena_init(&work->arena);
        const struct found *found = gather(work, policies + first, some, kind);
        for (int i = 0; i < some; i++)
            use(arg, first + i, &found[i * shards]);
        arena_free(&work->arena);
        work->arena = lasting;
    }
}

/* ---- put together ---- */

/* One range, on all shards that have it. */
struct merged {
    struct have have;
    int64_t bytes, rows;
    int shards, parts;
    uint64_t on; /* bits of shards; beyond 64 they are only counted */
};

static int by_have(const void *a, const void *b)
{
    const struct merged *one = a, *other = b;
    if (one->have.is_default != other->have.is_default)
        return one->have.is_default - other->have.is_default;
    if (one->have.range.from != other->have.range.from)
        return one->have.range.from < other->have.range.from ? -1 : 1;
    return (one->have.range.to > other->have.range.to) -
           (one->have.range.to < other->have.range.to);
}

static bool is_same(const struct merged *merged, const struct have *have)
{
    return merged->have.is_default == have->is_default &&
           merged->have.range.from == have->range.from && merged->have.range.to == have->range.to;
}

static void add_rows(struct merged *merged, double rows)
{
    if (rows >= 0)
        merged->rows = (merged->rows < 0 ? 0 : merged->rows) + (int64_t)rows;
}

static void merge_one(struct merged *all, int *count, const struct found *found, int which,
                      int shard)
{
    int i = 0;
    while (i < *count && !is_same(&all[i], &found->have[which]))
        i++;
    if (i == *count)
        all[(*count)++] = (struct merged){.have = found->have[which], .rows = -1};
    all[i].bytes += found->bytes[which];
    all[i].shards++;
    if (all[i].parts < found->parts[which])
        all[i].parts = found->parts[which];
    all[i].on |= shard < 64 ? UINT64_C(1) << shard : 0;
    all[i].have.pending |= found->have[which].pending;
    add_rows(&all[i], found->rows[which]);
}

static struct merged *merge(struct work *work, const struct found *found, int *count, int *having)
{
    int total = 0;
    *count = *having = 0;
    for (int i = 0; i < work->database->nshards; i++)
        total += found[i].nhave;
    struct merged *all = arena_array(&work->arena, struct merged, total + 1);
    for (int i = 0; i < work->database->nshards; i++) {
        *having += found[i].known && found[i].kind == PARENT_GOOD;
        for (int j = 0; j < found[i].nhave; j++)
            merge_one(all, count, &found[i], j, i);
    }
    qsort(all, (size_t)*count, sizeof *all, by_have);
    return all;
}

/* ---- as it is shown ---- */

struct showing {
    struct work *work;
    const struct policy *policy;
    const struct found *found; /* per shard */
    struct aim aim;
    struct arena *arena;
    struct partition_table *table;
};

static const char *keep_text(struct arena *arena, const char *text)
{
    return text ? arena_strdup(arena, text) : NULL;
}

static const char *on_shards(const struct showing *showing, const struct merged *merged, int having)
{
    const struct database_config *database = showing->work->database;
    if (merged->shards >= having)
        return "all";
    const char *names = "";
    for (int i = 0; i < database->nshards && i < 64; i++)
        if (merged->on >> i & 1)
            names = arena_printf(showing->arena, "%s%s%s", names, *names ? ", " : "",
                                 database->shards[i].name);
    return names;
}

static const char *state_of(const struct showing *showing, const struct have *have)
{
    const struct aim *aim = &showing->aim;
    if (have->is_default)
        return "default";
    if (have->pending)
        return "pending";
    if (have->range.to <= aim->line)
        return "expired";
    return have->range.to <= aim->point ? "past" : have->range.from > aim->point ? "ahead" : "now";
}

static void show_partitions(struct showing *showing, const struct merged *merged, int count,
                            int having)
{
    struct work *work = showing->work;
    struct partition_table *table = showing->table;
    int64_t *points = arena_array(&work->arena, int64_t, 2 * count + 1);
    const char **texts = arena_array(&work->arena, const char *, 2 * count + 1);
    for (int i = 0; i < count; i++) {
        points[2 * i] = merged[i].have.range.from;
        points[2 * i + 1] = merged[i].have.range.to;
    }
    if (!aim_show(work, showing->policy, points, 2 * count, texts))
        return;
    table->partitions = arena_array(showing->arena, struct partition_shown, count + 1);
    table->npartitions = count;
    for (int i = 0; i < count; i++)
        table->partitions[i] = (struct partition_shown){
            .name = keep_text(showing->arena, merged[i].have.name),
            .from = merged[i].have.is_default ? NULL : keep_text(showing->arena, texts[2 * i]),
            .to = merged[i].have.is_default ? NULL : keep_text(showing->arena, texts[2 * i + 1]),
            .state = state_of(showing, &merged[i].have),
            .bytes = merged[i].bytes,
            .rows = merged[i].rows,
            .parts = merged[i].parts,
            .shards = on_shards(showing, &merged[i], having),
        };
}

/* Partitions beyond the present one, without a hole. */
static int ahead_of(const struct aim *aim, int64_t until)
{
    int ahead = 0;
    for (int i = 0; i < aim->ncells; i++)
        ahead += aim->cells[i].range.from > aim->point && aim->cells[i].range.to <= until;
    return ahead;
}

static int64_t covered_to(const struct showing *showing)
{
    int64_t until = BOUND_MOST;
    for (int i = 0; i < showing->work->database->nshards; i++) {
        const struct found *found = &showing->found[i];
        if (!found->known || found->kind != PARENT_GOOD)
            continue;
        int64_t here = plan_covered_to(found->have, found->nhave, showing->aim.point);
        until = here < until ? here : until;
    }
    return until == BOUND_MOST ? showing->aim.point : until;
}

/* When the present reaches the end of the first cell a partition is made; when the line reaches its end, one expires. */
static void show_next(struct showing *showing, const struct merged *merged, int count)
{
    const struct aim *aim = &showing->aim;
    int64_t points[3] = {BOUND_MOST, BOUND_MOST, covered_to(showing)};
    const char *texts[3];
    struct partition_table *table = showing->table;
    for (int i = 0; i < aim->ncells && points[0] == BOUND_MOST; i++)
        if (aim->cells[i].range.to > aim->point)
            points[0] = aim->cells[i].range.to;
    for (int i = 0; i < count && points[1] == BOUND_MOST; i++)
        if (!merged[i].have.is_default && showing->policy->keeps &&
            merged[i].have.range.to != BOUND_MOST)
            points[1] = merged[i].have.range.to;
    table->have_ahead = ahead_of(aim, points[2]);
    table->covered_seconds =
        showing->policy->control == CONTROL_ID ? NAN : (double)(points[2] - aim->point) / 1000000;
    if (!aim_show(showing->work, showing->policy, points, 3, texts))
        return;
    table->until = keep_text(showing->arena, texts[2]);
    table->next_creation = points[0] == BOUND_MOST ? NULL : keep_text(showing->arena, texts[0]);
    char keep[INTERVAL_TEXT];
    if (points[1] != BOUND_MOST)
        table->next_expiry = arena_printf(showing->arena, "%s + %s", texts[1],
                                          interval_print(&showing->policy->keep, keep));
}

static void show_policy(struct showing *showing)
{
    char every[INTERVAL_TEXT], keep[INTERVAL_TEXT];
    const struct policy *policy = showing->policy;
    struct arena *arena = showing->arena;
    *showing->table = (struct partition_table){
        .table = keep_text(arena, policy->shown),
        .by = keep_text(arena, policy->column),
        .every = keep_text(arena, interval_print(&policy->every, every)),
        .keep = policy->keeps ? keep_text(arena, interval_print(&policy->keep, keep)) : "forever",
        .on_expiry = policy_expiry_text(arena, policy),
        .timezone = keep_text(arena, policy->timezone),
        .ahead = policy->ahead,
        .sub = keep_text(arena, policy->sub_text),
    };
}

static void show_table(struct showing *showing, bool details)
{
    int count, having;
    struct merged *merged = merge(showing->work, showing->found, &count, &having);
    for (int i = 0; i < count; i++) {
        showing->table->bytes += merged[i].bytes;
        if (i + 1 < count && !merged[i].have.is_default &&
            merged[i].have.range.to <= showing->aim.line)
            showing->table->bytes_to_expire += merged[i].bytes;
    }
    for (int i = 0; i < showing->work->database->nshards; i++)
        showing->table->default_rows += showing->found[i].default_rows;
    show_next(showing, merged, count);
    if (details)
        show_partitions(showing, merged, count, having);
}

static const char last_run_sql[] =
    "SELECT to_char(finished_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || ' UTC', outcome,"
    " extract(epoch FROM finished_at - started_at), (SELECT extract(epoch FROM max(finished_at)) "
    "FROM"
    "  pgshunt.partition_run WHERE database = $1 AND outcome = 'done')"
    " FROM pgshunt.partition_run WHERE database = $1 ORDER BY id DESC LIMIT 1";

static void read_last_run(struct work *work, struct partition_survey *survey)
{
    PGresult *rows =
        db_query(work->catalog, WORK_QUERY_MS, &work->error, last_run_sql, 1, work->database->name);
    if (rows && PQntuples(rows)) {
        survey->last_run = arena_strdup(&survey->arena, PQgetvalue(rows, 0, 0));
        survey->last_outcome = arena_strdup(&survey->arena, PQgetvalue(rows, 0, 1));
        survey->last_seconds = strtod(PQgetvalue(rows, 0, 2), NULL);
        survey->last_success = strtod(PQgetvalue(rows, 0, 3), NULL);
    }
    PQclear(rows);
}

struct looking {
    struct work *work;
    const struct policy *policies;
    const struct aim *aims;
    bool details;
    struct partition_survey *survey;
};

static void look_at(void *arg, int which, const struct found *found)
{
    const struct looking *looking = arg;
    struct partition_survey *survey = looking->survey;
    struct showing showing = {.work = looking->work,
                              .policy = &looking->policies[which],
                              .found = found,
                              .aim = looking->aims[which],
                              .arena = &survey->arena,
                              .table = &survey->tables[which]};
    show_table(&showing, looking->details);
}

static void look(struct work *work, bool details, struct partition_survey *survey)
{
    struct policy *policies;
    int count;
    if (!policy_read(work, &policies, &count)) {
        work_fails(work, -1, NULL, "cannot read the policies", &work->error);
        return;
    }
    if (work->call->table && !count)
        work_tell(work, FLEET_FAILED, -1, work->call->table, "it has no policy",
                  "pgshuntctl partition create, or adopt");
    struct maintain maintain = {
        .work = work, .policies = policies, .npolicies = count, .looking = true};
    maintain_look(&maintain);
    survey->tables = arena_array(&survey->arena, struct partition_table, count + 1);
    survey->ntables = count;
    struct looking looking = {work, policies, maintain.aims, details, survey};
    for (int i = 0; i < count; i++) /* some may not be looked at, when it is stopped */
        show_policy(&(struct showing){
            .policy = &policies[i], .arena = &survey->arena, .table = &survey->tables[i]});
    survey_each(work, policies, count, details ? SURVEY_EXACT : SURVEY_ABOUT, look_at, &looking);
    if (count)
        read_last_run(work, survey);
}

enum fleet_outcome partition_look(const struct partition_call *call, bool details,
                                  struct partition_survey *survey)
{
    struct work work;
    *survey = (struct partition_survey){.ntables = 0};
    arena_init(&survey->arena);
    if (work_begin(&work, call))
        look(&work, details, survey);
    enum fleet_outcome outcome = work_outcome(&work);
    work_end(&work);
    return outcome;
}

void partition_survey_free(struct partition_survey *survey)
{
    arena_free(&survey->arena);
}
