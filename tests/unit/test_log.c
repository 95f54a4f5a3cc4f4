/* test_log.c: log lines, byte for byte, as they leave through standard error. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "pgshunt/log.h"

static int saved_stderr = -1;
static int read_end = -1;

static void capture_start(void)
{
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    fcntl(ends[1], F_SETPIPE_SZ, 1 << 20);
    saved_stderr = dup(2);
    dup2(ends[1], 2);
    close(ends[1]);
    read_end = ends[0];
}

/* What was written since capture_start; the caller frees it. */
static char *capture_end(void)
{
    size_t used = 0, size = 2 << 20;
    char *text = malloc(size);
    ssize_t got;
    dup2(saved_stderr, 2);
    close(saved_stderr);
    while ((got = read(read_end, text + used, size - 1 - used)) > 0)
        used += (size_t)got;
    close(read_end);
    text[used] = 0;
    return text;
}

/* Checks "time=YYYY-MM-DDTHH:MM:SS.mmmZ" and returns what follows it. */
static const char *skip_time(const char *line, const char *before, const char *after)
{
    static const char pattern[] = "dddd-dd-ddTdd:dd:dd.dddZ";
    assert_memory_equal(line, before, strlen(before));
    line += strlen(before);
    for (size_t i = 0; pattern[i]; i++, line++) {
        if (pattern[i] == 'd')
            assert_in_range(*line, '0', '9');
        else
            assert_int_equal(*line, pattern[i]);
    }
    assert_memory_equal(line, after, strlen(after));
    return line + strlen(after);
}

struct value_case {
    const char *value;
    const char *logfmt;
    const char *json;
};

static const struct value_case values[] = {
    {"plain", "plain", "\"plain\""},
    {"s0/10.0.0.1:5432", "s0/10.0.0.1:5432", "\"s0/10.0.0.1:5432\""},
    {"", "\"\"", "\"\""},
    {"two words", "\"two words\"", "\"two words\""},
    {"a=b", "\"a=b\"", "\"a=b\""},
    {"say \"hi\"", "\"say \\\"hi\\\"\"", "\"say \\\"hi\\\"\""},
    {"back\\slash", "\"back\\\\slash\"", "\"back\\\\slash\""},
    {"line\nbreak\r\ttab", "\"line\\nbreak\\r\\ttab\"", "\"line\\nbreak\\r\\ttab\""},
    {"\x01\x1b[2J\x7f", "\"\\u0001\\u001b[2J\\u007f\"", "\"\\u0001\\u001b[2J\\u007f\""},
    {"caf\xc3\xa9", "caf\xc3\xa9", "\"caf\xc3\xa9\""},
    {"\xf0\x9f\x90\x98", "\xf0\x9f\x90\x98", "\"\xf0\x9f\x90\x98\""},
    /* a C1 control, a line separator */
    {"\xc2\x85", "\"\\u0085\"", "\"\\u0085\""},
    {"\xe2\x80\xa8", "\"\\u2028\"", "\"\\u2028\""},
    /* not UTF-8: a stray byte, a cut sequence, an overlong form, a surrogate, above U+10FFFF */
    {"\xff", "\"\\xff\"", "\"\\\\xff\""},
    {"a\xc3", "\"a\\xc3\"", "\"a\\\\xc3\""},
    {"\xe2\x82", "\"\\xe2\\x82\"", "\"\\\\xe2\\\\x82\""},
    {"\xc0\xaf", "\"\\xc0\\xaf\"", "\"\\\\xc0\\\\xaf\""},
    {"\xe0\x80\x80", "\"\\xe0\\x80\\x80\"", "\"\\\\xe0\\\\x80\\\\x80\""},
    {"\xed\xa0\x80", "\"\\xed\\xa0\\x80\"", "\"\\\\xed\\\\xa0\\\\x80\""},
    {"\xf4\x90\x80\x80", "\"\\xf4\\x90\\x80\\x80\"", "\"\\\\xf4\\\\x90\\\\x80\\\\x80\""},
};
#define NVALUES (sizeof values / sizeof values[0])

static void test_values_logfmt(void **state)
{
    (void)state;
    log_configure(LOG_DEBUG, LOG_FORMAT_LOGFMT);
    log_thread_name("monitor");
    for (size_t i = 0; i < NVALUES; i++) {
        char expected[300];
        capture_start();
        log_event(LOG_INFO, "hello", LOG_S("v", values[i].value), LOG_I("n", -7));
        char *text = capture_end();
        snprintf(expected, sizeof expected, "level=info thread=monitor msg=hello v=%s n=-7\n",
                 values[i].logfmt);
        assert_string_equal(skip_time(text, "time=", " "), expected);
        free(text);
    }
}

static void test_values_json(void **state)
{
    (void)state;
    log_configure(LOG_DEBUG, LOG_FORMAT_JSON);
    log_thread_name("worker 1");
    for (size_t i = 0; i < NVALUES; i++) {
        char expected[300];
        capture_start();
        log_event(LOG_WARNING, "hello you", LOG_S("v", values[i].value), LOG_I("n", INT64_MIN));
        char *text = capture_end();
        snprintf(expected, sizeof expected,
                 "\"level\":\"warning\",\"thread\":\"worker 1\",\"msg\":\"hello you\",\"v\":%s,"
                 "\"n\":-9223372036854775808}\n",
                 values[i].json);
        assert_string_equal(skip_time(text, "{\"time\":\"", "\","), expected);
        json_error_t error;
        json_t *parsed = json_loads(text, JSON_REJECT_DUPLICATES, &error);
        assert_non_null(parsed);
        json_decref(parsed);
        free(text);
    }
}

static void test_levels(void **state)
{
    (void)state;
    static const char *const names[] = {"debug", "info", "warning", "error"};
    for (int lowest = LOG_DEBUG; lowest <= LOG_ERROR; lowest++) {
        log_configure((enum log_level)lowest, LOG_FORMAT_LOGFMT);
        for (int level = LOG_DEBUG; level <= LOG_ERROR; level++) {
            char expected[60];
            assert_int_equal(log_enabled((enum log_level)level), level >= lowest);
            capture_start();
            log_event((enum log_level)level, "x");
            char *text = capture_end();
            snprintf(expected, sizeof expected, "level=%s ", names[level]);
            if (level >= lowest)
                assert_non_null(strstr(text, expected));
            else
                assert_string_equal(text, "");
            free(text);
        }
    }
}

static void test_no_fields_and_null_message(void **state)
{
    (void)state;
    log_configure(LOG_DEBUG, LOG_FORMAT_LOGFMT);
    log_thread_name("a thread with a name much longer than there is room for");
    capture_start();
    log_write(LOG_ERROR, NULL, NULL, 0);
    char *text = capture_end();
    assert_string_equal(skip_time(text, "time=", " "),
                        "level=error thread=\"a thread with a name much longe\" msg=\"\"\n");
    free(text);
    log_thread_name("main");
}

/* However long and hostile a value: one line, valid, at most PIPE_BUF, with as much of it as fits. */
static void check_long(enum log_format format, char filler, size_t length)
{
    char *big = malloc(length + 1);
    memset(big, filler, length);
    big[length] = 0;
    log_configure(LOG_DEBUG, format);
    capture_start();
    log_event(LOG_INFO, "long", LOG_S("first", "1"), LOG_S("big", big), LOG_I("later", 5));
    char *text = capture_end();
    size_t written = strlen(text);
    assert_true(written <= 4096);
    assert_ptr_equal(strchr(text, '\n'), text + written - 1);
    assert_non_null(strstr(text, format == LOG_FORMAT_JSON ? "\"big\":\"" : " big="));
    assert_null(strstr(text, "later"));
    assert_non_null(
        strstr(text, format == LOG_FORMAT_JSON ? ",\"truncated\":true}" : " truncated=true"));
    if (format == LOG_FORMAT_JSON) {
        json_error_t error;
        json_t *parsed = json_loads(text, JSON_REJECT_DUPLICATES, &error);
        assert_non_null(parsed);
        assert_true(json_string_length(json_object_get(parsed, "big")) > 300);
        json_decref(parsed);
    }
    free(text);
    free(big);
}

static void test_long_values(void **state)
{
    (void)state;
    static const char fillers[] = {'x', '"', '\1', '\xff', ' '};
    for (size_t i = 0; i < sizeof fillers; i++) {
        check_long(LOG_FORMAT_LOGFMT, fillers[i], 5000);
        check_long(LOG_FORMAT_JSON, fillers[i], 5000);
        check_long(LOG_FORMAT_JSON, fillers[i], 100000);
    }
}

/* Every length around the limit, so that no cut goes wrong by one. */
static void test_lengths_at_the_limit(void **state)
{
    (void)state;
    char big[4200];
    log_configure(LOG_DEBUG, LOG_FORMAT_JSON);
    for (size_t length = 3800; length < 4150; length++) {
        memset(big, 'y', length);
        big[length] = 0;
        capture_start();
        log_event(LOG_INFO, "limit", LOG_S("big", big));
        char *text = capture_end();
        json_error_t error;
        json_t *parsed = json_loads(text, 0, &error);
        assert_non_null(parsed);
        size_t kept = json_string_length(json_object_get(parsed, "big"));
        assert_true(kept == length || json_is_true(json_object_get(parsed, "truncated")));
        assert_true(strlen(text) <= 4096);
        json_decref(parsed);
        free(text);
    }
}

#define THREADS 4
#define LINES_EACH 500

static void *write_lines(void *name)
{
    log_thread_name(name);
    for (int i = 0; i < LINES_EACH; i++)
        log_event(LOG_INFO, "a line of this thread", LOG_S("who", name), LOG_I("i", i));
    return NULL;
}

/* Lines of threads do not mix, and each has its own thread's name. */
static void test_threads(void **state)
{
    (void)state;
    static char names[THREADS][8] = {"t0", "t1", "t2", "t3"};
    pthread_t threads[THREADS];
    int next[THREADS] = {0};
    log_configure(LOG_INFO, LOG_FORMAT_LOGFMT);
    capture_start();
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_lines, names[i]), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    char *text = capture_end();
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        const char *rest = skip_time(line, "time=", " level=info thread=t");
        int thread = rest[0] - '0', number;
        char expected[80];
        assert_in_range(thread, 0, THREADS - 1);
        number = next[thread]++;
        snprintf(expected, sizeof expected, "%d msg=\"a line of this thread\" who=t%d i=%d", thread,
                 thread, number);
        assert_string_equal(rest, expected);
    }
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(next[i], LINES_EACH);
    free(text);
}

/* A caller logs before it looks at errno. */
static void test_errno_kept(void **state)
{
    (void)state;
    log_configure(LOG_DEBUG, LOG_FORMAT_LOGFMT);
    int saved = dup(2);
    close(2); /* the write fails with EBADF */
    errno = EPIPE;
    log_event(LOG_ERROR, "nobody reads this");
    int after = errno;
    dup2(saved, 2);
    close(saved);
    assert_int_equal(after, EPIPE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_logfmt), cmocka_unit_test(test_values_json),
        cmocka_unit_test(test_levels),        cmocka_unit_test(test_no_fields_and_null_message),
        cmocka_unit_test(test_long_values),   cmocka_unit_test(test_lengths_at_the_limit),
        cmocka_unit_test(test_threads),       cmocka_unit_test(test_errno_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
