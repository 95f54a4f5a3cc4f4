/* test_metrics.c: /metrics read back as Prometheus would, /api/status, /readyz. */
#include "tests/unit/report_support.h"

#include <ctype.h>
#include <jansson.h>

#include "proxy/metrics.h"

#define SAMPLES_MAX 8192

struct exposition {
    char *samples[SAMPLES_MAX]; /* name and labels; all different */
    double values[SAMPLES_MAX];
    int count;
    char families[200][80];
    int nfamilies;
    char type[16]; /* of the last family */
};

static bool is_name_char(char c, bool first)
{
    return isalpha((unsigned char)c) || c == '_' || (!first && isdigit((unsigned char)c));
}

static const char *scan_name(const char *p)
{
    assert_true(is_name_char(*p, true));
    while (is_name_char(*p, false))
        p++;
    return p;
}

/* {name="value",...}: behind the closing brace. Only \\, \" and \n may be escaped. */
static const char *scan_labels(const char *p)
{
    assert_int_equal(*p++, '{');
    for (;;) {
        p = scan_name(p);
        assert_int_equal(*p++, '=');
        assert_int_equal(*p++, '"');
        while (*p != '"') {
            assert_true(*p != '\n' && *p != '\0');
            if (*p == '\\') {
                p++;
                assert_non_null(strchr("\\\"n", *p));
            }
            p++;
        }
        if (*++p == ',')
            p++;
        else
            break;
    }
    assert_int_equal(*p, '}');
    return p + 1;
}

static void read_help(struct exposition *out, const char *line)
{
    const char *end = scan_name(line);
    assert_int_equal(*end, ' ');
    assert_true(end[1] != '\0');
    int length = (int)(end - line);
    for (int i = 0; i < out->nfamilies; i++)
        assert_false(strncmp(out->families[i], line, (size_t)length) == 0 &&
                     !out->families[i][length]);
    assert_true(out->nfamilies < 200 && length < 80);
    snprintf(out->families[out->nfamilies++], 80, "%.*s", length, line);
}

static void read_type(struct exposition *out, const char *line)
{
    const char *family = out->families[out->nfamilies - 1];
    size_t length = strlen(family);
    assert_memory_equal(line, family, length);
    assert_int_equal(line[length], ' ');
    snprintf(out->type, sizeof out->type, "%s", line + length + 1);
    bool counter = strcmp(out->type, "counter") == 0;
    assert_true(counter || strcmp(out->type, "gauge") == 0);
    bool total = length > 6 && strcmp(family + length - 6, "_total") == 0;
    assert_int_equal(counter, total);
}

static void read_sample(struct exposition *out, const char *line)
{
    const char *end = scan_name(line);
    char *rest;
    /* Samples of a family stand together, behind its HELP and TYPE. */
    const char *family = out->families[out->nfamilies - 1];
    assert_int_equal(strlen(family), end - line);
    assert_memory_equal(family, line, strlen(family));
    if (*end == '{')
        end = scan_labels(end);
    assert_int_equal(*end, ' ');
    char *key = mem_strdup(line);
    key[end - line] = '\0';
    for (int i = 0; i < out->count; i++)
        if (strcmp(out->samples[i], key) == 0)
            fail_msg("twice: %s", key);
    assert_true(out->count < SAMPLES_MAX);
    out->samples[out->count] = key;
    out->values[out->count++] = strtod(end + 1, &rest);
    assert_string_equal(rest, "");
}

static struct exposition *read_metrics(const struct report *report)
{
    struct exposition *out = mem_alloc(sizeof *out);
    struct buffer text = {0};
    metrics_write(report, &text);
    assert_int_equal(buffer_head(&text)[buffer_length(&text) - 1], '\n');
    buffer_append(&text, "", 1);
    assert_int_equal(strlen(buffer_head(&text)) + 1, buffer_length(&text));
    struct arena arena;
    arena_init(&arena);
    assert_string_equal(report_text(&arena, buffer_head(&text)), buffer_head(&text));
    arena_free(&arena);
    for (char *line = buffer_head(&text), *end; *line; line = end + 1) {
        end = strchr(line, '\n');
        *end = '\0';
        if (strncmp(line, "# HELP ", 7) == 0)
            read_help(out, line + 7);
        else if (strncmp(line, "# TYPE ", 7) == 0)
            read_type(out, line + 7);
        else
            read_sample(out, line);
    }
    buffer_release(&text);
    return out;
}

static void free_metrics(struct exposition *metrics)
{
    for (int i = 0; i < metrics->count; i++)
        free(metrics->samples[i]);
    free(metrics);
}

static int find_sample(const struct exposition *metrics, const char *sample)
{
    for (int i = 0; i < metrics->count; i++)
        if (strcmp(metrics->samples[i], sample) == 0)
            return i;
    return -1;
}

static void check_sample(const struct exposition *metrics, const char *sample, double value)
{
    int at = find_sample(metrics, sample);
    if (at < 0)
        fail_msg("no %s", sample);
    if (metrics->values[at] != value)
        fail_msg("%s is %.17g", sample, metrics->values[at]);
}

static void test_metrics(void **state)
{
    struct report *report = new_report();
    struct worker_stats counts = {
        .queries = 3, .query_us = 1500000, .scatter = 2, .reads_on_replica = 4};
    (void)state;
    add_pools(report);
    report_add_counts(&report_stats(report, "app")->counts, &counts);
    struct exposition *metrics = read_metrics(report);
    check_sample(metrics, "pgshunt_build_info{version=\"" PGSHUNT_VERSION "\"}", 1);
    check_sample(metrics, "pgshunt_start_time_seconds", 1700000000 - 60);
    check_sample(metrics, "pgshunt_queries_total{database=\"app\"}", 3);
    check_sample(metrics, "pgshunt_query_seconds_total{database=\"app\"}", 1.5);
    check_sample(metrics, "pgshunt_statements_total{database=\"app\",gear=\"scatter\"}", 2);
    check_sample(metrics, "pgshunt_reads_total{database=\"app\",role=\"replica\"}", 4);
    check_sample(metrics, "pgshunt_clients{database=\"app\",user=\"ann\",state=\"idle\"}", 6);
    check_sample(metrics,
                 "pgshunt_server_connections{database=\"app\",user=\"ann\",shard=\"s0\","
                 "node=\"10.0.0.1:5501\",state=\"idle\"}",
                 4);
    check_sample(metrics,
                 "pgshunt_pool_longest_wait_seconds{database=\"app\",user=\"ann\",shard=\"s0\","
                 "node=\"10.0.0.2:5502\"}",
                 2.500001);
#define REPLICA "{database=\"app\",shard=\"s0\",node=\"10.0.0.2:5502\",region=\"eu\""
#define UNSEEN "{database=\"app\",shard=\"s1\",node=\"[fd00::1]:5501\",region=\"\""
    check_sample(metrics, "pgshunt_node_lag_seconds" REPLICA "}", 0.001499);
    check_sample(metrics, "pgshunt_node_lag_bytes" REPLICA "}", 4096);
    check_sample(metrics, "pgshunt_node_role" REPLICA ",role=\"replica\"}", 1);
    check_sample(metrics, "pgshunt_node_role" REPLICA ",role=\"primary\"}", 0);
    check_sample(metrics, "pgshunt_node_up" UNSEEN "}", 0);
    assert_int_equal(find_sample(metrics, "pgshunt_node_lag_seconds" UNSEEN "}"), -1);
    check_sample(metrics, "pgshunt_shard_has_primary{database=\"app\",shard=\"s0\"}", 1);
    check_sample(metrics, "pgshunt_shard_has_primary{database=\"app\",shard=\"s1\"}", 0);
    check_sample(metrics, "pgshunt_shard_buckets{database=\"app\",keyspace=\"users\",shard=\"s0\"}",
                 12288);
    free_metrics(metrics);
    report_free(report);
}

static void test_metrics_of_hostile_names(void **state)
{
    static const char *const names[] = {"\"",   "\\",           "\n", "\\n",     "a\"} 1\nevil 1",
                                        "\xff", "\xed\xa0\x80", "",   "(others)"};
    struct report *report = new_report();
    (void)state;
    for (size_t i = 0; i < COUNT(names); i++) {
        report_account(report, "app", names[i])->idle = 1;
        report_pool(report, "app", names[i], node_at(report, 0, 0, 0))->idle = 1;
    }
    report_sort(report);
    struct exposition *metrics = read_metrics(report);
    check_sample(metrics, "pgshunt_clients{database=\"app\",user=\"\\\"\",state=\"idle\"}", 1);
    check_sample(metrics, "pgshunt_clients{database=\"app\",user=\"\\n\",state=\"idle\"}", 1);
    check_sample(metrics, "pgshunt_clients{database=\"app\",user=\"\\\\n\",state=\"idle\"}", 1);
    check_sample(metrics, "pgshunt_clients{database=\"app\",user=\"\\\\xff\",state=\"idle\"}", 1);
    check_sample(metrics, "pgshunt_clients{database=\"app\",user=\"(others)\",state=\"idle\"}", 1);
    free_metrics(metrics);
    report_free(report);
}

/* Users that anybody can make up do not make metrics without end. */
static void test_metrics_are_bounded(void **state)
{
    struct report *report = new_report();
    int users = METRICS_ACCOUNTS_MAX + 100;
    (void)state;
    for (int i = 0; i < users; i++) {
        char name[16];
        snprintf(name, sizeof name, "u%04d", i);
        report_account(report, "app", name)->idle = 1;
        report_account(report, "plain", name)->idle = 1;
    }
    report_account(report, "app", "(others)")->idle = 1;
    report_sort(report);
    struct exposition *metrics = read_metrics(report);
    check_sample(metrics, "pgshunt_clients{database=\"app\",user=\"u0000\",state=\"idle\"}", 1);
    check_sample(metrics, "pgshunt_clients{database=\"app\",user=\"(others)\",state=\"idle\"}",
                 101);
    check_sample(metrics, "pgshunt_clients{database=\"plain\",user=\"(others)\",state=\"idle\"}",
                 users);
    free_metrics(metrics);
    report_free(report);
}

/* A pool of a node that has left the configuration has no shard to be labelled with. */
static void test_metrics_without_retired_nodes(void **state)
{
    struct report *report = new_report(), *other = new_report();
    (void)state;
    report_pool(report, "app", "ann", node_at(report, 0, 0, 0))->idle = 1;
    report_pool(report, "app", "ann", node_at(other, 0, 0, 0))->idle = 5;
    struct exposition *metrics = read_metrics(report);
    check_sample(metrics,
                 "pgshunt_server_connections{database=\"app\",user=\"ann\",shard=\"s0\","
                 "node=\"10.0.0.1:5501\",state=\"idle\"}",
                 1);
    free_metrics(metrics);
    report_free(report);
    report_free(other);
}

static void test_sample_values(void **state)
{
    static const struct {
        double value;
        const char *text;
    } cases[] = {
        {0, "pgshunt_x 0\n"},
        {-3, "pgshunt_x -3\n"},
        {0.1, "pgshunt_x 0.1\n"},
        {1e300, "pgshunt_x 1e+300\n"},
        {9007199254740991.0, "pgshunt_x 9007199254740991\n"},
        {123456789012345.0, "pgshunt_x 123456789012345\n"},
        {1.0 / 0.0, "pgshunt_x +Inf\n"},
        {-1.0 / 0.0, "pgshunt_x -Inf\n"},
        {0.0 / 0.0, "pgshunt_x NaN\n"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct buffer out = {0};
        metrics_sample(&out, "x", NULL, 0, cases[i].value);
        buffer_append(&out, "", 1);
        assert_string_equal(buffer_head(&out), cases[i].text);
        buffer_release(&out);
    }
    struct buffer out = {0};
    metrics_family(&out, "x", "gauge", "a\\b\nc");
    buffer_append(&out, "", 1);
    assert_string_equal(buffer_head(&out), "# HELP pgshunt_x a\\\\b\\nc\n# TYPE pgshunt_x gauge\n");
    buffer_release(&out);
}

/* ---- /api/status, /readyz ---- */

static void test_json(void **state)
{
    struct report *report = new_report();
    json_error_t error;
    (void)state;
    add_pools(report);
    report_account(report, "app", "\xff")->idle = 1;
    char *text = report_json(report);
    json_t *root = json_loads(text, 0, &error);
    free(text);
    if (!root)
        fail_msg("%s", error.text);
    const char *host, *user;
    json_t *lag, *primary;
    json_int_t idle;
    assert_int_equal(json_array_size(json_object_get(root, "databases")), 2);
    json_t *shards =
        json_object_get(json_array_get(json_object_get(root, "databases"), 0), "shards");
    assert_int_equal(json_unpack(json_array_get(shards, 0), "{s:[{s:s}]}", "nodes", "host", &host),
                     0);
    assert_string_equal(host, "10.0.0.1");
    assert_int_equal(json_unpack(json_array_get(shards, 1), "{s:o, s:[{s:o}]}", "primary", &primary,
                                 "nodes", "lag_ms", &lag),
                     0);
    assert_true(json_is_null(lag));
    assert_true(json_is_null(primary));
    json_t *pool = json_array_get(json_object_get(root, "pools"), 0);
    assert_int_equal(json_unpack(pool, "{s:s, s:I}", "user", &user, "clients_idle", &idle), 0);
    assert_string_equal(user, "ann");
    assert_int_equal(idle, 6);
    json_decref(root);
    report_free(report);
}

static void check_ready(const struct report *report, bool ready, const char *reasons)
{
    struct buffer out = {0};
    assert_int_equal(report_ready(report, &out), ready);
    buffer_append(&out, "", 1);
    assert_string_equal(buffer_head(&out), reasons);
    buffer_release(&out);
}

static void test_ready(void **state)
{
    struct report *report = new_report();
    (void)state;
    check_ready(report, false,
                "database app: shard s1 has no primary\n"
                "database plain: shard s0 has no primary\n");
    set_node(node_at(report, 0, 1, 0), NODE_ROLE_PRIMARY, 0, 0);
    set_node(node_at(report, 1, 0, 0), NODE_ROLE_PRIMARY, 0, 0);
    check_ready(report, true, "");
    report->draining = true;
    check_ready(report, false, "pgshunt is shutting down\n");
    report_free(report);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_metrics),
        cmocka_unit_test(test_metrics_of_hostile_names),
        cmocka_unit_test(test_metrics_are_bounded),
        cmocka_unit_test(test_metrics_without_retired_nodes),
        cmocka_unit_test(test_sample_values),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_ready),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
