/* test_rewrite.c: SQL for single shards, and that deparsing keeps the meaning of what it touches. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <pg_query.h>

#include "router/rewrite.h"

static struct arena arena;

static int setup(void **state)
{
    (void)state;
    arena_init(&arena);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_free(&arena);
    return 0;
}

static void check_params(const struct shard_query *query, const char *expected)
{
    char words[256] = "";
    size_t length = 0;
    for (int i = 0; i < query->nparams; i++)
        length += (size_t)snprintf(words + length, sizeof words - length, "%s%d", i ? " " : "",
                                   query->params[i]);
    assert_int_equal(query->params != NULL, expected != NULL);
    assert_string_equal(words, expected ? expected : "");
}

/* ---- SELECT ---- */

struct select_case {
    const char *sql;
    struct rewrite_select change;
    const char *expected; /* NULL: refused */
    const char *params;   /* NULL: unchanged */
};

#define COLUMNS(...)                                                                               \
    .columns = (const struct rewrite_column[]){__VA_ARGS__},                                       \
    .ncolumns =                                                                                    \
        sizeof((const struct rewrite_column[]){__VA_ARGS__}) / sizeof(struct rewrite_column)

static const struct select_case select_cases[] = {
    {"select a from t", {.drop_order = true}, "SELECT a FROM t", NULL},
    {"select a from t order by b desc nulls last, lower(c)",
     {COLUMNS({REWRITE_SORT, 0}, {REWRITE_SORT, 1})},
     "SELECT a, b AS pgshunt_hidden_1, lower(c) AS pgshunt_hidden_2 FROM t ORDER BY b DESC NULLS "
     "LAST, "
     "lower(c)",
     NULL},
    {"select count(*) from t group by a, b + 1",
     {COLUMNS({REWRITE_GROUP, 1}, {REWRITE_GROUP, 0})},
     "SELECT count(*), b + 1 AS pgshunt_hidden_1, a AS pgshunt_hidden_2 FROM t GROUP BY a, b + 1",
     NULL},
    {"select x, avg(y) filter (where z) from t group by x",
     {COLUMNS({REWRITE_SUM, 1}, {REWRITE_COUNT, 1})},
     "SELECT x, avg(y) FILTER (WHERE z), pg_catalog.sum(y) FILTER (WHERE z) AS pgshunt_hidden_1, "
     "pg_catalog.count(y) FILTER (WHERE z) AS pgshunt_hidden_2 FROM t GROUP BY x",
     NULL},
    {"select x from t group by x order by avg(y) limit 3 offset 4",
     {COLUMNS({REWRITE_SORT, 0}, {REWRITE_SORT_SUM, 0}, {REWRITE_SORT_COUNT, 0}),
      .drop_order = true, .drop_limit = true},
     "SELECT x, avg(y) AS pgshunt_hidden_1, pg_catalog.sum(y) AS pgshunt_hidden_2, "
     "pg_catalog.count(y) "
     "AS pgshunt_hidden_3 FROM t GROUP BY x",
     NULL},
    /* LIMIT and OFFSET */
    {"select a from t limit 10 offset 5", {.fold_offset = true}, "SELECT a FROM t LIMIT 15", NULL},
    {"select a from t offset 5", {.fold_offset = true}, "SELECT a FROM t", NULL},
    {"select a from t limit 5", {.fold_offset = true}, "SELECT a FROM t LIMIT 5", NULL},
    {"select a from t limit all offset 5",
     {.fold_offset = true},
     "SELECT a FROM t LIMIT ALL",
     NULL},
    {"select a from t limit 5 offset null", {.fold_offset = true}, "SELECT a FROM t LIMIT 5", NULL},
    {"select a from t limit 2147483647 offset 1",
     {.fold_offset = true},
     "SELECT a FROM t LIMIT 2147483648",
     NULL},
    {"select a from t limit 9223372036854775807 offset 1",
     {.fold_offset = true},
     "SELECT a FROM t LIMIT 9223372036854775807",
     NULL},
    {"select a from t limit 99999999999999999999 offset 1",
     {.fold_offset = true},
     "SELECT a FROM t LIMIT 9223372036854775807",
     NULL},
    {"select a from t limit $1 offset 5",
     {.fold_offset = true},
     "SELECT a FROM t LIMIT LEAST($1::bigint::numeric + 5::bigint::numeric, "
     "9223372036854775807)::bigint",
     NULL},
    {"select a from t fetch first 3 rows only", {.drop_limit = true}, "SELECT a FROM t", NULL},
    {"select a from t order by a fetch first 3 rows with ties",
     {.drop_limit = true},
     "SELECT a FROM t ORDER BY a",
     NULL},
    /* parameters that are gone make the others move up */
    {"select a from t where b = $2 offset $1",
     {.fold_offset = true},
     "SELECT a FROM t WHERE b = $1",
     "1"},
    {"select $3::int, a from t where b = $3 group by a limit $1 offset $2",
     {.drop_limit = true},
     "SELECT $1::int, a FROM t WHERE b = $1 GROUP BY a",
     "2"},
    {"select a from t where b = $12 and c = $2 limit $1",
     {.drop_limit = true},
     "SELECT a FROM t WHERE b = $2 AND c = $1",
     "1 11"},
    {"select '$1', \"$2\", $1 from t limit $2",
     {.drop_limit = true},
     "SELECT '$1', \"$2\", $1 FROM t",
     "0"},
    {"select a from t limit $1", {.drop_limit = true}, "SELECT a FROM t", ""},
    {"select a from t where b = $1", {.drop_limit = true}, "SELECT a FROM t WHERE b = $1", NULL},
    /* EXPLAIN gives the statement inside */
    {"explain (costs off) select a from t order by b",
     {COLUMNS({REWRITE_SORT, 0})},
     "SELECT a, b AS pgshunt_hidden_1 FROM t ORDER BY b",
     NULL},
    {"(select a from t order by b limit 1 offset 1)",
     {.fold_offset = true},
     "SELECT a FROM t ORDER BY b LIMIT 2",
     NULL},
    /* what is not there */
    {"select a from t", {COLUMNS({REWRITE_SORT, 0})}, NULL, NULL},
    {"select a from t", {COLUMNS({REWRITE_GROUP, 0})}, NULL, NULL},
    {"select a from t", {COLUMNS({REWRITE_SUM, 0})}, NULL, NULL},
    {"select a from t", {COLUMNS({REWRITE_COUNT, 7})}, NULL, NULL},
    {"select a from t order by b", {COLUMNS({REWRITE_SORT_SUM, 0})}, NULL, NULL},
    {"selec a from t", {.drop_limit = true}, NULL, NULL},
    {"", {.drop_limit = true}, NULL, NULL},
    {"select 1; select 2", {.drop_limit = true}, NULL, NULL},
    {"insert into t values (1)", {.drop_limit = true}, NULL, NULL},
    {"explain create table x as select 1", {.drop_limit = true}, NULL, NULL},
    {"begin", {.drop_limit = true}, NULL, NULL},
    /* deparsing loses the parentheses: better refused than sent */
    {"select (array[1, 2])[1] from t limit 1", {.drop_limit = true}, NULL, NULL},
};

static void test_select(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof select_cases / sizeof select_cases[0]; i++) {
        const struct select_case *c = &select_cases[i];
        struct shard_query out = {0};
        bool ok = rewrite_select(c->sql, &c->change, &arena, &out);
        if (ok != (c->expected != NULL))
            fail_msg("%s: %s", c->sql, ok ? out.sql : "refused");
        if (!ok)
            continue;
        assert_string_equal(out.sql, c->expected);
        if (c->params && !*c->params) {
            assert_int_equal(out.nparams, 0);
            assert_non_null(out.params);
        } else {
            check_params(&out, c->params);
        }
    }
}

/* ---- INSERT ---- */

struct insert_case {
    const char *sql;
    const char *parts;    /* a digit a row: its part */
    int which;            /* the part that is looked at */
    const char *expected; /* NULL: refused */
    const char *params;
    bool whole; /* RETURNING has every row */
};

static const struct insert_case insert_cases[] = {
    {"insert into t (a, b) values (1, 'x'), (2, 'y'), (3, 'z')", "010", 0,
     "INSERT INTO t (a, b) VALUES (1, 'x'), (3, 'z')", NULL, true},
    {"insert into t (a, b) values (1, 'x'), (2, 'y'), (3, 'z')", "010", 1,
     "INSERT INTO t (a, b) VALUES (2, 'y')", NULL, true},
    {"insert into t values (1), (2)", "01", 1, "INSERT INTO t VALUES (2)", NULL, true},
    {"insert into s.t as x (a) values (1), (2) on conflict (a) where b do update set a = "
     "excluded.a + x.a where x.c returning *, a + 1 as y",
     "01", 1,
     "INSERT INTO s.t AS x (a) VALUES (2) ON CONFLICT (a) WHERE b DO UPDATE SET a = excluded.a + "
     "x.a WHERE x.c RETURNING *, a + 1 AS y",
     NULL, false},
    {"insert into t values (1), (2) on conflict (a) do update set b = 1 returning a", "10", 0,
     "INSERT INTO t VALUES (2) ON CONFLICT (a) DO UPDATE SET b = 1 RETURNING a", NULL, true},
    {"insert into t values (1), (2) on conflict do nothing", "10", 0,
     "INSERT INTO t VALUES (2) ON CONFLICT DO NOTHING", NULL, false},
    {"insert into t (a) overriding system value values (1), (2)", "01", 0,
     "INSERT INTO t (a) OVERRIDING SYSTEM VALUE VALUES (1)", NULL, true},
    {"insert into t (a, b) values (1, default), (2, null)", "00", 0,
     "INSERT INTO t (a, b) VALUES (1, DEFAULT), (2, NULL)", NULL, true},
    {"insert into t values ($1, $2), ($3, $4)", "01", 1, "INSERT INTO t VALUES ($1, $2)", "2 3",
     true},
    {"insert into t values ($2, $5), ($1, $5)", "01", 0, "INSERT INTO t VALUES ($1, $2)", "1 4",
     true},
    {"insert into t values ($1), ($2) returning $3::int", "01", 0,
     "INSERT INTO t VALUES ($1) RETURNING $2::int", "0 2", true},
    {"explain insert into t values (1), (2)", "01", 0, "INSERT INTO t VALUES (1)", NULL, true},
    {"insert into t values ('it''s', E'a\\nb', U&'\\0041', $$d$$, 1e10, -5, b'101', x'1f', true)",
     "0", 0, "INSERT INTO t VALUES ('it''s', 'a\nb', 'A', 'd', 1e10, -5, b'101', x'1f', true)",
     NULL, true},
    {"insert into t values (1)", "00", 0, NULL, NULL, false},
    {"insert into t values (1), (2)", "0", 0, NULL, NULL, false},
    {"insert into t values (1), (2)", "11", 1, NULL, NULL, false},
    {"insert into t select 1", "0", 0, NULL, NULL, false},
    {"insert into t default values", "0", 0, NULL, NULL, false},
    {"select 1", "0", 0, NULL, NULL, false},
    {"insert into t values (1", "0", 0, NULL, NULL, false},
};

static void test_insert(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof insert_cases / sizeof insert_cases[0]; i++) {
        const struct insert_case *c = &insert_cases[i];
        struct shard_query out[2] = {{0}};
        uint16_t part[8];
        bool whole = false;
        struct rewrite_rows rows = {part, (int)strlen(c->parts), 1};
        for (int k = 0; k < rows.nrows; k++) {
            part[k] = (uint16_t)(c->parts[k] - '0');
            rows.nparts = part[k] >= rows.nparts ? part[k] + 1 : rows.nparts;
        }
        bool ok = rewrite_insert(c->sql, &rows, &arena, out, &whole);
        if (ok != (c->expected != NULL))
            fail_msg("%s: %s", c->sql, ok ? out[0].sql : "refused");
        if (!ok)
            continue;
        assert_string_equal(out[c->which].sql, c->expected);
        check_params(&out[c->which], c->params);
        if (whole != c->whole)
            fail_msg("%s: RETURNING has every row: %d", c->sql, whole);
    }
}

/* ---- deparsing keeps the tree ---- */

static const char *const corpus[] = {
    "select a, b as c, t.*, s.t.d from s.t as t(x, y)",
    "select 1, -1, 1.5, 'x', e'\\\\n', null, true, 99999999999, 1e100, '\xc3\xa4' from t",
    "select a + b * c - (d + e) % f ^ 2, -(a + b), not (a and b) or c, a = b and (c or d) from t",
    "select (a - b) - c, a - (b - c), a / (b / c), (a < b) = (c < d), - - a, (a || b) || c from t",
    "select a is null, b is not null, c is true, d is not false, e is unknown, "
    "f is distinct from g, h is not distinct from i from t",
    "select a in (1, 2), b not in ('x'), c between 1 and 2, d not between 3 and 4, "
    "e between symmetric 5 and 6 from t",
    "select a like 'x%', b not like 'y' escape '!', c ilike 'z', d similar to 'w', e ~ 'v', f !~* "
    "'u' "
    "from t",
    "select a = any ($1), b <> all (array[1, 2]), c = any ('{1,2}'::int[]), array[[1, 2], [3, 4]] "
    "from t",
    "select cast(a as numeric(10, 2)), b::varchar(3), c::int[], d::timestamp(3) with time zone, "
    "interval '1 day', e::bit(3), f::\"char\", date '2020-01-01', (g)::s.mytype from t",
    "select case when a then 1 when b then 2 else 3 end, case x when 1 then 'a' end, coalesce(a, "
    "b), "
    "nullif(a, b), greatest(a, b), least(a, b) from t",
    "select count(*), count(distinct a), sum(b) filter (where c > 1), string_agg(d, ',' order by e "
    "desc), "
    "percentile_cont(0.5) within group (order by f) from t",
    "select extract(year from a), substring(b from 1 for 2), position('x' in c), trim(both 'y' "
    "from d), "
    "overlay(e placing 'z' from 1), a at time zone 'UTC' from t",
    "select current_date, current_timestamp, localtime(3), current_user, session_user, now() from "
    "t",
    "select row(1, 2), (a, b) = (c, d), (t).x, (f(a)).y, a[1], b[1:2] from t",
    "select f(a => 1, b => 2), g(variadic array[1]), s.h(), a collate \"C\", \"Odd "
    "Name\".\"x\"\"y\" from "
    "\"Odd Name\"",
    "select * from a join b on a.x = b.x left join c using (y, z) natural join d cross join e "
    "full join (f join g on true) on f.q = a.q",
    "select * from t, lateral (select 1 from u where u.a = t.a limit 1) x, generate_series(1, 2) "
    "as g(i), "
    "only v",
    "select * from rows from (f(1), g(2)) with ordinality as r(a, b, c), h(3) as (x int, y text)",
    "select * from t where exists (select 1) and a in (select b from u) and c = (select max(d) "
    "from v) "
    "and e > all (select f from w) and array(select 1) is not null",
    "select distinct a from t where b group by c, 2, f(d) order by a asc nulls first, b desc nulls "
    "last "
    "limit 5 offset 6",
    "select a from t order by b collate \"de_DE\", c using <, (d), e + 1 limit 7",
    "select a operator(pg_catalog.+) b, a operator(s.@@) c, @ d, |/ e, a -> 'x' ->> 'y', a #> "
    "'{z}', "
    "a @> b, a ? 'c' from t",
    "select a from t tablesample bernoulli (10) repeatable (3)",
    "select xmlelement(name foo, xmlattributes(a as b), c), xmlconcat(d, e), xmlforest(f) from t",
    "select count(*) over (partition by a order by b rows between unbounded preceding and current "
    "row), "
    "sum(x) over w from t window w as (partition by y order by z desc)",
    "select grouping(a), a from t group by rollup (a, b), cube (c), grouping sets ((d), ())",
    "select user, \"user\", \"select\", \"A\", _x, \"1a\" from \"table\"",
    "select 'a', $1, $2::int, $3 + 1 from t where a = $1",
    "select a from t where (b, c) in ((1, 2), (3, 4)) and (d is null) = (e is null)",
    "select (select a from u order by b limit 1), not exists (select 1 from v), (a) from t",
    "select interval '1' year, interval '1-2' year to month, interval(3) '1.234', time '12:00' "
    "from t",
    "select a from t where b = true and c is not true and (not d) and (e or f) and not (g and h)",
};

/* Without locations: they move. */
static char *tree_of(const char *sql)
{
    PgQueryParseResult result = pg_query_parse(sql);
    if (result.error)
        fail_msg("%s: %s", sql, result.error->message);
    char *out = arena_alloc(&arena, strlen(result.parse_tree) + 1);
    size_t n = 0;
    for (const char *p = result.parse_tree; *p;) {
        static const char *const moving[] = {
            "\"location\":", "\"stmt_len\":", "\"list_start\":", "\"list_end\":"};
        size_t skip = 0;
        for (size_t i = 0; i < sizeof moving / sizeof moving[0]; i++)
            if (strncmp(p, moving[i], strlen(moving[i])) == 0)
                skip = strlen(moving[i]);
        if (!skip) {
            out[n++] = *p++;
            continue;
        }
        p += skip;
        p += strspn(p, "-0123456789");
        p += *p == ',';
        while (n && out[n - 1] == ',' && *p == '}')
            n--;
    }
    out[n] = '\0';
    pg_query_free_parse_result(result);
    return out;
}

static void test_corpus(void **state)
{
    (void)state;
    const struct rewrite_select nothing = {0};
    for (size_t i = 0; i < sizeof corpus / sizeof corpus[0]; i++) {
        struct shard_query out = {0};
        if (!rewrite_select(corpus[i], &nothing, &arena, &out))
            fail_msg("refused: %s", corpus[i]);
        const char *before = tree_of(corpus[i]), *after = tree_of(out.sql);
        if (strcmp(before, after) != 0)
            fail_msg("%s\n  became %s\n%s\n%s", corpus[i], out.sql, before, after);
    }
}

/* Memory of the parser does not grow with use. */
static void test_repeated(void **state)
{
    (void)state;
    struct arena own;
    arena_init(&own);
    for (int i = 0; i < 2000; i++) {
        struct shard_query out = {0};
        const struct rewrite_select change = {.fold_offset = true};
        assert_true(rewrite_select("select a from t limit $1 offset $2", &change, &own, &out));
        assert_false(rewrite_select("select a from", &change, &own, &out));
        arena_reset(&own);
    }
    arena_free(&own);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_select),
        cmocka_unit_test(test_insert),
        cmocka_unit_test(test_corpus),
        cmocka_unit_test(test_repeated),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
