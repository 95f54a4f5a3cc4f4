/* schema_loader.c: loads relations, columns, function volatility and collation of one database. */
#include "proxy/schema_loader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define XXH_STATIC_LINKING_ONLY /* a state on the stack */
#include <xxhash.h>

#include "pgshunt/arena.h"
#include "proxy/monitor_internal.h"

#define LOAD_TIMEOUT_MS 60000 /* of one query; a catalog of a million columns takes seconds */

struct schema_load {
    struct monitor_conn *conn;
    int step; /* index into steps[] */
    int nsteps;
    struct schema *schema;
    struct schema_load_what what;
    XXH64_state_t hash;
    /* the relation whose columns are arriving */
    struct arena arena; /* its strings */
    struct schema_relation relation;
    uint32_t relation_oid; /* 0: none */
    int room;              /* of relation.columns, */
    const char **types;    /* and their types, where they are wanted */
    schema_load_done *done;
    void *arg;
};

/*
 * One row per column, or one without for a relation that has none. Columns of a domain have the type
 * below all domains, as in result rows. Defaults are
 * told apart by the functions in their trees. Collation: NULL for the database's default and for types that
 * have none; one made by a user is told by schema and name, so that it is not taken for a built-in.
 * Kind and persistence of a table with partitions or children tell the worst of those below it.
 */
static const char relations_sql[] =
    "WITH RECURSIVE domain(oid, base) AS ("
    " SELECT oid, typbasetype FROM pg_type WHERE typtype = 'd'"
    " UNION ALL"
    " SELECT d.oid, t.typbasetype FROM domain AS d JOIN pg_type AS t ON t.oid = d.base"
    " WHERE t.typtype = 'd'),"
    " leaf AS (SELECT d.oid, d.base FROM domain AS d JOIN pg_type AS t ON t.oid = d.base"
    " WHERE t.typtype <> 'd'),"
    " below(root, oid) AS (SELECT inhparent, inhrelid FROM pg_inherits"
    " UNION SELECT b.root, i.inhrelid FROM below AS b JOIN pg_inherits AS i ON i.inhparent = "
    "b.oid),"
    " odd AS (SELECT b.root, bool_or(c.relkind = 'f') AS remote,"
    " bool_or(c.relpersistence = 'u') AS unlogged"
    " FROM below AS b JOIN pg_class AS c ON c.oid = b.oid GROUP BY b.root)"
    " SELECT c.oid, n.nspname, c.relname,"
    " CASE WHEN c.relkind IN ('r', 'p') AND o.remote THEN 'f' ELSE c.relkind::text END,"
    " CASE WHEN c.relpersistence = 'p' AND o.unlogged THEN 'u' ELSE c.relpersistence::text END,"
    " a.attname, coalesce(l.base, a.atttypid),"
    " CASE WHEN co.oid IS NULL OR co.collname = 'default' AND cn.nspname = 'pg_catalog' THEN NULL"
    " WHEN cn.nspname = 'pg_catalog' THEN co.collname::text"
    " ELSE cn.nspname || '.' || co.collname END, pn.nspname, pc.relname, pk.indexrelid,"
    " a.attgenerated,"
    " CASE WHEN a.attidentity <> '' OR a.attgenerated = '' AND ("
    "d.adbin::text ~ '[{](SQLVALUEFUNCTION|NEXTVALUEEXPR) '"
    " OR EXISTS (SELECT FROM regexp_matches(d.adbin::text, ':funcid ([1-9][0-9]*)', 'g') AS m"
    " JOIN pg_proc AS f ON f.oid = m[1]::oid WHERE f.provolatile <> 'i')) THEN true END,"
    " c.relrowsecurity, format_type(a.atttypid, a.atttypmod)"
    " FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
    " LEFT JOIN odd AS o ON o.root = c.oid"
    " LEFT JOIN pg_inherits AS h ON h.inhrelid = c.oid AND h.inhseqno = 1"
    " LEFT JOIN pg_class AS pc ON pc.oid = h.inhparent"
    " LEFT JOIN pg_namespace AS pn ON pn.oid = pc.relnamespace"
    " LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
    " LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum AND a.atthasdef"
    " LEFT JOIN pg_index AS pk ON pk.indrelid = c.oid AND pk.indisprimary AND pk.indimmediate"
    " AND a.attnum = ANY (pk.indkey)"
    " LEFT JOIN leaf AS l ON l.oid = a.atttypid"
    " LEFT JOIN pg_collation AS co ON co.oid = a.attcollation"
    " LEFT JOIN pg_namespace AS cn ON cn.oid = co.collnamespace"
    " WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')"
    " AND n.nspname NOT IN ('pg_catalog', 'information_schema')"
    " AND n.nspname !~ '^pg_(toast|temp|toast_temp)(_|$)'"
    " ORDER BY c.oid, a.attnum";

/*
 * What views read and call, and the policies that a SELECT is subject to: one row for each view, and one
 * for each relation, function and locking clause. The server keeps them as trees that tell everything by
 * its number, the functions behind operators and the built-in ones too, which pg_depend does not have.
 * Blanks inside of names are escaped there, so that no name looks like such a number.
 */
static const char parts_sql[] =
    "WITH source AS ("
    " SELECT r.ev_class AS oid, r.ev_action::text AS tree FROM pg_rewrite AS r"
    " JOIN pg_class AS c ON c.oid = r.ev_class WHERE c.relkind = 'v' AND r.ev_type = '1'"
    " UNION ALL SELECT p.polrelid, p.polqual::text FROM pg_policy AS p"
    " JOIN pg_class AS c ON c.oid = p.polrelid"
    " WHERE c.relrowsecurity AND p.polcmd IN ('r', '*') AND p.polqual IS NOT NULL),"
    " part AS ("
    " SELECT DISTINCT s.oid, CASE WHEN m[1] = 'relid' THEN 'r' ELSE 'f' END AS what, m[2]::oid AS "
    "id"
    " FROM source AS s, regexp_matches(s.tree,"
    " ':(relid|funcid|opfuncid|aggfnoid|winfnoid) ([1-9][0-9]*)', 'g') AS m"
    " WHERE m[1] <> 'relid' OR m[2]::oid <> s.oid"
    " UNION ALL SELECT oid, 'l', NULL FROM source WHERE tree LIKE '%:hasForUpdate true%'"
    " UNION ALL SELECT oid, 'v', NULL FROM source)"
    " SELECT n.nspname, c.relname, p.what, coalesce(rn.nspname, fn.nspname),"
    " coalesce(r.relname, f.proname), f.provolatile"
    " FROM part AS p JOIN pg_class AS c ON c.oid = p.oid JOIN pg_namespace AS n ON n.oid = "
    "c.relnamespace"
    " LEFT JOIN pg_class AS r ON p.what = 'r' AND r.oid = p.id"
    " LEFT JOIN pg_namespace AS rn ON rn.oid = r.relnamespace"
    " LEFT JOIN pg_proc AS f ON p.what = 'f' AND f.oid = p.id"
    " LEFT JOIN pg_namespace AS fn ON fn.oid = f.pronamespace"
    " WHERE n.nspname NOT IN ('pg_catalog', 'information_schema')"
    " AND n.nspname !~ '^pg_(toast|temp|toast_temp)(_|$)'"
    " ORDER BY p.oid, p.what, p.id";

/*
 * What columns get where nothing is said, with every name in full, which takes an empty search_path.
 */
static const char defaults_sql[] =
    "SELECT n.nspname, c.relname, a.attname, CASE WHEN a.attidentity <> '' THEN"
    " format('pg_catalog.nextval(%L::pg_catalog.regclass)', format('%I.%I', sn.nspname, s.relname))"
    " ELSE pg_get_expr(d.adbin, d.adrelid) END, a.attidentity"
    " FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
    " JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
    " AND a.attgenerated = '' AND (a.atthasdef OR a.attidentity <> '')"
    " LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum"
    " LEFT JOIN pg_depend AS p ON a.attidentity <> '' AND p.refclassid = 'pg_class'::regclass"
    " AND p.refobjid = c.oid AND p.refobjsubid = a.attnum AND p.classid = 'pg_class'::regclass"
    " AND p.deptype = 'i'"
    " LEFT JOIN pg_class AS s ON s.oid = p.objid AND s.relkind = 'S'"
    " LEFT JOIN pg_namespace AS sn ON sn.oid = s.relnamespace"
    " WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema')"
    " AND n.nspname !~ '^pg_(toast|temp|toast_temp)(_|$)'"
    " AND (a.attidentity = '' OR s.oid IS NOT NULL) ORDER BY c.oid, a.attnum";

/*
 * What views are made of, likewise. The server locks the
 * tables behind a view while it writes it down: one that something else has locked makes the statement
 * fail after a while, so it comes last, and those before it are known.
 */
static const char search_path_sql[] =
    "SELECT set_config('search_path', '', false), set_config('lock_timeout', '1s', false)";

static const char definitions_sql[] =
    "SELECT s.nspname, s.relname, pg_get_viewdef(s.oid), s.invoker FROM ("
    " SELECT c.oid, n.nspname, c.relname, coalesce((SELECT o.option_value::bool"
    " FROM pg_options_to_table(c.reloptions) AS o WHERE o.option_name = 'security_invoker'), false)"
    " AS invoker FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
    " WHERE c.relkind IN ('v', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema')"
    " AND n.nspname !~ '^pg_(toast|temp|toast_temp)(_|$)'"
    " ORDER BY EXISTS (SELECT FROM pg_locks AS l JOIN pg_depend AS d ON d.refobjid = l.relation"
    " AND d.refclassid = 'pg_class'::regclass AND d.classid = 'pg_rewrite'::regclass"
    " JOIN pg_rewrite AS r ON r.oid = d.objid WHERE r.ev_class = c.oid"
    " AND l.mode = 'AccessExclusiveLock'), c.oid OFFSET 0) AS s";

/* 'i' < 's' < 'v': the greatest letter is the most volatile. */
static const char functions_sql[] =
    "SELECT n.nspname, p.proname, max(p.provolatile::text COLLATE \"C\")"
    " FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace"
    " GROUP BY n.nspname, p.proname ORDER BY n.nspname COLLATE \"C\", p.proname COLLATE \"C\"";

/*
 * Going through JSON lets one statement serve 13 to 18: the provider came with 15, the ICU locale's
 * name with 15 (daticulocale) and changed with 17 (datlocale). All locales of 17's builtin provider
 * order by code point, which is libc's C for us.
 */
static const char collation_sql[] =
    "SELECT CASE provider WHEN 'i' THEN coalesce(d->>'datlocale', d->>'daticulocale')"
    " WHEN 'b' THEN 'C' ELSE d->>'datcollate' END,"
    " CASE provider WHEN 'i' THEN 'i' ELSE 'c' END"
    " FROM (SELECT to_jsonb(pg_database) AS d,"
    " coalesce(to_jsonb(pg_database)->>'datlocprovider', 'c') AS provider"
    " FROM pg_database WHERE datname = current_database()) AS s";

/* What ALTER ROLE and ALTER DATABASE say, for the schemas that an unqualified name can mean. */
static const char paths_sql[] =
    "SELECT r.rolname, s.setdatabase <> 0, substr(c, 13)"
    " FROM pg_db_role_setting AS s LEFT JOIN pg_roles AS r ON r.oid = s.setrole,"
    " unnest(s.setconfig) AS c WHERE c LIKE 'search\\_path=%' AND (s.setrole = 0 OR r.oid IS NOT "
    "NULL)"
    " AND s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))"
    " ORDER BY 1, 2";

static void add_relation_row(struct schema_load *load, const PGresult *row);
static void add_path_row(struct schema_load *load, const PGresult *row);
static void add_function_row(struct schema_load *load, const PGresult *row);
static void add_collation_row(struct schema_load *load, const PGresult *row);
static void add_part_row(struct schema_load *load, const PGresult *row);
static void add_default_row(struct schema_load *load, const PGresult *row);
static void add_definition_row(struct schema_load *load, const PGresult *row);
static void ignore_row(struct schema_load *load, const PGresult *row);

/* Steps whose rows are of no schema: of the database, read once; of nothing, for what they do. */
enum { OF_DATABASE = -1, OF_NONE = -2 };

static const struct {
    const char *sql;
    void (*add)(struct schema_load *load, const PGresult *row);
    bool may_fail;       /* what came until then is good to have */
    int schema;          /* column that names the schema of a row; or: */
    const char *columns; /* of a row: 'v': a value, 'n': or NULL */
} steps[] = {
    {collation_sql, add_collation_row, false, OF_DATABASE, "nv"},
    {paths_sql, add_path_row, false, OF_DATABASE, "nvv"},
    {functions_sql, add_function_row, false, 0, "vvv"},
    {relations_sql, add_relation_row, false, 1, "vvvvvnnnnnnnnvn"},
    {parts_sql, add_part_row, false, 0, "vvvnnn"},
    {search_path_sql, ignore_row, true, OF_NONE, "nn"},
    {defaults_sql, add_default_row, true, 0, "vvvnv"},
    {definitions_sql, add_definition_row, true, 0, "vvnv"},
};
#define STEPS ((int)(sizeof steps / sizeof steps[0]))
#define STEPS_OF_SHARDS 3 /* the last ones: only where there are shards to plan for */

/* ---- rows ---- */

static const char *field(const PGresult *row, int column)
{
    return PQgetisnull(row, 0, column) ? NULL : PQgetvalue(row, 0, column);
}

/* Whoever answers there may be no Postgres. */
static bool has_columns(const struct schema_load *load, const PGresult *row)
{
    const char *columns = steps[load->step].columns;
    if (PQnfields(row) != (int)strlen(columns))
        return false;
    for (int i = 0; columns[i]; i++)
        if (columns[i] == 'v' && PQgetisnull(row, 0, i))
            return false;
    return true;
}

static void hash_row(struct schema_load *load, const PGresult *row)
{
    for (int i = 0; i < PQnfields(row); i++) {
        int length = PQgetisnull(row, 0, i) ? -1 : PQgetlength(row, 0, i);
        XXH64_update(&load->hash, &length, sizeof length);
        if (length > 0)
            XXH64_update(&load->hash, PQgetvalue(row, 0, i), (size_t)length);
    }
}

static void finish_relation(struct schema_load *load)
{
    if (load->relation_oid)
        schema_add_relation(load->schema, &load->relation);
    load->relation_oid = 0;
    load->relation.ncolumns = 0;
    arena_reset(&load->arena);
}

static void start_relation(struct schema_load *load, uint32_t oid, const PGresult *row)
{
    finish_relation(load);
    load->relation_oid = oid;
    load->relation.types = NULL;
    load->relation.schema = arena_strdup(&load->arena, field(row, 1));
    load->relation.name = arena_strdup(&load->arena, field(row, 2));
    load->relation.kind = field(row, 3)[0];
    load->relation.persistence = field(row, 4)[0];
    load->relation.parent_schema = load->relation.parent = NULL;
    load->relation.row_security = field(row, 13)[0] == 't';
    if (field(row, 8) && field(row, 9)) {
        load->relation.parent_schema = arena_strdup(&load->arena, field(row, 8));
        load->relation.parent = arena_strdup(&load->arena, field(row, 9));
    }
}

static void add_relation_row(struct schema_load *load, const PGresult *row)
{
    uint32_t oid = (uint32_t)strtoul(field(row, 0), NULL, 10);
    if (oid != load->relation_oid)
        start_relation(load, oid, row);
    if (!field(row, 5) || !field(row, 6) || !field(row, 11) || !field(row, 14)) /* it has none */
        return;
    if (load->relation.ncolumns == load->room) {
        load->room = load->room ? load->room * 2 : 32;
        load->relation.columns = mem_realloc(load->relation.columns,
                                             sizeof *load->relation.columns * (size_t)load->room);
        load->types = mem_realloc(load->types, sizeof *load->types * (size_t)load->room);
    }
    const char *collation = field(row, 7);
    if (shardmap_schema(load->what.map, load->relation.schema)) {
        load->types[load->relation.ncolumns] = arena_strdup(&load->arena, field(row, 14));
        load->relation.types = load->types;
    }
    load->relation.columns[load->relation.ncolumns++] = (struct schema_column){
        .name = arena_strdup(&load->arena, field(row, 5)),
        .type_oid = (uint32_t)strtoul(field(row, 6), NULL, 10),
        .collation_default = !collation,
        .collation = collation ? arena_strdup(&load->arena, collation) : NULL,
        .primary_key = field(row, 10) != NULL,
        .generated = *field(row, 11) != '\0',
        .default_differs = field(row, 12) != NULL,
    };
}

static enum volatility volatility_of(const char *letter)
{
    if (letter && letter[0] == 'i')
        return VOLATILITY_IMMUTABLE;
    return letter && letter[0] == 's' ? VOLATILITY_STABLE : VOLATILITY_VOLATILE;
}

static void add_function_row(struct schema_load *load, const PGresult *row)
{
    schema_add_function(load->schema, field(row, 0), field(row, 1), volatility_of(field(row, 2)));
}

/* What has been dropped meanwhile has no name: "" is nobody's, so nothing is known of it. */
static void add_part_row(struct schema_load *load, const PGresult *row)
{
    struct schema_part part = {.schema = field(row, 3) ? field(row, 3) : "",
                               .name = field(row, 4) ? field(row, 4) : "",
                               .volatility = volatility_of(field(row, 5))};
    char what = field(row, 2)[0];
    finish_relation(load);
    part.kind = what == 'r' ? PART_RELATION : what == 'f' ? PART_FUNCTION : PART_LOCK;
    schema_add_part(load->schema, field(row, 0), field(row, 1), what == 'v' ? NULL : &part);
}

static void add_default_row(struct schema_load *load, const PGresult *row)
{
    finish_relation(load);
    if (field(row, 3))
        schema_set_default(load->schema, field(row, 0), field(row, 1), field(row, 2), field(row, 3),
                           *field(row, 4));
}

static void add_definition_row(struct schema_load *load, const PGresult *row)
{
    finish_relation(load);
    if (field(row, 2)) /* it may have been dropped meanwhile */
        schema_set_definition(load->schema, field(row, 0), field(row, 1), field(row, 2),
                              field(row, 3)[0] == 't');
}

static void ignore_row(struct schema_load *load, const PGresult *row)
{
    (void)load, (void)row;
}

static void add_path_row(struct schema_load *load, const PGresult *row)
{
    schema_add_search_path(load->schema, field(row, 0), field(row, 1)[0] == 't', field(row, 2));
}

/* Whether the row is of a schema that this shard is asked for. */
static bool is_wanted(const struct schema_load *load, const PGresult *row)
{
    int column = steps[load->step].schema;
    if (column == OF_NONE)
        return true;
    const struct table_rule *rule =
        column < 0 ? NULL : shardmap_schema(load->what.map, field(row, column));
    return load->what.into ? rule && rule->shard == load->what.shard : !rule || rule->shard == 0;
}

static void add_collation_row(struct schema_load *load, const PGresult *row)
{
    const char *collate = field(row, 0);
    schema_set_collation(load->schema, collate ? collate : "", field(row, 1)[0]);
}

/* ---- course ---- */

static void free_load(struct schema_load *load)
{
    monitor_conn_close(load->conn);
    if (load->schema && !load->what.into)
        schema_free(load->schema);
    free(load->relation.columns);
    free(load->types);
    arena_free(&load->arena);
    free(load);
}

static void finish(struct schema_load *load, const char *why)
{
    schema_load_done *done = load->done;
    void *arg = load->arg;
    struct schema *schema = NULL;
    uint64_t fingerprint = XXH64_digest(&load->hash);
    char text[512];
    if (why)
        snprintf(text, sizeof text, "%.*s", (int)strcspn(why, "\n"), why);
    if (!why || load->what.into) {
        schema = load->schema;
        load->schema = NULL;
    }
    free_load(load);
    done(arg, schema, fingerprint, why ? text : NULL);
}

static void next_step(struct schema_load *load)
{
    while (load->what.into && steps[load->step].schema == OF_DATABASE)
        load->step++;
    monitor_conn_query(load->conn, steps[load->step].sql, true, LOAD_TIMEOUT_MS);
}

static void on_ready(void *arg)
{
    next_step(arg);
}

static void on_result(void *arg, const PGresult *result)
{
    struct schema_load *load = arg;
    if (!result) {
        XXH64_update(&load->hash, &load->step, sizeof load->step);
        if (++load->step < load->nsteps) {
            next_step(load);
        } else {
            finish_relation(load);
            finish(load, NULL);
        }
        return;
    }
    switch ((int)PQresultStatus(result)) {
    case PGRES_SINGLE_TUPLE:
        if (!has_columns(load, result)) {
            finish(load, "the server's answer is not one of Postgres");
            break;
        }
        if (!is_wanted(load, result))
            break;
        hash_row(load, result);
        steps[load->step].add(load, result);
        break;
    case PGRES_TUPLES_OK: /* the end of the rows */
        break;
    default:
        if (!steps[load->step].may_fail)
            finish(load, PQresultErrorMessage(result));
    }
}

static void on_failed(void *arg, const char *why, const char *sqlstate)
{
    (void)sqlstate;
    finish(arg, why);
}

static const struct monitor_conn_events load_events = {on_ready, on_result, on_failed};

struct schema_load *schema_load_start(uv_loop_t *loop, struct node *node,
                                      const struct config *config,
                                      const struct schema_load_what *what, schema_load_done *done,
                                      void *arg)
{
    struct schema_load *load = mem_alloc(sizeof *load);
    load->nsteps = shardmap_is_sharded(what->map) ? STEPS : STEPS - STEPS_OF_SHARDS;
    struct monitor_login login = monitor_login(config, "pgshunt schema");
    load->schema = what->into ? what->into : schema_new();
    load->what = *what;
    load->done = done;
    load->arg = arg;
    arena_init(&load->arena);
    XXH64_reset(&load->hash, 0);
    load->conn = monitor_conn_open(loop, node, &login, config->check_timeout, &load_events, load);
    return load;
}

void schema_load_cancel(struct schema_load *load)
{
    if (load)
        free_load(load);
}
