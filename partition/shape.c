/* shape.c: what a table is made of, as statements that make a partitioned one of it. */
#include "partition/shape.h"

#include <string.h>

/* ---- what is in the way ---- */

/* $1: the table, $2: the column. One row each: what is wrong, and what mends it. */
static const char problems_sql[] =
    "SELECT format('its %s %I (%s) does not contain %I', CASE c.contype WHEN 'p' THEN 'primary "
    "key' ELSE "
    "'unique constraint' END, c.conname, (SELECT string_agg(a.attname, ', ') FROM pg_attribute AS "
    "a WHERE "
    "a.attrelid = c.conrelid AND a.attnum = ANY (c.conkey)), $2::name),"
    " format('a partitioned table can only keep values unique together with the column it is "
    "partitioned by: "
    "ALTER TABLE %s DROP CONSTRAINT %I, ADD %s (%s, %I)', $1::regclass, c.conname, CASE c.contype "
    "WHEN 'p' THEN "
    "'PRIMARY KEY' ELSE 'UNIQUE' END, (SELECT string_agg(quote_ident(a.attname), ', ') FROM "
    "pg_attribute "
    "AS a WHERE a.attrelid = c.conrelid AND a.attnum = ANY (c.conkey)), $2::name)"
    " FROM pg_constraint AS c WHERE c.conrelid = $1::oid AND c.contype IN ('p', 'u') AND NOT "
    "(SELECT attnum FROM "
    "pg_attribute WHERE attrelid = $1::oid AND attname = $2) = ANY (c.conkey)"
    " AND NOT (c.contype = 'p' AND $3::int & 2 > 0)"
    " UNION ALL SELECT format('its unique index %I does not contain %I', x.relname, $2::name),"
    " format('DROP INDEX %s, or make it one that contains the column', x.oid::regclass)"
    " FROM pg_index AS i JOIN pg_class AS x ON x.oid = i.indexrelid WHERE i.indrelid = $1::oid AND "
    "i.indisunique AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = i.indexrelid) AND "
    "NOT (SELECT "
    "attnum FROM pg_attribute WHERE attrelid = $1::oid AND attname = $2) = ANY (i.indkey)"
    " UNION ALL SELECT format('it has the exclusion constraint %I', conname), "
    "format('ALTER TABLE %s DROP CONSTRAINT %I: partitioned tables have none before PostgreSQL "
    "17', "
    "$1::regclass, conname)"
    " FROM pg_constraint WHERE conrelid = $1::oid AND contype = 'x'"
    " UNION ALL SELECT format('foreign key %I of %s refers to it', conname, conrelid::regclass), "
    "format('ALTER TABLE %s DROP CONSTRAINT %I, and add it again afterwards, to a key that "
    "contains %I', "
    "conrelid::regclass, conname, $2::name)"
    " FROM pg_constraint WHERE confrelid = $1::oid AND contype = 'f' AND $3::int & 1 = 0"
    " UNION ALL SELECT DISTINCT format('%s %s depends on it', CASE v.relkind WHEN 'm' THEN "
    "'materialized "
    "view' ELSE 'view' END, v.oid::regclass), 'drop it, and make it again afterwards'"
    " FROM pg_depend AS d JOIN pg_rewrite AS r ON r.oid = d.objid JOIN pg_class AS v ON v.oid = "
    "r.ev_class"
    " WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND "
    "d.refobjid = "
    "$1::oid AND v.oid <> $1::oid AND (v.relkind <> 'v' OR $3::int & 1 = 0)"
    " UNION ALL SELECT format('publication %I publishes some of its rows or columns alone', "
    "b.pubname), "
    "'take the table out of it, and add it again afterwards' FROM pg_publication_rel AS r JOIN "
    "pg_publication AS b "
    "ON b.oid = r.prpubid WHERE r.prrelid = $1::oid AND coalesce(to_jsonb(r) ->> 'prqual', "
    "to_jsonb(r) ->> 'prattrs') IS NOT NULL"
    " UNION ALL SELECT 'it is a child or a parent by inheritance', 'ALTER TABLE ... NO INHERIT' "
    "WHERE EXISTS "
    "(SELECT FROM pg_inherits WHERE $1::oid IN (inhrelid, inhparent))"
    " UNION ALL SELECT format('trigger %I is for each row and has a transition table', tgname), "
    "'partitioned tables have no such triggers: drop it' FROM pg_trigger WHERE tgrelid = $1::oid "
    "AND NOT "
    "tgisinternal AND tgtype & 1 = 1 AND (tgoldtable IS NOT NULL OR tgnewtable IS NOT NULL)"
    " UNION ALL SELECT 'it is temporary', 'temporary tables are not maintained' FROM pg_class "
    "WHERE oid = "
    "$1::oid AND relpersistence = 't'"
    " UNION ALL SELECT format('%s may not change it', quote_ident(current_user)), format('call "
    "this as a "
    "member of %I (--user), or GRANT %I TO %I', pg_get_userbyid(relowner), "
    "pg_get_userbyid(relowner), "
    "current_user) FROM pg_class WHERE oid = $1::oid AND NOT pg_has_role(relowner, 'MEMBER')"
    " UNION ALL SELECT format('%s may not make tables in schema %I', quote_ident(current_user), "
    "nspname), "
    "format('GRANT CREATE ON SCHEMA %I TO %I', nspname, current_user) FROM pg_namespace WHERE oid "
    "= (SELECT "
    "relnamespace FROM pg_class WHERE oid = $1::oid) AND NOT has_schema_privilege(oid, 'CREATE')";

static bool is_empty(struct shard_work *shard, const struct policy *policy, bool *empty)
{
    PGresult *rows = db_query(
        shard->db, WORK_QUERY_MS, &shard->error,
        arena_printf(&shard->arena, "SELECT EXISTS (SELECT FROM ONLY %s)", policy->quoted), 0);
    *empty = rows && PQgetvalue(rows, 0, 0)[0] == 'f';
    PQclear(rows);
    return rows != NULL;
}

bool shape_check(struct shard_work *shard, const struct policy *policy, const struct parent *parent,
                 int ways)
{
    bool empty = true;
    PGresult *rows = db_query(shard->db, WORK_QUERY_MS, &shard->error, problems_sql, 3, parent->oid,
                              policy->column, arena_printf(&shard->arena, "%d", ways));
    if (!rows || (!(ways & SHAPE_FULL) && !is_empty(shard, policy, &empty))) {
        PQclear(rows);
        return work_fails(shard->work, (int)shard->shard, policy->shown, "cannot look at the table",
                          &shard->error);
    }
    int found = PQntuples(rows);
    for (int i = 0; i < found; i++)
        work_tell(shard->work, FLEET_PROBLEM, (int)shard->shard, policy->shown,
                  PQgetvalue(rows, i, 0), PQgetvalue(rows, i, 1));
    PQclear(rows);
    if (!empty)
        work_tell(shard->work, FLEET_PROBLEM, (int)shard->shard, policy->shown, "it has rows",
                  "pgshuntctl partition convert brings them over; create takes an empty table");
    return found == 0 && empty;
}

/* ---- what it is made of ---- */

#define OURS "'pgshunt\\_convert%'"

/*
 * $1: the table, $2: the new one's name while both are there, $3: the column, $4: whether the new one is a plain table, which
 * gets the rows, and logging, storage parameters and tablespace of the youngest partition. Statements by the order they are run in: the new
 * table with what it takes over while the old one is there (1), the old one dropped (2), and what has names that only
 * one of them can have (3 and on).
 */
static const char statements_sql[] =
    "WITH t AS (SELECT c.*, n.nspname, format('%I.%I', n.nspname, c.relname) AS old, "
    "format('%I.%I', n.nspname, "
    "$2::text) AS new FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE "
    "c.oid = $1::oid),"
    " leaf AS (SELECT l.relpersistence, l.reloptions, s.spcname FROM "
    "pg_partition_tree($1::oid::regclass) AS p JOIN pg_class AS l ON l.oid = p.relid LEFT JOIN "
    "pg_tablespace AS s ON s.oid = l.reltablespace WHERE p.isleaf AND l.relkind = 'r' AND l.oid <> "
    "$1::oid ORDER BY l.oid DESC LIMIT 1),"
    " s(step, text) AS ("
    " SELECT 0.0, CASE WHEN $4::boolean THEN format('SET LOCAL row_security = off; LOCK TABLE %s "
    "IN "
    "ACCESS EXCLUSIVE MODE', old) ELSE format('DO $pgshunt$ BEGIN LOCK TABLE %s IN ACCESS "
    "EXCLUSIVE MODE; IF EXISTS (SELECT FROM ONLY %s) THEN RAISE EXCEPTION ''it has rows by now'' "
    "USING ERRCODE = ''55000''; END IF; END $pgshunt$', old, old) END FROM t"
    " UNION ALL SELECT 10, format('CREATE %sTABLE %s (LIKE %s INCLUDING DEFAULTS INCLUDING "
    "CONSTRAINTS INCLUDING GENERATED INCLUDING STORAGE%s INCLUDING COMMENTS)%s', CASE WHEN "
    "$4::boolean AND leaf.relpersistence = 'u' THEN 'UNLOGGED ' ELSE '' END, new, old, CASE WHEN "
    "current_setting('server_version_num')::int >= 140000 THEN ' INCLUDING COMPRESSION' ELSE '' "
    "END, CASE WHEN $4::boolean THEN coalesce(' WITH (' || array_to_string(leaf.reloptions, ', ') "
    "|| ')', '') || coalesce(' TABLESPACE ' || quote_ident(leaf.spcname), '') ELSE format(' "
    "PARTITION BY RANGE (%I)', $3::name) END) FROM t LEFT JOIN leaf ON true"
    /* What is being detached is not seen through the parent, but would be dropped with it. */
    " UNION ALL SELECT 14, format('DO $pgshunt$ DECLARE moved bigint; BEGIN IF EXISTS (SELECT FROM "
    "pg_inherits AS i WHERE inhparent IN (SELECT relid FROM pg_partition_tree(%L)) AND "
    "(to_jsonb(i) "
    "->> ''inhdetachpending'')::boolean) THEN RAISE EXCEPTION ''a partition is being detached'' "
    "USING ERRCODE = ''55006''; END IF; INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM "
    "%s; GET DIAGNOSTICS moved = ROW_COUNT; IF moved <> (SELECT count(*) FROM %s) THEN RAISE "
    "EXCEPTION ''not all of its rows were moved'' USING ERRCODE = ''55000''; END IF; END "
    "$pgshunt$', old, new, names, names, old, old) FROM t, (SELECT "
    "string_agg(quote_ident(attname), "
    "', ' ORDER BY attnum) AS names FROM pg_attribute WHERE attrelid = $1::oid AND attnum > 0 AND "
    "NOT attisdropped AND attgenerated = '') AS a WHERE $4::boolean"
    /* serial: the same sequence; identity: one like it, where it stood */
    " UNION ALL SELECT 11, format('ALTER SEQUENCE %s OWNED BY %s.%I', d.objid::regclass, new, "
    "a.attname) FROM t, "
    "pg_depend AS d JOIN pg_class AS q ON q.oid = d.objid AND q.relkind = 'S' JOIN pg_attribute AS "
    "a ON a.attrelid = "
    "d.refobjid AND a.attnum = d.refobjsubid WHERE d.refobjid = t.oid AND d.classid = "
    "'pg_class'::regclass AND "
    "d.refclassid = 'pg_class'::regclass AND d.deptype = 'a'"
    " UNION ALL SELECT 12, format('ALTER TABLE %s ALTER %I ADD GENERATED %s AS IDENTITY (SEQUENCE "
    "NAME %I.%I START %s "
    "INCREMENT %s MINVALUE %s MAXVALUE %s CACHE %s%s)', new, a.attname, CASE a.attidentity WHEN "
    "'a' THEN 'ALWAYS' ELSE "
    "'BY DEFAULT' END, qn.nspname, 'pgshunt_' || q.oid, p.seqstart, p.seqincrement, p.seqmin, "
    "p.seqmax, p.seqcache, "
    "CASE WHEN p.seqcycle THEN ' CYCLE' ELSE '' END) FROM t JOIN pg_attribute AS a ON a.attrelid = "
    "t.oid AND "
    "a.attidentity <> '' JOIN pg_depend AS d ON d.refobjid = t.oid AND d.refobjsubid = a.attnum "
    "AND d.deptype = 'i' AND "
    "d.classid = 'pg_class'::regclass JOIN pg_class AS q ON q.oid = d.objid AND q.relkind = 'S' "
    "JOIN pg_namespace AS qn ON "
    "qn.oid = q.relnamespace JOIN pg_sequence AS p ON p.seqrelid = q.oid"
    " UNION ALL SELECT 13, format('SELECT setval(%L, last_value, is_called) FROM %s', "
    "format('%I.%I', qn.nspname, "
    "'pgshunt_' || q.oid), q.oid::regclass) FROM t JOIN pg_depend AS d ON d.refobjid = t.oid AND "
    "d.deptype = 'i' AND "
    "d.classid = 'pg_class'::regclass JOIN pg_class AS q ON q.oid = d.objid AND q.relkind = 'S' "
    "JOIN pg_namespace AS qn ON "
    "qn.oid = q.relnamespace"
    " UNION ALL SELECT 20, format('DROP TABLE %s', old) FROM t"
    " UNION ALL SELECT 21, format('ALTER TABLE %s RENAME TO %I', new, relname) FROM t"
    " UNION ALL SELECT 22, format('ALTER SEQUENCE %I.%I RENAME TO %I', qn.nspname, 'pgshunt_' || "
    "q.oid, q.relname) FROM t "
    "JOIN pg_depend AS d ON d.refobjid = t.oid AND d.deptype = 'i' AND d.classid = "
    "'pg_class'::regclass JOIN pg_class AS q "
    "ON q.oid = d.objid AND q.relkind = 'S' JOIN pg_namespace AS qn ON qn.oid = q.relnamespace"
    " UNION ALL SELECT 23, format('ALTER TABLE %s ALTER %I SET STATISTICS %s', old, attname, "
    "attstattarget) FROM t JOIN "
    "pg_attribute AS a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped AND "
    "a.attstattarget >= 0"
    " UNION ALL SELECT 30, format('ALTER TABLE %s ADD CONSTRAINT %I %s', old, conname, "
    "pg_get_constraintdef(c.oid)) FROM t "
    "JOIN pg_constraint AS c ON c.conrelid = t.oid AND c.contype IN ('p', 'u')"
    " UNION ALL SELECT 31, format('ALTER TABLE %s ADD CONSTRAINT %I %s', old, conname, "
    "replace(pg_get_constraintdef(c.oid), "
    "' NOT VALID', '')) FROM t JOIN pg_constraint AS c ON c.conrelid = t.oid AND c.contype = 'f' "
    "AND "
    "c.conparentid = 0"
    " UNION ALL SELECT 32, pg_get_indexdef(i.indexrelid) FROM t JOIN pg_index AS i ON i.indrelid = "
    "t.oid WHERE NOT EXISTS "
    "(SELECT FROM pg_constraint WHERE conindid = i.indexrelid AND conrelid = t.oid)"
    " UNION ALL SELECT 33, pg_get_statisticsobjdef(e.oid) FROM t JOIN pg_statistic_ext AS e ON "
    "e.stxrelid = t.oid"
    " UNION ALL SELECT 34, pg_get_triggerdef(g.oid) FROM t JOIN pg_trigger AS g ON g.tgrelid = "
    "t.oid AND NOT g.tgisinternal AND g.tgname NOT LIKE " OURS
    " UNION ALL SELECT 35, format('ALTER TABLE %s %s TRIGGER %I', old, CASE g.tgenabled WHEN 'D' "
    "THEN 'DISABLE' WHEN 'A' THEN "
    "'ENABLE ALWAYS' ELSE 'ENABLE REPLICA' END, g.tgname) FROM t JOIN pg_trigger AS g ON g.tgrelid "
    "= t.oid AND NOT "
    "g.tgisinternal AND g.tgenabled <> 'O' AND g.tgname NOT LIKE " OURS
    " UNION ALL SELECT 36, pg_get_ruledef(r.oid) FROM t JOIN pg_rewrite AS r ON r.ev_class = t.oid"
    " UNION ALL SELECT 40, format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', old) FROM t WHERE "
    "relrowsecurity"
    " UNION ALL SELECT 40, format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', old) FROM t WHERE "
    "relforcerowsecurity"
    " UNION ALL SELECT 41, format('CREATE POLICY %I ON %s AS %s FOR %s TO %s%s%s', polname, old, "
    "CASE WHEN polpermissive THEN "
    "'PERMISSIVE' ELSE 'RESTRICTIVE' END, CASE polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN "
    "'INSERT' WHEN 'w' THEN 'UPDATE' WHEN "
    "'d' THEN 'DELETE' ELSE 'ALL' END, CASE WHEN polroles = '{0}' THEN 'PUBLIC' ELSE (SELECT "
    "string_agg(quote_ident(rolname), "
    "', ') FROM pg_roles WHERE oid = ANY (polroles)) END, coalesce(' USING (' || "
    "pg_get_expr(polqual, polrelid) || ')', ''), "
    "coalesce(' WITH CHECK (' || pg_get_expr(polwithcheck, polrelid) || ')', '')) FROM t JOIN "
    "pg_policy AS p ON p.polrelid = t.oid"
    " UNION ALL SELECT 42, format('GRANT %s ON %s TO %s%s', privilege_type, old, CASE grantee WHEN "
    "0 THEN 'PUBLIC' ELSE "
    "quote_ident(pg_get_userbyid(grantee)) END, CASE WHEN is_grantable THEN ' WITH GRANT OPTION' "
    "ELSE '' END) FROM t, "
    "aclexplode(relacl) WHERE grantee <> relowner"
    " UNION ALL SELECT 42, format('GRANT %s (%I) ON %s TO %s%s', privilege_type, attname, old, "
    "CASE grantee WHEN 0 THEN 'PUBLIC' "
    "ELSE quote_ident(pg_get_userbyid(grantee)) END, CASE WHEN is_grantable THEN ' WITH GRANT "
    "OPTION' ELSE '' END) FROM t JOIN "
    "pg_attribute AS a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped, "
    "aclexplode(a.attacl)"
    " UNION ALL SELECT 43, format('ALTER TABLE %s REPLICA IDENTITY %s', old, CASE relreplident "
    "WHEN 'f' THEN 'FULL' WHEN 'n' THEN "
    "'NOTHING' ELSE 'USING INDEX ' || (SELECT quote_ident(relname) FROM pg_index JOIN pg_class AS "
    "x ON x.oid = indexrelid WHERE "
    "indrelid = t.oid AND indisreplident) END) FROM t WHERE relreplident <> 'd'"
    " UNION ALL SELECT 44, format('ALTER PUBLICATION %I ADD TABLE ONLY %s', pubname, old) FROM t "
    "JOIN pg_publication_rel ON "
    "prrelid = t.oid JOIN pg_publication AS b ON b.oid = prpubid"
    " UNION ALL SELECT 45, format('COMMENT ON TABLE %s IS %L', old, obj_description(t.oid, "
    "'pg_class')) FROM t WHERE "
    "obj_description(t.oid, 'pg_class') IS NOT NULL"
    " UNION ALL SELECT 46, format('COMMENT ON CONSTRAINT %I ON %s IS %L', conname, old, "
    "obj_description(c.oid, 'pg_constraint')) "
    "FROM t JOIN pg_constraint AS c ON c.conrelid = t.oid AND c.contype IN ('p', 'u') WHERE "
    "obj_description(c.oid, "
    "'pg_constraint') IS NOT NULL"
    " UNION ALL SELECT 50, format('COMMENT ON CONSTRAINT %I ON %s IS %L', conname, old, "
    "obj_description(c.oid, 'pg_constraint')) "
    "FROM t JOIN pg_constraint AS c ON c.conrelid = t.oid AND c.contype = 'f' WHERE "
    "obj_description(c.oid, 'pg_constraint') IS NOT NULL"
    " UNION ALL SELECT 47, format('COMMENT ON INDEX %s IS %L', indexrelid::regclass, "
    "obj_description(indexrelid, 'pg_class')) FROM "
    "t JOIN pg_index AS i ON i.indrelid = t.oid WHERE obj_description(indexrelid, 'pg_class') IS "
    "NOT NULL"
    " UNION ALL SELECT 10.5, format('ALTER TABLE %s OWNER TO %I', new, pg_get_userbyid(relowner)) "
    "FROM t WHERE relowner <> (SELECT "
    "oid FROM pg_roles WHERE rolname = current_user))"
    " SELECT coalesce(string_agg(text, '; ' ORDER BY step, text), '') FROM s WHERE text IS NOT "
    "NULL AND step >= $5::numeric"
    " AND step < $6::numeric";

static const char *steps(struct shard_work *shard, const struct policy *policy,
                         const struct parent *parent, bool plain, const char *from, const char *to)
{
    char name[NAME_SIZE];
    const char *text = NULL;
    name_of(policy->table, SHAPE_NEW, &policy->every, 0, name);
    PGresult *rows = db_query(shard->db, WORK_QUERY_MS, &shard->error, statements_sql, 6,
                              parent->oid, name, parent->column, plain ? "t" : "f", from, to);
    if (rows && !PQgetisnull(rows, 0, 0))
        text = arena_strdup(&shard->arena, PQgetvalue(rows, 0, 0));
    PQclear(rows);
    return text;
}

const char *shape_statements(struct shard_work *shard, const struct policy *policy,
                             const struct parent *parent)
{
    return steps(shard, policy, parent, false, "0", "1000");
}

const char *shape_plain_statements(struct shard_work *shard, const struct policy *policy,
                                   const struct parent *parent)
{
    return steps(shard, policy, parent, true, "0", "1000");
}

const char *shape_steps(struct shard_work *shard, const struct policy *policy,
                        const struct parent *parent, const char *from, const char *to)
{
    return steps(shard, policy, parent, false, from, to);
}
