/* convert_texts.c: what a table with rows is made of, as statements that put a partitioned one in its place. */
#include "partition/convert_texts.h"

#include <string.h>

#include "partition/shape.h"

/* ---- what is in the way ---- */

/* The best key to tell rows apart by: unique at once, of columns that are never null. Of `t`. */
#define KEY                                                                                        \
    " k AS (SELECT i.indexrelid, i.indkey, i.indnkeyatts FROM t JOIN pg_index AS i ON i.indrelid " \
    "= t.oid WHERE i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND "   \
    "i.indexprs IS NULL AND NOT EXISTS (SELECT FROM generate_series(0, i.indnkeyatts - 1) AS g "   \
    "JOIN pg_attribute AS a ON a.attrelid = t.oid AND a.attnum = i.indkey[g] WHERE NOT "           \
    "a.attnotnull) ORDER BY i.indisprimary DESC, i.indnkeyatts, i.indexrelid LIMIT 1)"

/* $1: the table, $2: the column, $3: whether the primary key gets it, $4: what the old table will be called. */
static const char problems_sql[] =
    "WITH t AS (SELECT c.*, n.nspname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = "
    "c.relnamespace WHERE c.oid = $1::oid), b AS (SELECT a.* FROM t JOIN pg_attribute AS a ON "
    "a.attrelid = t.oid AND a.attname = $2)," KEY
    " SELECT 'it has no key that tells its rows apart', 'rows are copied by a primary key, or a "
    "unique index of columns that are NOT NULL: add one that contains the column' WHERE NOT EXISTS "
    "(SELECT FROM k)"
    " UNION ALL SELECT format('column %I may be null', $2), format('ALTER TABLE %s ALTER %I SET "
    "NOT "
    "NULL: it is to be part of the primary key', t.oid::regclass, $2) FROM t, b WHERE NOT "
    "b.attnotnull AND $3::boolean"
    " UNION ALL SELECT 'it is unlogged', 'ALTER TABLE ... SET LOGGED' FROM t WHERE relpersistence "
    "= "
    "'u'"
    " UNION ALL SELECT format('there is a table %I.%I already', nspname, $4::text), 'it is what "
    "the "
    "old table would be called afterwards: rename it or drop it' FROM t WHERE EXISTS (SELECT FROM "
    "pg_class AS o WHERE o.relnamespace = t.relnamespace AND o.relname = $4)"
    " UNION ALL SELECT format('its foreign key %I refers to itself', conname), format('ALTER TABLE "
    "%s DROP CONSTRAINT %I, and add it again afterwards', conrelid::regclass, conname) FROM t JOIN "
    "pg_constraint AS c ON c.conrelid = t.oid AND c.confrelid = t.oid AND c.contype = 'f'"
    " UNION ALL SELECT format('foreign key %I of %s refers to columns that are not unique without "
    "%I', conname, conrelid::regclass, $2), format('ALTER TABLE %s DROP CONSTRAINT %I; or let it "
    "refer to a key that contains the column', conrelid::regclass, conname) FROM t JOIN b ON true "
    "JOIN pg_constraint AS c ON c.confrelid = t.oid AND c.conrelid <> t.oid AND c.contype = 'f' "
    "AND "
    "c.conparentid = 0 WHERE NOT b.attnum = ANY (c.confkey)"
    " UNION ALL SELECT format('foreign key %I of %s refers to it, which is partitioned', conname, "
    "conrelid::regclass), format('ALTER TABLE %s DROP CONSTRAINT %I, and add it again afterwards', "
    "conrelid::regclass, conname) FROM t JOIN pg_constraint AS c ON c.confrelid = t.oid AND "
    "c.contype = 'f' AND c.conparentid = 0 JOIN pg_class AS r ON r.oid = c.conrelid AND r.relkind "
    "= "
    "'p'"
    " UNION ALL SELECT format('its constraint %I is not validated', conname), format('ALTER TABLE "
    "%s VALIDATE CONSTRAINT %I', t.oid::regclass, conname) FROM t JOIN pg_constraint AS c ON "
    "c.conrelid = t.oid AND NOT c.convalidated AND c.contype IN ('c', 'f')"
    " UNION ALL SELECT DISTINCT format('%s depends on it', pg_describe_object(d.classid, d.objid, "
    "0)), 'drop it, and make it again afterwards' FROM t JOIN pg_depend AS d ON (d.refclassid = "
    "'pg_class'::regclass AND d.refobjid = t.oid) OR (d.refclassid = 'pg_type'::regclass AND "
    "d.refobjid IN (t.reltype, (SELECT typarray FROM pg_type WHERE oid = t.reltype))) WHERE "
    "d.classid = 'pg_proc'::regclass OR (d.classid = 'pg_class'::regclass AND d.refclassid = "
    "'pg_type'::regclass AND d.objid <> t.oid) OR (d.classid = 'pg_policy'::regclass AND EXISTS "
    "(SELECT FROM pg_policy WHERE oid = d.objid AND polrelid <> t.oid)) OR (d.classid = "
    "'pg_rewrite'::regclass AND EXISTS (SELECT FROM pg_rewrite AS r JOIN pg_class AS v ON v.oid = "
    "r.ev_class WHERE r.oid = d.objid AND v.oid <> t.oid AND v.relkind NOT IN ('v', 'm')))"
    " UNION ALL SELECT 'its replica identity is an index, and it has no primary key', 'ALTER TABLE "
    "... REPLICA IDENTITY FULL, or add a primary key' FROM t WHERE relreplident = 'i' AND NOT "
    "EXISTS "
    "(SELECT FROM pg_index WHERE indrelid = t.oid AND indisprimary)"
    " UNION ALL SELECT format('extension %I has it', e.extname), 'it is not ours to rebuild' FROM "
    "t "
    "JOIN pg_depend AS d ON d.classid = 'pg_class'::regclass AND d.objid = t.oid AND d.deptype = "
    "'e' JOIN pg_extension AS e ON e.oid = d.refobjid"
    " UNION ALL SELECT format('publication %I publishes all tables', pubname), 'its subscribers "
    "would be sent the rows once more, of a table that they do not know' FROM pg_publication WHERE "
    "puballtables";

/* Since version 15. */
static const char schemas_sql[] =
    " UNION ALL SELECT format('publication %I publishes all tables of its schema', pubname), 'its "
    "subscribers would be sent the rows once more, of a table that they do not know' FROM t JOIN "
    "pg_publication_namespace AS p ON p.pnnspid = t.relnamespace JOIN pg_publication AS b ON b.oid "
    "= p.pnpubid";

static const char *kept_name(struct arena *arena, const struct policy *policy)
{
    char name[NAME_SIZE];
    name_of(policy->table, "_old", &policy->every, 0, name);
    return arena_strdup(arena, name);
}

bool convert_check(struct shard_work *shard, const struct policy *policy,
                   const struct parent *parent, bool extend)
{
    bool knows = PQserverVersion(db_connection(shard->db)) >= 150000;
    const char *sql = arena_printf(&shard->arena, "%s%s", problems_sql, knows ? schemas_sql : "");
    PGresult *rows = db_query(shard->db, WORK_QUERY_MS, &shard->error, sql, 4, parent->oid,
                              parent->column, extend ? "t" : "f", kept_name(&shard->arena, policy));
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

/* Rows of the catalogs that altering the table changes, by who has written them; our own triggers are none of it. */
const char *convert_fingerprint(struct arena *arena, const char *oid)
{
    return arena_printf(
        arena,
        "(SELECT md5(concat_ws('|', (c.relname, c.relnamespace, c.relowner, c.relacl, "
        "c.relreplident, c.relrowsecurity, c.relforcerowsecurity, c.reloptions, c.reltablespace), "
        "(SELECT string_agg(attnum || ':' || xmin, ',' ORDER BY attnum) FROM pg_attribute WHERE "
        "attrelid = c.oid AND attnum > 0), (SELECT string_agg(oid || ':' || xmin, ',' ORDER BY "
        "oid) "
        "FROM pg_constraint WHERE conrelid = c.oid), (SELECT string_agg(oid || ':' || xmin, ',' "
        "ORDER BY oid) FROM pg_attrdef WHERE adrelid = c.oid), (SELECT "
        "string_agg(pg_get_indexdef(indexrelid), ',' ORDER BY pg_get_indexdef(indexrelid)) FROM "
        "pg_index WHERE indrelid = c.oid AND indisvalid), (SELECT string_agg(oid || ':' || xmin, "
        "',' "
        "ORDER BY oid) FROM pg_trigger WHERE tgrelid = c.oid AND tgname NOT LIKE "
        "'pgshunt\\_convert%%'), (SELECT string_agg(oid || ':' || xmin, ',' ORDER BY oid) FROM "
        "pg_policy WHERE polrelid = c.oid), (SELECT string_agg(oid || ':' || xmin, ',' ORDER BY "
        "oid) "
        "FROM pg_statistic_ext WHERE stxrelid = c.oid), (SELECT string_agg(oid || ':' || xmin, ',' "
        "ORDER BY oid) FROM pg_publication_rel WHERE prrelid = c.oid), (SELECT "
        "string_agg(DISTINCT r.oid || ':' || r.xmin, ',') FROM pg_depend AS d JOIN pg_rewrite AS r "
        "ON r.oid = d.objid WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = "
        "'pg_class'::regclass AND d.refobjid = c.oid))) FROM pg_class AS c WHERE c.oid = %s)",
        oid);
}

/* ---- what it is made of ---- */

/* What a name is called that the new table takes over. */
#define GIVEN_UP(name, oid)                                                                        \
    "CASE WHEN octet_length(" name ") <= 59 THEN " name " || '_old' ELSE 'pgshunt_old_' || " oid   \
    " END"

/*
 * $1: the table, $2: the new one's name, $3: the column, $4: whether the primary key gets it, $5: what the old one is called
 * afterwards.
 */
static const char texts_sql[] =
    "WITH t AS (SELECT c.*, n.nspname, format('%I.%I', n.nspname, c.relname) AS old, "
    "format('%I.%I', n.nspname, $2::text) AS fresh, format('%I.%I', n.nspname, $5::text) AS kept, "
    "'pgshunt.convert_' || c.oid AS log FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = "
    "c.relnamespace WHERE c.oid = $1::oid)," KEY
    ", ka AS (SELECT g, quote_ident(a.attname) AS name, format_type(a.atttypid, a.atttypmod) AS "
    "type FROM k, generate_series(0, (SELECT indnkeyatts FROM k) - 1) AS g, pg_attribute AS a "
    "WHERE "
    "a.attrelid = $1::oid AND a.attnum = k.indkey[g]),"
    /* keys by where they stand in the row: one that is renamed meanwhile keeps nobody from writing */
    " al AS (SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) AS list FROM "
    "pg_attribute WHERE attrelid = $1::oid AND attnum > 0 AND NOT attisdropped),"
    " kl AS (SELECT string_agg(name, ', ' ORDER BY g) AS list, string_agg('o.' || name, ', ' ORDER "
    "BY g) AS olds, string_agg('n.' || name, ', ' ORDER BY g) AS news, format('(SELECT OLD.*) AS "
    "o (%s)', (SELECT list FROM al)) AS old_row, format('(SELECT NEW.*) AS n (%s)', (SELECT list "
    "FROM al)) AS new_row, "
    "string_agg(format('pgshunt_f.%s = OLD.%s', name, name), ' AND ' ORDER BY g) AS matches FROM "
    "ka),"
    " cl AS (SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) AS list, "
    "string_agg(format('NEW.%I', attname), ', ' ORDER "
    "BY attnum) AS news, string_agg(format('%I = NEW.%I', attname, attname), ', ' ORDER BY attnum) "
    "FILTER (WHERE attidentity <> 'a') "
    "AS sets FROM pg_attribute WHERE attrelid = $1::oid AND attnum > 0 AND NOT attisdropped AND "
    "attgenerated = ''),"
    /* keys and indexes: how they are made on the new table, under names of their own */
    " x AS (SELECT i.indexrelid, x.relname, n.contype, CASE WHEN n.oid IS NULL THEN format('CREATE "
    "%sINDEX pgshunt_%s ON %s%s', u.u, x.oid, t.fresh, substr(pg_get_indexdef(x.oid), "
    "length(format('CREATE %sINDEX %I ON %s', u.u, x.relname, t.old)) + 1)) ELSE format('ALTER "
    "TABLE "
    "%s ADD CONSTRAINT pgshunt_%s %s', t.fresh, x.oid, CASE WHEN $4::boolean AND n.contype = 'p' "
    "AND "
    "NOT b.attnum = ANY (n.conkey) THEN format('PRIMARY KEY (%s, %I)%s%s%s', (SELECT "
    "string_agg(quote_ident(a.attname), ', ' ORDER BY o) FROM unnest(n.conkey) WITH ORDINALITY AS "
    "q(num, o) JOIN pg_attribute AS a ON a.attrelid = t.oid AND a.attnum = q.num), b.attname, "
    "(SELECT "
    "' INCLUDE (' || string_agg(quote_ident(a.attname), ', ' ORDER BY g) || ')' FROM "
    "generate_series(i.indnkeyatts::int, i.indnatts - 1) AS g JOIN pg_attribute AS a ON a.attrelid "
    "= "
    "t.oid AND a.attnum = i.indkey[g] AND a.attnum <> b.attnum), CASE WHEN n.condeferrable THEN ' "
    "DEFERRABLE' END, CASE WHEN n.condeferred THEN ' INITIALLY DEFERRED' END) ELSE "
    "pg_get_constraintdef(n.oid) END) END AS make FROM t JOIN pg_index AS i ON i.indrelid = t.oid "
    "AND "
    "i.indisvalid JOIN pg_class AS x ON x.oid = i.indexrelid JOIN pg_attribute AS b ON b.attrelid "
    "= "
    "t.oid AND b.attname = $3 LEFT JOIN pg_constraint AS n ON n.conindid = i.indexrelid AND "
    "n.conrelid "
    "= t.oid AND n.contype IN ('p', 'u'), LATERAL (SELECT CASE WHEN i.indisunique THEN 'UNIQUE ' "
    "ELSE "
    "'' END AS u) AS u),"
    /* foreign keys */
    " f AS (SELECT c.oid, c.conname, c.confrelid, pg_get_constraintdef(c.oid) AS def FROM t JOIN "
    "pg_constraint AS c ON c.conrelid = t.oid AND c.contype = 'f'),"
    " r AS (SELECT c.oid, c.conname, c.conrelid, replace(pg_get_constraintdef(c.oid), ' NOT "
    "VALID', "
    "'') AS def FROM t JOIN pg_constraint AS c ON c.confrelid = t.oid AND c.conrelid <> t.oid AND "
    "c.contype = 'f' AND c.conparentid = 0),"
    " l AS (SELECT h.inhrelid::regclass::text AS name FROM t JOIN pg_inherits AS h ON h.inhparent "
    "= "
    "to_regclass(t.fresh)),"
    " v AS (SELECT DISTINCT c.oid, c.reloptions FROM t JOIN pg_depend AS d ON d.classid = "
    "'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = t.oid JOIN "
    "pg_rewrite AS w ON w.oid = d.objid JOIN pg_class AS c ON c.oid = w.ev_class AND c.relkind = "
    "'v'),"
    " a(n, o, text) AS (SELECT 1, l.name, format('ALTER TABLE %s VALIDATE CONSTRAINT %I', l.name, "
    "f.conname) FROM l, f UNION ALL SELECT 2, f.conname, format('ALTER TABLE %s ADD CONSTRAINT %I "
    "%s', "
    "t.old, f.conname, f.def) FROM t, f UNION ALL SELECT 3, f.conname, format('COMMENT ON "
    "CONSTRAINT "
    "%I ON %s IS %L', f.conname, t.old, obj_description(f.oid, 'pg_constraint')) FROM t, f WHERE "
    "obj_description(f.oid, 'pg_constraint') IS NOT NULL UNION ALL SELECT 4, r.conname, "
    "format('ALTER "
    "TABLE %s VALIDATE CONSTRAINT %I', r.conrelid::regclass, r.conname) FROM r UNION ALL SELECT 5, "
    "'', format('DROP FUNCTION IF EXISTS %s()', log) FROM t UNION ALL SELECT 6, '', format('DROP "
    "TABLE "
    "IF EXISTS %s', log) FROM t)"
    " SELECT t.old, t.fresh, t.log, (SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) "
    "FROM pg_attribute WHERE attrelid = t.oid AND attnum > 0 AND NOT attisdropped AND attgenerated "
    "= "
    "''), kl.list, (SELECT name FROM ka WHERE g = 0), (SELECT string_agg(format('s.%s = l.%s', "
    "name, "
    "name), ' AND ' ORDER BY g) FROM ka),"
    " (SELECT format('format(%L, %s)', '(' || string_agg('%L::' || type, ', ' ORDER BY g) || ')', "
    "string_agg('b.' || name, ', ' ORDER BY g)) FROM ka),"
    /* dress */
    " concat_ws('; ', CASE t.relreplident WHEN 'f' THEN format('ALTER TABLE %s REPLICA IDENTITY "
    "FULL', "
    "t.fresh) WHEN 'n' THEN format('ALTER TABLE %s REPLICA IDENTITY NOTHING', t.fresh) END, "
    "(SELECT "
    "format('ALTER TABLE %s SET TABLESPACE %I', t.fresh, spcname) FROM pg_tablespace WHERE oid = "
    "t.reltablespace), (SELECT string_agg(format('GRANT %s ON %s TO %s%s', privilege_type, "
    "t.fresh, "
    "CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END, CASE WHEN "
    "is_grantable THEN ' WITH GRANT OPTION' ELSE '' END), '; ' ORDER BY grantee, privilege_type) "
    "FROM "
    "aclexplode(t.relacl) WHERE grantee <> t.relowner)),"
    /* watch, unwatch */
    " format('CREATE TABLE %s AS SELECT %s FROM ONLY %s WITH NO DATA; ALTER TABLE %s ADD "
    "pgshunt_id "
    "bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY; CREATE FUNCTION %s() RETURNS trigger "
    "LANGUAGE "
    "plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS %L; CREATE TRIGGER "
    "pgshunt_convert AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION %s(); "
    "CREATE "
    "TRIGGER pgshunt_convert_truncate AFTER TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION "
    "%s(); "
    "ALTER TABLE %s ENABLE ALWAYS TRIGGER pgshunt_convert; ALTER TABLE %s ENABLE ALWAYS TRIGGER "
    "pgshunt_convert_truncate; CREATE TRIGGER pgshunt_convert_columns BEFORE UPDATE OF %s ON %s "
    "FOR "
    "EACH ROW EXECUTE FUNCTION %s(); ALTER TABLE %s DISABLE TRIGGER pgshunt_convert_columns', "
    "t.log, kl.list, t.old, t.log, t.log, format('BEGIN IF TG_OP = "
    "''TRUNCATE'' THEN INSERT INTO %s (%s) SELECT NULL; RETURN NULL; END IF; IF TG_OP <> "
    "''INSERT'' THEN INSERT INTO %s (%s) SELECT %s FROM %s; END IF; IF TG_OP = ''INSERT'' THEN "
    "INSERT INTO %s (%s) SELECT %s FROM %s; ELSIF TG_OP = ''UPDATE'' THEN INSERT INTO %s (%s) "
    "SELECT %s FROM %s, %s WHERE ROW(%s) IS DISTINCT FROM ROW(%s); END IF; RETURN NULL; END', "
    "t.log, (SELECT name FROM ka WHERE g = 0), t.log, kl.list, kl.olds, kl.old_row, t.log, "
    "kl.list, kl.news, kl.new_row, t.log, kl.list, kl.news, kl.old_row, kl.new_row, kl.olds, "
    "kl.news), t.old, t.log, t.old, t.log, t.old, t.old, (SELECT list FROM al), t.old, t.log, "
    "t.old),"
    " format('DROP TRIGGER IF EXISTS pgshunt_convert ON %s; DROP TRIGGER IF EXISTS "
    "pgshunt_convert_truncate ON %s; DROP TRIGGER IF EXISTS pgshunt_convert_columns ON %s', t.old, "
    "t.old, t.old),"
    " (SELECT x.make FROM x, k WHERE x.indexrelid = k.indexrelid),"
    " (SELECT string_agg(x.make, '; ' ORDER BY x.indexrelid) FROM x, k WHERE x.indexrelid <> "
    "k.indexrelid),"
    /* mirror */
    " format('CREATE OR REPLACE FUNCTION %s() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER "
    "SET search_path = pg_catalog, "
    "pg_temp SET plan_cache_mode = force_custom_plan AS %L', t.log, format('#variable_conflict "
    "use_column' || chr(10) || 'BEGIN IF TG_OP = ''TRUNCATE'' THEN INSERT INTO %s "
    "(%s) SELECT NULL; RETURN NULL; END IF; BEGIN IF TG_OP = ''INSERT'' THEN INSERT INTO %s (%s) "
    "OVERRIDING SYSTEM VALUE VALUES "
    "(%s); ELSIF TG_OP = ''UPDATE'' THEN UPDATE %s AS pgshunt_f SET %s WHERE %s; ELSE DELETE FROM "
    "%s AS pgshunt_f WHERE %s; END IF; "
    "IF FOUND THEN RETURN NULL; END IF; EXCEPTION WHEN OTHERS THEN NULL; END; IF TG_OP <> "
    "''INSERT'' THEN INSERT INTO %s (%s) SELECT %s FROM %s; END IF; IF TG_OP <> ''DELETE'' THEN "
    "INSERT INTO %s (%s) SELECT %s FROM %s; END IF; "
    "RETURN NULL; END', t.log, (SELECT "
    "name FROM ka WHERE g = 0), t.fresh, cl.list, cl.news, t.fresh, cl.sets, kl.matches, t.fresh, "
    "kl.matches, t.log, kl.list, "
    "kl.olds, kl.old_row, t.log, kl.list, kl.news, kl.new_row)),"
    /* lock */
    " 'LOCK TABLE ' || concat_ws(', ', t.old, (SELECT string_agg(DISTINCT "
    "confrelid::regclass::text, "
    "', ') FROM f WHERE confrelid <> t.oid), (SELECT string_agg(DISTINCT conrelid::regclass::text, "
    "', "
    "') FROM r WHERE conrelid NOT IN (SELECT confrelid FROM f))) || ' IN ACCESS EXCLUSIVE MODE',"
    /* part_old */
    " concat_ws('; ', (SELECT string_agg(format('ALTER PUBLICATION %I DROP TABLE ONLY %s', "
    "pubname, "
    "t.old), '; ') FROM pg_publication_rel JOIN pg_publication AS b ON b.oid = prpubid WHERE "
    "prrelid = "
    "t.oid), (SELECT string_agg(format('ALTER TABLE %s DROP CONSTRAINT %I', t.old, conname), '; ') "
    "FROM "
    "f), (SELECT string_agg(format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, "
    "conname), '; "
    "') FROM r), (SELECT string_agg(format('ALTER INDEX %I.%I RENAME TO %I', t.nspname, "
    "x.relname, " GIVEN_UP(
        "x.relname",
        "x.indexrelid") "), '; ') FROM x), (SELECT string_agg(format('ALTER STATISTICS %I.%I "
                        "RENAME TO %I', n.nspname, "
                        "stxname, " GIVEN_UP(
                            "stxname",
                            "e.oid") "), '; ') FROM pg_statistic_ext AS e JOIN pg_namespace AS n "
                                     "ON n.oid = e.stxnamespace WHERE stxrelid "
                                     "= t.oid), (SELECT string_agg(format('ALTER SEQUENCE %I.%I "
                                     "RENAME TO %I', n.nspname, q.relname, " GIVEN_UP(
                                         "q.relname",
                                         "q.oid") "), '; ') FROM pg_depend AS d JOIN pg_class AS q "
                                                  "ON q.oid = d.objid AND q.relkind = 'S' JOIN "
                                                  "pg_namespace AS n ON n.oid = q.relnamespace "
                                                  "WHERE d.refobjid = t.oid AND d.deptype = 'i' "
                                                  "AND "
                                                  "d.classid = 'pg_class'::regclass), "
                                                  "format('ALTER TABLE %s RENAME TO %I', t.old, "
                                                  "$5::text)),"
                                                  " (SELECT string_agg(format('ALTER INDEX "
                                                  "%I.pgshunt_%s RENAME TO %I', t.nspname, "
                                                  "x.indexrelid, "
                                                  "x.relname), '; ') FROM x),"
                                                  /* refer */
                                                  " concat_ws('; ', (SELECT "
                                                  "string_agg(format('ALTER TABLE %s ADD "
                                                  "CONSTRAINT %I %s NOT VALID', l.name, "
                                                  "f.conname, f.def), '; ') FROM l, f), (SELECT "
                                                  "string_agg(format('ALTER TABLE %s ADD "
                                                  "CONSTRAINT %I %s "
                                                  "NOT VALID', r.conrelid::regclass, r.conname, "
                                                  "r.def) || coalesce(format('; COMMENT ON "
                                                  "CONSTRAINT %I "
                                                  "ON %s IS %L', r.conname, r.conrelid::regclass, "
                                                  "obj_description(r.oid, 'pg_constraint')), ''), "
                                                  "'; ') "
                                                  "FROM r)),"
                                                  " (SELECT string_agg(format('CREATE OR REPLACE "
                                                  "VIEW %s%s AS %s', v.oid::regclass, ' WITH (' || "
                                                  "array_to_string(v.reloptions, ', ') || ')', "
                                                  "rtrim(pg_get_viewdef(v.oid), '; ')), '; ' ORDER "
                                                  "BY "
                                                  "v.oid) FROM v),"
                                                  " (SELECT 'ARRAY[' || "
                                                  "string_agg(quote_literal(text), ', ' ORDER BY "
                                                  "n, o) || ']::text[]' FROM a),"
                                                  " array_cat(ARRAY[t.oid], array_cat(ARRAY(SELECT "
                                                  "confrelid FROM f), ARRAY(SELECT conrelid FROM "
                                                  "r)))::text,"
                                                  " array_to_string(t.reloptions, ', ')"
                                                  " FROM t, kl, cl";

static void fill(struct arena *arena, const PGresult *rows, struct convert_texts *texts)
{
    const char **fields[] = {
        &texts->old,       &texts->fresh,      &texts->log,         &texts->columns, &texts->key,
        &texts->key_first, &texts->key_match,  &texts->key_literal, &texts->dress,   &texts->watch,
        &texts->unwatch,   &texts->make_key,   &texts->make_others, &texts->mirror,  &texts->lock,
        &texts->part_old,  &texts->part_fresh, &texts->refer,       &texts->views,   &texts->after,
        &texts->oids,
    };
    int count = sizeof fields / sizeof *fields;
    for (int i = 0; i < count; i++)
        *fields[i] = arena_strdup(arena, PQgetvalue(rows, 0, i));
    texts->options =
        PQgetisnull(rows, 0, count) ? NULL : arena_strdup(arena, PQgetvalue(rows, 0, count));
}

bool convert_texts(struct shard_work *shard, const struct policy *policy,
                   const struct parent *parent, bool extend, struct convert_texts *texts)
{
    struct arena *arena = &shard->arena;
    char fresh[NAME_SIZE];
    name_of(policy->table, SHAPE_NEW, &policy->every, 0, fresh);
    const char *kept = kept_name(arena, policy);
    PGresult *rows = db_query(shard->db, WORK_QUERY_MS, &shard->error, texts_sql, 5, parent->oid,
                              fresh, policy->column, extend ? "t" : "f", kept);
    bool found = rows && PQntuples(rows) == 1 && !PQgetisnull(rows, 0, 4);
    if (found)
        fill(arena, rows, texts);
    else if (rows)
        shard->error = (struct db_error){.text = "the table is gone, or has no key any more"};
    PQclear(rows);
    if (!found)
        return false;
    texts->fresh_name = arena_strdup(arena, fresh);
    texts->kept_name = kept;
    const char *made = shape_steps(shard, policy, parent, "10", "10.9");
    const char *identity = made ? shape_steps(shard, policy, parent, "12", "12.9") : NULL;
    texts->between = identity ? shape_steps(shard, policy, parent, "13", "13.9") : NULL;
    const char *serial = texts->between ? shape_steps(shard, policy, parent, "11", "11.9") : NULL;
    const char *names = serial ? shape_steps(shard, policy, parent, "21", "23.9") : NULL;
    texts->last = names ? shape_steps(shard, policy, parent, "33", "49") : NULL;
    if (!texts->last)
        return false;
    texts->before = arena_printf(arena, "%s; %s", made, identity);
    texts->between = arena_printf(arena, "%s; %s", serial, texts->between);
    texts->part_fresh = arena_printf(arena, "%s; %s", names, texts->part_fresh);
    return true;
}
