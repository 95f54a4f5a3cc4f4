/* parse_cases.h: queries and the trees they become, as test_parse.c writes trees. */
#ifndef PGSHUNT_PARSE_CASES_H
#define PGSHUNT_PARSE_CASES_H

/* clang-format off */
static const struct {
    const char *sql;
    const char *tree;
} tree_cases[] = {
    {"SELECT 1",
     "select[1]"},
    {"SELECT abalance FROM pgbench_accounts WHERE aid = $1",
     "select[abalance] from pgbench_accounts where (= aid $1)"},
    {"SELECT * FROM users u WHERE u.id = 42 AND (name LIKE 'a%' OR NOT active)",
     "select[*] from users as u where (and (= u.id 42) (or (#LIKE name 'a%') (not active)))"},
    {"SELECT public.users.id, u.*, a.b.c.d FROM users",
     "select[public.users.id, u.*, b.c.d] from users"},
    {"SELECT -5, 2147483648, -9223372036854775808, 9223372036854775808, 1.5, 1e3, 'it''s', "
     "true, NULL, B'101', X'1F'",
     "select[-5, 2147483648, -9223372036854775808, float:9223372036854775808, float:1.5, "
     "float:1e3, 'it's', true, NULL, bits:b101, bits:x1F]"},
    {"SELECT 1::int8, '42'::bigint, CAST('{1}' AS int[]), 'x'::my.type, interval '1 day', "
     "date '2020-01-01'",
     "select[(::int8 1), (::pg_catalog.int8 '42'), (::pg_catalog.int4[] '{1}'), (::my.type "
     "'x'), (::pg_catalog.interval '1 day'), (::date '2020-01-01')]"},
    {"SELECT a IN (1, 2, $3), a NOT IN (1), a BETWEEN 1 AND 2, a NOT BETWEEN 1 AND 2, a "
     "BETWEEN SYMMETRIC 2 AND 1",
     "select[(in a 1 2 $3), (not in a 1), (between a 1 2), (not (between a 1 2)), (#BETWEEN "
     "SYMMETRIC a 2 1)]"},
    {"SELECT a = ANY($1), a = ANY('{1,2}'::int[]), a <> ALL(ARRAY[1,2]), a IS NULL, a IS NOT "
     "NULL, a IS TRUE",
     "select[(any = a $1), (any = a (::pg_catalog.int4[] '{1,2}')), (#ALL a (array 1 2)), "
     "(isnull a), (notnull a), (#BOOLEAN TEST a)]"},
    {"SELECT a IS DISTINCT FROM b, NULLIF(a, b), a ILIKE 'x', a NOT LIKE 'y', a SIMILAR TO "
     "'z', a OPERATOR(my.+) b",
     "select[(#IS DISTINCT FROM a b), (#NULLIF a b), (#ILIKE a 'x'), (#NOT LIKE a 'y'), "
     "(#SIMILAR a pg_catalog.similar_to_escape( 'z')), (my.+ a b)]"},
    {"SELECT id FROM t WHERE id IN (SELECT uid FROM o) AND EXISTS (SELECT FROM p) AND x > ALL "
     "(SELECT 1) AND y = (SELECT 2) AND (a, b) = (SELECT 1, 2) AND z = ANY (ARRAY(SELECT 3))",
     "select[id] from t where (and ANY{id select[uid] from o} EXISTS{select from p} ALL>{x "
     "select[1]} (= y EXPR{select[2]}) (= (row a b) EXPR{select[1, 2]}) (any = z "
     "ARRAY{select[3]}))"},
    {"SELECT count(*), count(DISTINCT a), sum(a) FILTER (WHERE b > 0), string_agg(a, ',' "
     "ORDER BY b DESC), percentile_cont(0.5) WITHIN GROUP (ORDER BY c), f(VARIADIC arr), "
     "pg_catalog.lower(x) FROM t",
     "select[count(*), count(distinct a), sum( a)filter(> b 0), string_agg( a ',')order[ b "
     "desc nf], percentile_cont( float:0.5)within[ c], f(variadic arr), pg_catalog.lower( x)] "
     "from t"},
    {"SELECT row_number() OVER (PARTITION BY f(a) ORDER BY b) FROM t",
     "select[row_number()over] from t windows"},
    {"SELECT rank() OVER w FROM t WINDOW w AS (ORDER BY a)",
     "select[rank()over] from t windows"},
    {"SELECT CASE a WHEN 1 THEN 'x' WHEN $1 THEN f(2) ELSE b END, CASE WHEN a THEN b END, "
     "COALESCE(a, g(1)), GREATEST(1, 2), LEAST(1, 2)",
     "select[(case a 1 'x' $1 f( 2) b), (case a b), (#COALESCE a g( 1)), (#GREATEST 1 2), "
     "(#LEAST 1 2)]"},
    {"SELECT ROW(1, 2), (1, 2), ARRAY[1, 2], arr[i + 1], (comp).field, a COLLATE \"C\", "
     "CURRENT_DATE, a AT TIME ZONE 'UTC'",
     "select[(row 1 2), (row 1 2), (array 1 2), (#INDIRECTION arr (+ i 1)), (#INDIRECTION "
     "comp), (collate C a), (#SQL VALUE FUNCTION), pg_catalog.timezone( 'UTC' a)]"},
    {"SELECT DISTINCT a FROM t",
     "select distinct[a] from t"},
    {"SELECT DISTINCT ON (a, b) a FROM t ORDER BY a, b DESC NULLS LAST, c NULLS FIRST, d "
     "USING >",
     "select[a] from t on a b order a b desc c nf d using"},
    {"SELECT a, count(*) FROM t GROUP BY a HAVING count(*) > 1 ORDER BY 2 DESC LIMIT 10 "
     "OFFSET $1",
     "select[a, count(*)] from t group a having (> count(*) 1) order 2 desc nf limit 10 "
     "offset $1"},
    {"SELECT a FROM t GROUP BY GROUPING SETS ((a), ()), ROLLUP (b)",
     "select[a] from t group sets (#GROUPING SET a (#GROUPING SET)) (#GROUPING SET b)"},
    {"SELECT a FROM t LIMIT ALL",
     "select[a] from t"},
    {"SELECT a FROM t ORDER BY a FETCH FIRST 3 ROWS WITH TIES",
     "select[a] from t order a limit 3 ties"},
    {"SELECT a FROM t FOR UPDATE",
     "select[a] from t locking"},
    {"SELECT a FROM t FOR KEY SHARE OF t SKIP LOCKED",
     "select[a] from t locking"},
    {"SELECT * FROM a JOIN b ON a.id = b.id LEFT JOIN c USING (x, y), d NATURAL JOIN e CROSS "
     "JOIN f RIGHT JOIN g ON true FULL JOIN h ON false",
     "select[*] from (left (join a b on (= a.id b.id)) c using x using y), (full (right (join "
     "(natural join d e) f) g on true) h on false)"},
    {"SELECT * FROM (SELECT id FROM users) s, LATERAL (SELECT 1) l, generate_series(1, 3) g, "
     "LATERAL f(s.id), ROWS FROM (f1(1), f2($2)) AS r(a, b)",
     "select[*] from {select[id] from users} as s, lateral {select[1]} as l, generate_series( "
     "1 3) as g, lateral f( s.id), f1( 1) as r"},
    {"SELECT * FROM users AS u(a, b), (SELECT id FROM t) AS s(x), (a JOIN b ON true) AS j(y), "
     "(a JOIN b ON true) AS k",
     "select[*] from other users as u, other {select[id] from t} as s, (other join a b on "
     "true) as j, (join a b on true) as k"},
    {"SELECT * FROM t TABLESAMPLE bernoulli (f(10)) REPEATABLE (1)",
     "select[*] from other t"},
    {"SELECT * FROM XMLTABLE('/r' PASSING data COLUMNS a int PATH f('x'))",
     "select[*] from other (#XMLTABLE data '/r' f( 'x'))"},
    {"SELECT * FROM ONLY s.t",
     "select[*] from s.t"},
    {"WITH a AS (SELECT 1), b(x) AS (SELECT * FROM a) SELECT * FROM a, b",
     "with a{select[1]} with b(renamed){select[*] from a} select[*] from a, b"},
    {"WITH RECURSIVE r AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT * FROM r",
     "recursive r{{select[1]} UNION ALL {select[(+ n 1)] from r}} select[*] from r"},
    {"VALUES (1, 'a'), (2, DEFAULT)",
     "values(1 'a')(2 DEFAULT)"},
    {"TABLE users",
     "select[*] from users"},
    {"SELECT 1 UNION SELECT 2 INTERSECT ALL SELECT 3 EXCEPT SELECT 4 ORDER BY 1 LIMIT 1",
     "{{select[1]} UNION {{select[2]} INTERSECT ALL {select[3]}}} EXCEPT {select[4]} order 1 "
     "limit 1"},
    {"(SELECT a FROM t ORDER BY a LIMIT 1) UNION ALL (SELECT b FROM u)",
     "{select[a] from t order a limit 1} UNION ALL {select[b] from u}"},
    {"INSERT INTO users (id, name) VALUES (1, 'a'), ($1, DEFAULT) RETURNING id, name AS n",
     "insert[id:null, name:null] users {values(1 'a')($1 DEFAULT)} returning[id, n:name]"},
    {"INSERT INTO users DEFAULT VALUES",
     "insert users"},
    {"INSERT INTO s.users AS u SELECT * FROM old ON CONFLICT (id) DO UPDATE SET name = "
     "excluded.name, n = u.n + 1 WHERE u.id > f(1)",
     "insert s.users as u {select[*] from old} conflict update set[name:excluded.name, n:(+ "
     "u.n 1)]"},
    {"INSERT INTO users VALUES (1) ON CONFLICT DO NOTHING",
     "insert users {values(1)} conflict"},
    {"INSERT INTO t (a[f(1)], p.x) VALUES (1, 2)",
     "insert[a:(#PART OF COLUMN f( 1)), p:(#PART OF COLUMN)] t {values(1 2)}"},
    {"UPDATE pgbench_accounts SET abalance = abalance + -123 WHERE aid = 555",
     "update[abalance:(+ abalance -123)] pgbench_accounts where (= aid 555)"},
    {"UPDATE t SET (a, b) = (1, f(2)), (c, d) = (SELECT 3, 4), e[2] = 5 FROM u WHERE t.id = "
     "u.id RETURNING *",
     "update[a:1, b:f( 2), c:(#COLUMN OF ROW EXPR{select[3, 4]}), d:(#COLUMN OF ROW), "
     "e:(#PART OF COLUMN 5 2)] t returning[*] from u where (= t.id u.id)"},
    {"DELETE FROM t USING u WHERE t.id = u.id AND u.x = $1 RETURNING t.id",
     "delete t returning[t.id] from u where (and (= t.id u.id) (= u.x $1))"},
    {"DELETE FROM t WHERE CURRENT OF c",
     "delete t where (#CURRENT OF)"},
    {"WITH x AS (DELETE FROM a RETURNING *) INSERT INTO b SELECT * FROM x",
     "with x{delete a returning[*]} insert b {select[*] from x}"},
    {"MERGE INTO t USING s ON t.id = s.id WHEN MATCHED AND s.d THEN DELETE WHEN MATCHED THEN "
     "UPDATE SET a = s.a WHEN NOT MATCHED THEN INSERT (id, a) VALUES (s.id, f(s.a))",
     "merge t set[a:s.a, id:s.id, a:f( s.a)] from s where (= t.id s.id)"},
    {"SELECT xmlelement(name x, xmlattributes(f(1) AS a), g(2)), xmlserialize(content h(3) AS "
     "text)",
     "select[(#XML f( 1) g( 2)), (#XML h( 3))]"},
    {"SELECT f(a => g(1)), GROUPING(a) FROM t GROUP BY CUBE (a)",
     "select[f( (#NAMED ARGUMENT g( 1))), (#GROUPING a)] from t group sets (#GROUPING SET a)"},
    {"SELECT (SELECT max(x) FROM (SELECT y AS x FROM z) q)",
     "select[EXPR{select[max( x)] from {select[x:y] from z} as q}]"},
    {"SELECT trim(both 'x' from a), extract(year from b), substring(c from 2 for 3), "
     "position('a' in d), overlay(e placing 'f' from 1)",
     "select[pg_catalog.btrim( a 'x'), pg_catalog.extract( 'year' b), pg_catalog.substring( c "
     "2 3), pg_catalog.position( d 'a'), pg_catalog.overlay( e 'f' 1)]"},
    {"EXPLAIN SELECT 1",
     "select[1]"},
    {"COPY (SELECT a FROM t) TO STDOUT",
     "select[a] from t"},
    {"CREATE TABLE x AS SELECT a FROM t",
     "select[a] from t"},
    {"DECLARE c CURSOR FOR SELECT 1",
     "select[1]"},
    {"SELECT a INTO x FROM t",
     "select[a] from t into"},
    {"SELECT a FROM t WHERE ((((((((((((((((a = 1))))))))))))))))",
     "select[a] from t where (= a 1)"},
};
/* clang-format on */

#endif
