/* make.c: tables made like their parent, filled from the default partition, and attached. */
#include "partition/make.h"

#include <stdio.h>
#include <string.h>

#include "partition/attempt.h"
#include "partition/guard.h"
#include "pgshunt/failpoint.h"

#define LIKE_PARENT                                                                                \
    " INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING GENERATED INCLUDING STORAGE "             \
    "INCLUDING COMPRESSION INCLUDING STATISTICS INCLUDING COMMENTS"
#define LIKE_PARENT_13                                                                             \
    " INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING GENERATED INCLUDING STORAGE "             \
    "INCLUDING STATISTICS INCLUDING COMMENTS"

/* Stands for the partition's name in statements that the server has put together; no name has it. */
#define NAME_MARK '\001'

/* What every partition of a table has besides its columns. */
struct dress {
    const char *kind;    /* "" or "UNLOGGED " */
    const char *like;    /* what it is made like, and what of it */
    const char *with;    /* storage parameters and tablespace; "" */
    const char *behind;  /* statements behind CREATE, with NAME_MARK for its name; "" */
    const char *oids;    /* of the parent, its default and the tables of its foreign keys */
    const char *columns; /* that rows are moved with: all but generated ones */
    bool quiet;          /* rows can be moved without triggers and foreign keys acting */
    bool noisy;          /* ... and there are some that would act */
    bool identified;     /* the parent's replica identity is an index */
};

/*
 * $1: the parent, $2: the template or NULL. Owner, privileges and replica identity are the parent's; logging, storage
 * parameters and tablespace the template's where there is one.
 */
static const char dress_sql[] =
    "SELECT CASE WHEN t.relpersistence = 'u' THEN 'UNLOGGED ' ELSE '' END,"
    " coalesce(' WITH (' || array_to_string(t.reloptions, ', ') || ')', '')"
    " || coalesce(' TABLESPACE ' || quote_ident(s.spcname), ''),"
    " CASE WHEN c.relowner <> (SELECT oid FROM pg_roles WHERE rolname = current_user)"
    "  THEN format('ALTER TABLE \001 OWNER TO %I; ', pg_get_userbyid(c.relowner)) ELSE '' END"
    " || CASE c.relreplident WHEN 'f' THEN 'ALTER TABLE \001 REPLICA IDENTITY FULL; '"
    "  WHEN 'n' THEN 'ALTER TABLE \001 REPLICA IDENTITY NOTHING; ' ELSE '' END"
    " || coalesce((SELECT string_agg(format('GRANT %s ON \001 TO %s%s; ', privilege_type,"
    "  CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,"
    "  CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END), '' ORDER BY grantee, "
    "privilege_type) FROM aclexplode(c.relacl) WHERE grantee <> c.relowner), ''),"
    " ARRAY[c.oid] || ARRAY(SELECT partdefid FROM pg_partitioned_table WHERE partrelid = c.oid AND "
    "partdefid <> 0) || ARRAY(SELECT confrelid FROM pg_constraint WHERE conrelid = c.oid AND "
    "contype = 'f'),"
    " t.oid IS NULL, (SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM "
    "pg_attribute"
    "  WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = ''),"
    " (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),"
    " EXISTS (SELECT FROM pg_constraint WHERE confrelid = c.oid) OR EXISTS (SELECT FROM pg_trigger"
    "  WHERE tgrelid = c.oid AND NOT tgisinternal), c.relreplident = 'i'"
    " FROM pg_class AS c LEFT JOIN pg_class AS t ON t.oid = coalesce(to_regclass($2), CASE WHEN "
    "$2::text IS "
    "NULL THEN c.oid END)::oid LEFT JOIN pg_tablespace AS s ON s.oid = t.reltablespace WHERE c.oid "
    "= $1";

static bool find_dress(struct shard_work *shard, const struct policy *policy,
                       const struct parent *parent, struct dress *dress)
{
    struct arena *arena = &shard->arena;
    PGresult *rows = db_query(shard->db, WORK_QUERY_MS, &shard->error, dress_sql, 2, parent->oid,
                              policy->template);
    bool found = rows && PQntuples(rows) && PQgetvalue(rows, 0, 4)[0] == 'f';
    if (found)
        *dress = (struct dress){
            .kind = arena_strdup(arena, PQgetvalue(rows, 0, 0)),
            .with = arena_strdup(arena, PQgetvalue(rows, 0, 1)),
            .behind = arena_strdup(arena, PQgetvalue(rows, 0, 2)),
            .oids = arena_strdup(arena, PQgetvalue(rows, 0, 3)),
            .columns = arena_strdup(arena, PQgetvalue(rows, 0, 5)),
            .quiet = PQgetvalue(rows, 0, 6)[0] == 't',
            .noisy = PQgetvalue(rows, 0, 7)[0] == 't',
            .identified = PQgetvalue(rows, 0, 8)[0] == 't',
        };
    else if (rows)
        shard->error = (struct db_error){.text = "the template table is not there"};
    PQclear(rows);
    bool old = PQserverVersion(db_connection(shard->db)) < 140000;
    if (parent->kind == PARENT_PLAIN && !policy->template)
        dress->kind = dress->with = ""; /* all partitions alike: those to come find nothing of it */
    dress->like =
        policy->template
            ? arena_printf(arena, "%s INCLUDING ALL EXCLUDING IDENTITY", policy->template)
            : arena_printf(arena, "%s%s", policy->quoted, old ? LIKE_PARENT_13 : LIKE_PARENT);
    return found || work_fails(shard->work, (int)shard->shard, policy->shown,
                               "cannot read how its partitions are to be", &shard->error);
}

/* Each mark replaced by the partition's name. */
static const char *put_name(struct arena *arena, const char *text, const char *name)
{
    size_t times = 0, length = strlen(name);
    for (const char *at = text; (at = strchr(at, NAME_MARK)) != NULL; at++)
        times++;
    char *out = arena_alloc(arena, strlen(text) + times * length + 1), *to = out;
    for (const char *at = text; *at; at++) {
        if (*at == NAME_MARK)
            to = stpcpy(to, name);
        else
            *to++ = *at;
    }
    *to = '\0';
    return out;
}

/* ---- one partition ---- */

struct making {
    struct shard_work *shard;
    const struct policy *policy;
    struct parent *parent;
    const struct aim *aim;
    struct dress dress;
    const struct have *rest; /* the default partition; NULL: none */
    struct guard guard;      /* ... of it */
    bool last;               /* the guard goes with this one */
};

static const char *bound_text(struct arena *arena, const struct making *making, int64_t point)
{
    char text[BOUND_TEXT];
    if (!bound_print(making->policy->control, making->parent->width, point, text))
        return NULL;
    return arena_printf(arena, "'%s'", text);
}

/* False: the column cannot hold its bounds. */
static bool bounds_of(const struct making *making, const struct wanted *wanted, const char **from,
                      const char **to)
{
    *from = bound_text(&making->shard->arena, making, wanted->range.from);
    *to = bound_text(&making->shard->arena, making, wanted->range.to);
    return *from && *to;
}

static const char *name_for(struct arena *arena, const struct making *making,
                            const struct wanted *wanted, int again)
{
    char name[NAME_SIZE];
    const struct policy *policy = making->policy;
    name_of(policy->table, policy->format, &policy->every, wanted->begin, name);
    return again ? arena_printf(arena, "%.*s_%d", NAME_SIZE - 3, name, again + 1)
                 : arena_strdup(arena, name);
}

static const char *default_name(struct arena *arena, const struct making *making)
{
    return arena_printf(arena, "%s.%s", work_quote(arena, making->rest->schema),
                        work_quote(arena, making->rest->name));
}

/*
 * Where there is a default partition, writers wait before they choose a partition: a row on its way into the default one, which
 * is locked, would be refused by it when the new one is attached. They wait for what we wait for, so that all of our
 * waiting together is not longer than lock_timeout.
 */
static const char *hold_text(struct arena *arena, const struct making *making)
{
    int timeout = work_lock_timeout(making->shard->work);
    if (!making->rest)
        return "";
    return arena_printf(arena,
                        "SET LOCAL lock_timeout = %d; LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE "
                        "MODE; LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE; ",
                        timeout > 2 ? timeout / 2 : 1, making->policy->quoted,
                        default_name(arena, making));
}

/*
 * Rows of the default partition that belong into the new one. Who reads is not kept waiting until all is moved. What would act on
 * rows that are only moved is kept from it, or they stay where they are, and the server refuses to attach.
 */
static const char *move_text(struct arena *arena, const struct making *making, const char *name,
                             const char *from, const char *to)
{
    const struct dress *dress = &making->dress;
    if (!making->rest || (dress->noisy && !dress->quiet))
        return "";
    const char *column = work_quote(arena, making->parent->column);
    return arena_printf(arena,
                        "%sWITH moved AS (DELETE FROM %s WHERE %s >= %s "
                        "AND %s < %s RETURNING %s) INSERT INTO %s (%s) SELECT %s FROM moved; %s",
                        dress->quiet ? "SET LOCAL session_replication_role = replica; " : "",
                        default_name(arena, making), column, from, column, to, dress->columns, name,
                        dress->columns, dress->columns,
                        dress->quiet ? "SET LOCAL session_replication_role = DEFAULT; " : "");
}

static const char *literal(const struct making *making, const char *text)
{
    char *escaped = PQescapeLiteral(db_connection(making->shard->db), text, strlen(text));
    const char *kept = arena_strdup(&making->shard->arena, escaped ? escaped : "NULL");
    PQfreemem(escaped);
    return kept;
}

/*
 * An index as replica identity is not inherited; which index of the partition that is, is known once it is attached. The parent
 * goes by its name: it may be one that is made by statements before.
 */
static const char *identity_text(const struct making *making, const char *name)
{
    struct arena *arena = &making->shard->arena;
    if (!making->dress.identified)
        return "";
    const char *body = arena_printf(
        arena,
        "DECLARE part regclass; x_name name; BEGIN FOR part, x_name IN SELECT t.relid, x.relname "
        "FROM "
        "pg_partition_tree(%s) AS t JOIN pg_index AS c ON c.indrelid = t.relid JOIN pg_class AS x "
        "ON x.oid = c.indexrelid JOIN pg_index AS p ON p.indrelid = %s::regclass AND "
        "p.indisreplident WHERE p.indexrelid IN (SELECT relid FROM "
        "pg_partition_ancestors(c.indexrelid)) LOOP EXECUTE format('ALTER TABLE %%s REPLICA "
        "IDENTITY USING INDEX %%I', part, x_name); END LOOP; END",
        literal(making, name), literal(making, making->policy->quoted));
    return arena_printf(arena, "; DO %s", literal(making, body));
}

/* ---- divided again ---- */

static const char *full_name(struct arena *arena, const struct making *making, const char *name)
{
    return arena_printf(arena, "%s.%s", work_quote(arena, making->policy->schema),
                        work_quote(arena, name));
}

static const char *part_text(struct arena *arena, const struct making *making, const char *of,
                             const char *name, const char *bound)
{
    const struct dress *dress = &making->dress;
    const char *quoted = full_name(arena, making, name);
    return arena_printf(arena, "CREATE %sTABLE %s PARTITION OF %s %s%s; %s", dress->kind, quoted,
                        full_name(arena, making, of), bound, dress->with,
                        put_name(arena, dress->behind, quoted));
}

static int64_t later(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Narrower steps, cut where the partition begins and ends. */
static const char *range_parts_text(struct arena *arena, const struct making *making,
                                    const char *of, const struct wanted *wanted)
{
    const char *text = "";
    const struct interval *every = &making->policy->sub.every;
    for (int i = 0; making->aim && i < making->aim->nsubs; i++) {
        const struct cell *cell = &making->aim->subs[i];
        struct bound_range range = {later(cell->range.from, wanted->range.from),
                                    -later(-cell->range.to, -wanted->range.to)};
        char name[NAME_SIZE];
        if (range.from >= range.to)
            continue;
        name_of(of, name_usual_format(every), every, cell->begin, name);
        const char *from = bound_text(arena, making, range.from);
        const char *to = bound_text(arena, making, range.to);
        const char *bound = arena_printf(arena, "FOR VALUES FROM (%s) TO (%s)", from, to);
        text = arena_printf(arena, "%s%s", text, part_text(arena, making, of, name, bound));
    }
    return text;
}

/* The parts of a partition, each with its semicolon. */
static const char *parts_text(struct arena *arena, const struct making *making, const char *of,
                              const struct wanted *wanted)
{
    const struct sub *sub = &making->policy->sub;
    const char *text = "";
    if (sub->kind == SUB_RANGE)
        return range_parts_text(arena, making, of, wanted);
    for (int i = 0; i < sub->count; i++) {
        char name[NAME_SIZE];
        sub_name(arena, sub, of, i, name);
        text = arena_printf(arena, "%s%s", text,
                            part_text(arena, making, of, name, sub_bound_text(arena, sub, i)));
    }
    return text;
}

/* A table like the parent, with its parts if it has some. */
static const char *table_text(struct arena *arena, const struct making *making, const char *name,
                              const struct wanted *wanted)
{
    const struct dress *dress = &making->dress;
    const struct policy *policy = making->policy;
    const char *quoted = full_name(arena, making, name);
    const char *behind = put_name(arena, dress->behind, quoted);
    if (policy->sub.kind == SUB_NONE)
        return arena_printf(arena, "CREATE %sTABLE %s (LIKE %s)%s; %s", dress->kind, quoted,
                            dress->like, dress->with, behind);
    return arena_printf(arena, "CREATE TABLE %s (LIKE %s)%s; %s%s", quoted, dress->like,
                        sub_by_text(arena, &policy->sub, work_quote(arena, policy->column)),
                        parts_text(arena, making, name, wanted), behind);
}

/* Moves what is to be moved, and attaches. */
static const char *attach_text(struct arena *arena, const struct making *making, const char *quoted,
                               const char *from, const char *to)
{
    const struct guard *guard = &making->guard;
    const char *move = move_text(arena, making, quoted, from, to);
    const char *clear = guard->on ? guard_clear_text(guard, from, to, move) : move;
    const char *drop =
        guard->on && making->last ? arena_printf(arena, "; %s", guard_drop_text(guard)) : "";
    return arena_printf(arena,
                        "%sALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%s) TO (%s)%s",
                        clear, making->policy->quoted, quoted, from, to, drop);
}

static const char *create_text(struct arena *arena, const struct making *making,
                               const struct wanted *wanted, const char *name, const char *from,
                               const char *to)
{
    const char *quoted = full_name(arena, making, name);
    return arena_printf(
        arena, "%s%s%s%s", hold_text(arena, making), table_text(arena, making, name, wanted),
        attach_text(arena, making, quoted, from, to), identity_text(making, quoted));
}

/* As the policy's calendar has it; what is no whole step of it as the server has it. */
static const char *range_text(const struct making *making, const struct wanted *wanted,
                              const char *from, const char *to)
{
    struct arena *arena = &making->shard->arena;
    const struct policy *policy = making->policy;
    char begin[CIVIL_TEXT], end[CIVIL_TEXT];
    if (policy->control == CONTROL_ID || interval_is_fixed(&policy->every) || !wanted->whole)
        return arena_printf(arena, "from %s to %s", from, to);
    return arena_printf(arena, "from %.10s to %.10s", civil_print(wanted->begin, begin),
                        civil_print(interval_step(&policy->every, wanted->begin, 1), end));
}

static bool is_taken(const struct db_error *error)
{
    return strcmp(error->sqlstate, "42P07") == 0;
}

/* A piece of a cell may have a name that another piece has; a whole one has a name of its own. */
static bool create_one(const struct making *making, const struct wanted *wanted, const char *from,
                       const char *to, const char **name)
{
    struct arena *arena = &making->shard->arena;
    for (int again = 0; again < (wanted->whole ? 1 : 9); again++) {
        *name = name_for(arena, making, wanted, again);
        if (attempt(making->shard, create_text(arena, making, wanted, *name, from, to),
                    making->dress.oids))
            return true;
        if (!is_taken(&making->shard->error))
            return false;
    }
    return false;
}

static void tell_failure(const struct making *making, const char *name)
{
    struct shard_work *shard = making->shard;
    struct arena *arena = &shard->arena;
    if (is_taken(&shard->error))
        snprintf(shard->error.hint, sizeof shard->error.hint,
                 "a table of that name is there and no partition: attach it, rename it or drop it");
    work_fails(shard->work, (int)shard->shard, making->policy->shown,
               arena_printf(arena, "cannot make partition %s", name), &shard->error);
}

static void tell_made(const struct making *making, const struct wanted *wanted, const char *name,
                      const char *from, const char *to)
{
    struct shard_work *shard = making->shard;
    work_tell(shard->work, FLEET_DONE, (int)shard->shard, making->policy->shown,
              arena_printf(&shard->arena, "made %s %s", name, range_text(making, wanted, from, to)),
              NULL);
}

static bool make_one(const struct making *making, const struct wanted *wanted)
{
    struct shard_work *shard = making->shard;
    struct arena *arena = &shard->arena;
    const char *from = bound_text(arena, making, wanted->range.from);
    const char *to = bound_text(arena, making, wanted->range.to);
    const char *name = name_for(arena, making, wanted, 0);
    if (!from || !to) {
        work_tell(shard->work, FLEET_PROBLEM, (int)shard->shard, making->policy->shown,
                  arena_printf(arena, "partition %s would be beyond what %s can hold", name,
                               making->parent->type),
                  "ALTER the column's type to one with more room");
        return false;
    }
    if (shard->work->call->fleet.dry_run) {
        work_tell(shard->work, FLEET_PLANNED, (int)shard->shard, making->policy->shown,
                  arena_printf(arena, "make %s %s", name, range_text(making, wanted, from, to)),
                  NULL);
        return false;
    }
    failpoint("partition_making");
    if (!create_one(making, wanted, from, to, &name)) {
        if (!work_stopped(shard->work))
            tell_failure(making, name);
        return false;
    }
    failpoint("partition_made");
    tell_made(making, wanted, name, from, to);
    return true;
}

static const struct have *default_of(const struct parent *parent)
{
    return parent->nhave && parent->have[parent->nhave - 1].is_default
               ? &parent->have[parent->nhave - 1]
               : NULL;
}

/* From the first to the last that can be made. */
static void begin_guard(struct making *making, const struct wanted *wanted, int count)
{
    struct guard *guard = &making->guard;
    struct arena *arena = &making->shard->arena;
    const char *from, *to, *ignored;
    *guard = (struct guard){.shard = making->shard,
                            .rest = default_name(arena, making),
                            .column = work_quote(arena, making->parent->column),
                            .oids = making->dress.oids,
                            .marked = making->rest->marked};
    while (count && !bounds_of(making, &wanted[count - 1], &ignored, &to))
        count--;
    if (count && bounds_of(making, &wanted[0], &from, &ignored))
        guard_begin(guard, from, to);
}

static int make_all(struct making *making, const struct wanted *wanted, int count)
{
    int made = 0, i;
    struct shard_work *shard = making->shard;
    for (i = 0; i < count && work_goes_on(shard->work); i++) {
        making->last = i == count - 1;
        if (!make_one(making, &wanted[i]))
            continue;
        made++;
        if (making->last && making->guard.on)
            making->guard.marked = false;
    }
    if (i < count && work_late(shard->work))
        work_tell(shard->work, FLEET_FAILED, (int)shard->shard, making->policy->shown,
                  arena_printf(&shard->arena,
                               "the time of the run is up: %d partitions are still to be made, %s "
                               "first",
                               count - i, name_for(&shard->arena, making, &wanted[i], 0)),
                  "the next run goes on with them");
    return made;
}

int make_partitions(struct shard_work *shard, const struct policy *policy, struct parent *parent,
                    const struct aim *aim, const struct wanted *wanted, int count)
{
    struct making making = {
        .shard = shard, .policy = policy, .parent = parent, .aim = aim, .rest = default_of(parent)};
    bool guards = making.rest && !shard->work->call->fleet.dry_run;
    if (!count && !(guards && making.rest->marked))
        return 0;
    if (!find_dress(shard, policy, parent, &making.dress))
        return 0;
    if (guards)
        begin_guard(&making, wanted, count);
    int made = make_all(&making, wanted, count);
    if (guards)
        guard_end(&making.guard);
    return made;
}

/* ---- the default partition ---- */

void make_default_name(const struct policy *policy, char name[NAME_SIZE])
{
    name_of(policy->table, "_default", &policy->every, 0, name);
}

static const char *default_text(const struct making *making)
{
    char name[NAME_SIZE];
    struct arena *arena = &making->shard->arena;
    const struct policy *policy = making->policy;
    const struct dress *dress = &making->dress;
    make_default_name(policy, name);
    const char *quoted =
        arena_printf(arena, "%s.%s", work_quote(arena, policy->schema), work_quote(arena, name));
    return arena_printf(arena,
                        "CREATE %sTABLE %s (LIKE %s)%s; %sALTER TABLE %s ATTACH PARTITION %s "
                        "DEFAULT%s",
                        dress->kind, quoted, dress->like, dress->with,
                        put_name(arena, dress->behind, quoted), policy->quoted, quoted,
                        identity_text(making, quoted));
}

static void tell_default(const struct making *making)
{
    char name[NAME_SIZE];
    struct shard_work *shard = making->shard;
    make_default_name(making->policy, name);
    work_tell(shard->work, FLEET_DONE, (int)shard->shard, making->policy->shown,
              arena_printf(&shard->arena, "made the default partition %s", name), NULL);
}

bool make_default(struct shard_work *shard, const struct policy *policy, struct parent *parent)
{
    struct making making = {.shard = shard, .policy = policy, .parent = parent};
    char name[NAME_SIZE];
    if (!find_dress(shard, policy, parent, &making.dress))
        return false;
    if (!attempt(shard, default_text(&making), making.dress.oids)) {
        make_default_name(policy, name);
        tell_failure(&making, name);
        return false;
    }
    failpoint("partition_default_made");
    tell_default(&making);
    return true;
}

/* ---- the first ones ---- */

const char *make_first_text(struct shard_work *shard, const struct policy *policy,
                            struct parent *plain, const struct aim *aim,
                            const struct wanted *wanted, int count, const char **oids)
{
    struct making making = {.shard = shard, .policy = policy, .parent = plain, .aim = aim};
    struct arena *arena = &shard->arena;
    const char *sql = "", *from, *to;
    if (!find_dress(shard, policy, plain, &making.dress))
        return NULL;
    *oids = making.dress.oids;
    for (int i = 0; i < count && bounds_of(&making, &wanted[i], &from, &to); i++)
        sql = arena_printf(arena, "%s; %s", sql,
                           create_text(arena, &making, &wanted[i],
                                       name_for(arena, &making, &wanted[i], 0), from, to));
    return policy->has_default ? arena_printf(arena, "%s; %s", sql, default_text(&making)) : sql;
}

int make_first_told(struct shard_work *shard, const struct policy *policy, struct parent *plain,
                    const struct wanted *wanted, int count)
{
    struct making making = {.shard = shard, .policy = policy, .parent = plain};
    const char *from, *to;
    int made;
    for (made = 0; made < count && bounds_of(&making, &wanted[made], &from, &to); made++)
        tell_made(&making, &wanted[made], name_for(&shard->arena, &making, &wanted[made], 0), from,
                  to);
    if (policy->has_default)
        tell_default(&making);
    return made;
}

/* ---- whether they can be divided ---- */

/* $1: the table, $2: the column. */
static const char divide_sql[] =
    "SELECT format('it has no column %I', $2::text), '--sub takes the name of a column as it is in "
    "the catalogs' WHERE NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = $1::oid AND attname "
    "= $2 AND attnum > 0 AND NOT attisdropped)"
    " UNION ALL SELECT format('its unique index %I (%s) does not contain %I', x.relname, (SELECT "
    "string_agg(attname, ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = $1::oid AND "
    "attnum = ANY (i.indkey)), $2::text), format('where partitions are divided by %I, values can "
    "only be kept unique together with it: make it part of the key', $2::text)"
    " FROM pg_index AS i JOIN pg_class AS x ON x.oid = i.indexrelid JOIN pg_attribute AS a ON "
    "a.attrelid = i.indrelid AND a.attname = $2 AND NOT a.attisdropped WHERE i.indrelid = $1::oid "
    "AND i.indisunique AND NOT EXISTS (SELECT FROM generate_series(0, i.indnkeyatts - 1) AS g "
    "WHERE "
    "i.indkey[g] = a.attnum)";

static bool is_divisible(struct shard_work *shard, const struct policy *policy,
                         const struct parent *parent)
{
    PGresult *rows = db_query(shard->db, WORK_QUERY_MS, &shard->error, divide_sql, 2, parent->oid,
                              policy->sub.column);
    if (!rows)
        return work_fails(shard->work, (int)shard->shard, policy->shown, "cannot look at the table",
                          &shard->error);
    int found = PQntuples(rows);
    for (int i = 0; i < found; i++)
        work_tell(shard->work, FLEET_PROBLEM, (int)shard->shard, policy->shown,
                  PQgetvalue(rows, i, 0), PQgetvalue(rows, i, 1));
    PQclear(rows);
    return found == 0;
}

bool make_may_divide(struct shard_work *shard, const struct policy *policy,
                     const struct parent *parent)
{
    struct making making = {
        .shard = shard,
        .policy = policy,
        .dress = {.kind = "", .with = "", .behind = "", .like = policy->quoted}};
    struct arena *arena = &shard->arena;
    char name[NAME_SIZE];
    if (policy->sub.kind == SUB_NONE || policy->sub.kind == SUB_RANGE)
        return true;
    if (!is_divisible(shard, policy, parent))
        return false;
    name_of(policy->table, "_pgshunt_try", &policy->every, 0, name);
    const char *sql =
        arena_printf(arena,
                     "%sDO $pgshunt$ BEGIN RAISE EXCEPTION 'it can be done' USING ERRCODE = "
                     "'PSH00'; END $pgshunt$",
                     table_text(arena, &making, name, NULL));
    if (attempt(shard, sql, arena_printf(arena, "{%s}", parent->oid)) ||
        strcmp(shard->error.sqlstate, "PSH00") == 0)
        return true;
    work_tell(shard->work, FLEET_PROBLEM, (int)shard->shard, policy->shown,
              arena_printf(arena, "its partitions cannot be divided by --sub %s: %s",
                           policy->sub_text, shard->error.text),
              shard->error.hint[0] ? shard->error.hint : NULL);
    return false;
}
