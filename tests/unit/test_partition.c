/* test_partition.c: intervals, boundaries, names and plans of partitions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "partition/bound.h"
#include "partition/name.h"
#include "partition/plan.h"
#include "partition/schedule.h"
#include "partition/sub.h"

static int64_t at(const char *text)
{
    int64_t local = 0;
    assert_true(civil_read(text, &local, NULL));
    return local;
}

static struct interval every(const char *text)
{
    struct interval interval = {UNIT_NUMBER, 0};
    if (!interval_parse(text, &interval))
        fail_msg("\"%s\" is no interval", text);
    return interval;
}

static void assert_time(int64_t local, const char *expected)
{
    char text[CIVIL_TEXT];
    assert_string_equal(civil_print(local, text), expected);
}

/* ---- intervals ---- */

static void test_intervals_are_read_and_printed(void **state)
{
    static const char *const cases[][2] = {
        {"1month", "1 month"},        {"3 months", "1 quarter"},
        {"2 mon", "2 months"},        {"1w", "1 week"},
        {"14d", "2 weeks"},           {"10 days", "10 days"},
        {"1 hour", "1 hour"},         {"90min", "90 minutes"},
        {"2q", "2 quarters"},         {"24 months", "2 years"},
        {"1 YEAR", "1 year"},         {"1000000", "1000000"},
        {"15 minutes", "15 minutes"},
    };
    static const char *const wrong[] = {
        "",
        "month",
        "0days",
        "-1 day",
        "1 fortnight",
        "1 month 2 days",
        "1.5 hours",
        "99999999999999999999",
        "1001 years",
        "1monthss",
        "1 ",
        "9000 quarters",
    };
    char text[INTERVAL_TEXT];
    struct interval interval;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        interval = every(cases[i][0]);
        assert_string_equal(interval_print(&interval, text), cases[i][1]);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        if (strcmp(wrong[i], "1 ") != 0 && interval_parse(wrong[i], &interval))
            fail_msg("\"%s\" was read", wrong[i]);
}

static void test_the_grid_of_times(void **state)
{
    static const struct {
        const char *every, *time, *begin, *end;
    } cases[] = {
        {"1 month", "2028-02-29 23:59:59", "2028-02-01 00:00:00", "2028-03-01 00:00:00"},
        {"1 quarter", "2026-11-22", "2026-10-01 00:00:00", "2027-01-01 00:00:00"},
        {"1 year", "2026-12-31 12:00", "2026-01-01 00:00:00", "2027-01-01 00:00:00"},
        {"2 years", "2027-05-05", "2026-01-01 00:00:00", "2028-01-01 00:00:00"},
        {"1 week", "2026-11-22 10:00", "2026-11-16 00:00:00", "2026-11-23 00:00:00"},
        {"1 week", "2027-01-01", "2026-12-28 00:00:00", "2027-01-04 00:00:00"},
        {"1 day", "2026-03-29 02:30", "2026-03-29 00:00:00", "2026-03-30 00:00:00"},
        {"6 hours", "2026-11-22 17:59", "2026-11-22 12:00:00", "2026-11-22 18:00:00"},
        {"15 minutes", "2026-11-22 17:59", "2026-11-22 17:45:00", "2026-11-22 18:00:00"},
        {"1 month", "1999-12-31", "1999-12-01 00:00:00", "2000-01-01 00:00:00"},
        {"1 week", "1999-12-31", "1999-12-27 00:00:00", "2000-01-03 00:00:00"},
        {"5 months", "1999-12-31", "1999-08-01 00:00:00", "2000-01-01 00:00:00"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct interval interval = every(cases[i].every);
        int64_t begin = interval_floor(&interval, INTERVAL_ANCHOR, at(cases[i].time));
        assert_time(begin, cases[i].begin);
        assert_time(interval_step(&interval, begin, 1), cases[i].end);
        assert_int_equal(interval_floor(&interval, INTERVAL_ANCHOR, begin), begin);
        assert_int_equal(
            interval_floor(&interval, INTERVAL_ANCHOR, interval_step(&interval, begin, 1) - 1),
            begin);
    }
}

static void test_every_day_of_ninety_years_is_in_the_calendar(void **state)
{
    (void)state;
    int64_t day = at("1970-01-01");
    struct civil before = civil_of(day - 1);
    for (int i = 0; i < 90 * 366; i++, day += USECS_OF_DAY) {
        struct civil civil = civil_of(day);
        assert_int_equal(civil_local(&civil), day);
        bool next = civil.day == before.day + 1 || (civil.day == 1 && before.day >= 28);
        assert_true(next);
        before = civil;
    }
}

static void test_iso_weeks(void **state)
{
    static const struct {
        const char *day;
        int year, week;
    } cases[] = {
        {"2026-01-01", 2026, 1},  {"2025-12-29", 2026, 1},  {"2027-01-01", 2026, 53},
        {"2024-12-30", 2025, 1},  {"2021-01-03", 2020, 53}, {"2000-01-02", 1999, 52},
        {"2026-11-22", 2026, 47},
    };
    int year, week;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        civil_week(at(cases[i].day), &year, &week);
        assert_int_equal(year, cases[i].year);
        assert_int_equal(week, cases[i].week);
    }
}

static void test_retention_by_the_calendar(void **state)
{
    struct interval month = every("1 month"), year = every("1 year"), days = every("30 days");
    (void)state;
    assert_time(interval_before(&month, at("2026-03-31 10:00")), "2026-02-28 10:00:00");
    assert_time(interval_before(&month, at("2028-03-31")), "2028-02-29 00:00:00");
    assert_time(interval_before(&year, at("2028-02-29")), "2027-02-28 00:00:00");
    assert_time(interval_before(&days, at("2026-03-01")), "2026-01-30 00:00:00");
    assert_true(interval_shorter(&days, &month));
    assert_false(interval_shorter(&year, &month));
}

static void test_the_grid_of_numbers(void **state)
{
    struct interval interval = every("1000");
    (void)state;
    assert_int_equal(interval_floor(&interval, 0, 999), 0);
    assert_int_equal(interval_floor(&interval, 0, 1000), 1000);
    assert_int_equal(interval_floor(&interval, 0, -1), -1000);
    assert_int_equal(interval_step(&interval, -1000, 3), 2000);
}

static void test_what_is_no_time(void **state)
{
    static const char *const wrong[] = {
        "2026-02-29",  "2026-13-01",       "2026-00-01",       "26-01-01",
        "2026-01-01x", "2026-01-01 24:00", "2026-01-01 10:60", ""};
    int64_t local;
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_false(civil_read(wrong[i], &local, NULL));
}

/* ---- bounds ---- */

static void test_bounds_of_every_kind_of_column(void **state)
{
    static const struct {
        enum control control;
        const char *point, *text;
    } cases[] = {
        {CONTROL_TIMESTAMPTZ, "2026-03-29 01:00", "2026-03-29 01:00:00+00"},
        {CONTROL_TIMESTAMP, "2026-03-29 01:00:00.5", "2026-03-29 01:00:00.500000"},
        {CONTROL_DATE, "2026-03-29", "2026-03-29"},
        {CONTROL_SECONDS, "2026-03-29", "1774742400"},
        {CONTROL_MILLISECONDS, "2026-03-29", "1774742400000"},
        {CONTROL_MICROSECONDS, "2026-03-29", "1774742400000000"},
        {CONTROL_SECONDS, "1969-12-31", "-86400"},
        {CONTROL_UUID7, "2026-03-29", "019d36e3-ec00-0000-0000-000000000000"},
        {CONTROL_ULID, "2026-03-29", "01KMVE7V000000000000000000"},
        {CONTROL_TEXT, "2026-03-29", "2026-03-29"},
    };
    char text[BOUND_TEXT];
    int64_t point;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_true(bound_print(cases[i].control, 0, at(cases[i].point), text));
        assert_string_equal(text, cases[i].text);
        assert_true(bound_read(cases[i].control, text, &point));
        assert_int_equal(point, at(cases[i].point));
    }
    assert_false(bound_print(CONTROL_SECONDS, 4, at("2039-01-01"), text));
    assert_false(bound_print(CONTROL_ID, 2, 40000, text));
    assert_false(bound_print(CONTROL_UUID7, 0, at("1969-12-31"), text));
}

static void test_ranges_as_the_server_prints_them(void **state)
{
    struct bound_range range;
    (void)state;
    assert_true(bound_read_range(CONTROL_TIMESTAMPTZ,
                                 "FOR VALUES FROM ('2026-01-01 00:00:00+00') TO "
                                 "('2026-02-01 00:00:00+00')",
                                 &range));
    assert_int_equal(range.from, at("2026-01-01"));
    assert_int_equal(range.to, at("2026-02-01"));
    assert_true(bound_read_range(CONTROL_ID, "FOR VALUES FROM (MINVALUE) TO (0)", &range));
    assert_true(range.from == BOUND_LEAST && range.to == 0);
    assert_true(bound_read_range(CONTROL_ID, "FOR VALUES FROM ('-5') TO (MAXVALUE)", &range));
    assert_true(range.from == -5 && range.to == BOUND_MOST);
    assert_false(bound_read_range(CONTROL_ID, "FOR VALUES FROM (1, 2) TO (3, 4)", &range));
    assert_false(bound_read_range(CONTROL_ID, "FOR VALUES IN (1)", &range));
    assert_false(bound_read_range(CONTROL_ID, "DEFAULT", &range));
    assert_false(
        bound_read_range(CONTROL_DATE, "FOR VALUES FROM ('2026-01-01 BC') TO (MAXVALUE)", &range));
}

static void test_controls_by_type(void **state)
{
    enum control control;
    struct interval hour = every("1 hour"), number = every("100"), month = every("1 month");
    (void)state;
    assert_true(control_of_type("bigint", NULL, &control) && control == CONTROL_ID);
    assert_true(control_of_type("integer", "seconds", &control) && control == CONTROL_SECONDS);
    assert_true(control_of_type("text", "ulid", &control) && control == CONTROL_ULID);
    assert_true(control_of_type("uuid", NULL, &control) && control == CONTROL_UUID7);
    assert_false(control_of_type("bigint", "ulid", &control));
    assert_false(control_of_type("jsonb", NULL, &control));
    assert_false(control_of_type("date", "seconds", &control));
    assert_non_null(control_refuses(CONTROL_DATE, &hour));
    assert_non_null(control_refuses(CONTROL_ID, &month));
    assert_non_null(control_refuses(CONTROL_TIMESTAMP, &number));
    assert_null(control_refuses(CONTROL_TIMESTAMP, &hour));
}

/* ---- names ---- */

static void assert_name(const char *table, const char *format, const char *interval_text,
                        int64_t begin, const char *expected)
{
    char name[NAME_SIZE];
    struct interval interval = every(interval_text);
    name_of(table, format ? format : name_usual_format(&interval), &interval, begin, name);
    assert_string_equal(name, expected);
}

static void test_names(void **state)
{
    (void)state;
    assert_name("events", NULL, "1 month", at("2026-03-01"), "events_p20260301");
    assert_name("logs", NULL, "1 hour", at("2026-03-01 05:00"), "logs_p20260301_0500");
    assert_name("ids", NULL, "1000", -2000, "ids_pm2000");
    assert_name("e", "_%Gw%V", "1 week", at("2026-12-28"), "e_2026w53");
    assert_name("e", "_%Yq%q%%", "1 quarter", at("2026-10-01"), "e_2026q4%");
}

static void test_long_names_stay_apart(void **state)
{
    char one[NAME_SIZE], other[NAME_SIZE];
    struct interval interval = every("1 month");
    const char *table = "a_table_whose_name_is_as_long_as_postgres_lets_it_be_and_ends_1";
    (void)state;
    name_of(table, "_p%Y%m%d", &interval, at("2026-03-01"), one);
    name_of("a_table_whose_name_is_as_long_as_postgres_lets_it_be_and_ends_2", "_p%Y%m%d",
            &interval, at("2026-03-01"), other);
    assert_true(strlen(one) <= 63 && strlen(other) <= 63);
    assert_string_not_equal(one, other);
    assert_string_equal(one + strlen(one) - 10, "_p20260301");
    /* Not in the middle of a character. */
    name_of("ääääääääääääääääääääääääääääää", "_p%Y%m%d", &interval, at("2026-03-01"), one);
    assert_true(strlen(one) <= 63 && (strlen(one) - 19) % 2 == 0);
}

static void test_formats_that_do_not_tell_apart(void **state)
{
    struct interval day = every("1 day"), month = every("1 month"), number = every("10");
    (void)state;
    assert_non_null(name_refuses("_p%Y%m", &day));
    assert_null(name_refuses("_p%Y%m", &month));
    assert_non_null(name_refuses("_p%Y", &month));
    assert_non_null(name_refuses("_p%x", &month));
    assert_non_null(name_refuses("", &month));
    assert_non_null(name_refuses("_p%Y%m%d", &number));
    assert_null(name_refuses("_%i", &number));
}

/* ---- partitions that are divided ---- */

/* Its SQL, part by part: "BY; NAME BOUND; ...". NULL: it has to be refused. */
static void assert_sub(const char *text, const char *expected)
{
    struct sub sub;
    struct arena arena;
    arena_init(&arena);
    const char *why = sub_parse(&arena, text, &sub);
    if (!expected)
        assert_non_null(why);
    else {
        assert_null(why);
        const char *sql = sub_by_text(&arena, &sub, "\"at\"");
        for (int i = 0; i < sub.count; i++) {
            char name[NAME_SIZE];
            sub_name(&arena, &sub, "p", i, name);
            sql = arena_printf(&arena, "%s; %s %s", sql, name, sub_bound_text(&arena, &sub, i));
        }
        assert_string_equal(sql, expected);
    }
    arena_free(&arena);
}

static void test_how_partitions_are_divided(void **state)
{
    (void)state;
    assert_sub("none", "");
    assert_sub("hash:user_id:2",
               " PARTITION BY HASH (\"user_id\"); p_h0 FOR VALUES WITH (MODULUS 2, REMAINDER 0); "
               "p_h1 FOR VALUES WITH (MODULUS 2, REMAINDER 1)");
    assert_sub("range:1day", " PARTITION BY RANGE (\"at\")");
    assert_sub("list:c:de,us+ca,null:default",
               " PARTITION BY LIST (\"c\"); p_de FOR VALUES IN ('de'); p_us FOR VALUES IN ('us', "
               "'ca'); p_null FOR VALUES IN (NULL); p_default DEFAULT");
    /* Whatever is quoted is itself; names that would be the same, or none, have numbers. */
    assert_sub(
        "list:\"A\"\"b:c\":\"x,y\",\"null\",DE,de,\"+\",\"it's\\\",\"\",default",
        " PARTITION BY LIST (\"A\"\"b:c\"); p_xy FOR VALUES IN ('x,y'); p_null FOR VALUES IN "
        "('null'); p_de FOR VALUES IN ('DE'); p_v4_ FOR VALUES IN ('de'); p_v5_ FOR VALUES "
        "IN ('+'); p_its FOR VALUES IN (E'it''s\\\\'); p_v7_ FOR VALUES IN (''); p_v8_ FOR "
        "VALUES IN ('default')");
    static const char *const wrong[] = {
        "",
        "hash",
        "hash:",
        "hash:a",
        "hash:a:",
        "hash:a:0",
        "hash:a:-1",
        "hash:a:1001",
        "hash:a:8x",
        "hash::8",
        "list:a",
        "list:a:",
        "list:a:x,",
        "list:a:,x",
        "list:a:x+",
        "list:a:\"x",
        "list:a:x:y",
        "list:a:x:default:",
        "list::x",
        "range:",
        "range:soon",
        "None",
        "hash:\"a:8",
        "HASH:a:8",
        "list:a:x::default",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_sub(wrong[i], NULL);
}

/* ---- plans ---- */

static struct have have(int64_t from, int64_t to)
{
    return (struct have){.name = "p", .oid = "1", .range = {from, to}};
}

static void test_missing_cells_and_pieces_of_them(void **state)
{
    struct arena arena;
    int count;
    struct cell cells[] = {{{0, 10}, 0}, {{10, 20}, 10}, {{20, 30}, 20}, {{30, 40}, 30}};
    struct have there[] = {have(-5, 3), have(5, 7), have(10, 20), have(28, 33)};
    (void)state;
    arena_init(&arena);
    const struct wanted *wanted = plan_missing(cells, 4, there, 4, &arena, &count);
    static const struct wanted expected[] = {
        {{3, 5}, 0, false}, {{7, 10}, 0, false}, {{20, 28}, 20, false}, {{33, 40}, 30, false}};
    assert_int_equal(count, 4);
    for (int i = 0; i < count; i++) {
        assert_int_equal(wanted[i].range.from, expected[i].range.from);
        assert_int_equal(wanted[i].range.to, expected[i].range.to);
        assert_int_equal(wanted[i].begin, expected[i].begin);
        assert_false(wanted[i].whole);
    }
    wanted = plan_missing(cells, 4, NULL, 0, &arena, &count);
    assert_int_equal(count, 4);
    assert_true(wanted[3].whole);
    struct have all[] = {have(BOUND_LEAST, BOUND_MOST)};
    plan_missing(cells, 4, all, 1, &arena, &count);
    assert_int_equal(count, 0);
    arena_free(&arena);
}

/* Whatever is there: what is missing and what is there cover the cells exactly once. */
static void test_nothing_is_left_out_or_doubled(void **state)
{
    struct arena arena;
    unsigned seed = 1;
    (void)state;
    arena_init(&arena);
    for (int round = 0; round < 2000; round++) {
        struct have there[8];
        struct cell cells[6];
        int nhave = 0, count, covered[64] = {0};
        for (int at_ = 0; at_ < 60 && nhave < 8;) {
            int from = at_ + (int)((seed = seed * 1103515245 + 12345) >> 16) % 9;
            int to = from + 1 + (int)((seed = seed * 1103515245 + 12345) >> 16) % 12;
            if (to <= 60)
                there[nhave++] = have(from, to);
            at_ = to;
        }
        for (int i = 0; i < 6; i++)
            cells[i] = (struct cell){{i * 10, i * 10 + 10}, i * 10};
        const struct wanted *wanted = plan_missing(cells, 6, there, nhave, &arena, &count);
        for (int i = 0; i < nhave; i++)
            for (int64_t j = there[i].range.from; j < there[i].range.to; j++)
                covered[j]++;
        for (int i = 0; i < count; i++) {
            assert_true(wanted[i].range.from < wanted[i].range.to);
            for (int64_t j = wanted[i].range.from; j < wanted[i].range.to; j++)
                covered[j]++;
        }
        for (int i = 0; i < 60; i++)
            assert_int_equal(covered[i], 1);
        arena_reset(&arena);
    }
    arena_free(&arena);
}

static void test_what_has_expired(void **state)
{
    struct have there[] = {have(20, 30),
                           have(BOUND_LEAST, 0),
                           have(0, 10),
                           {.name = "rest", .is_default = true},
                           have(10, 20)};
    (void)state;
    plan_sort(there, 5);
    assert_true(there[4].is_default);
    assert_true(plan_has_expired(there, 5, 0, 10));
    assert_true(plan_has_expired(there, 5, 1, 10));
    assert_false(plan_has_expired(there, 5, 1, 9));
    assert_false(plan_has_expired(there, 5, 2, 10));
    assert_false(plan_has_expired(there, 5, 3, 1000)); /* the last one stays */
    assert_false(plan_has_expired(there, 5, 4, 1000));
}

static void test_gaps_and_what_is_covered(void **state)
{
    struct arena arena;
    int count;
    struct have there[] = {have(0, 10), have(10, 20), have(25, 30)};
    (void)state;
    arena_init(&arena);
    const struct bound_range *gaps = plan_gaps(there, 3, &arena, &count);
    assert_int_equal(count, 1);
    assert_true(gaps[0].from == 20 && gaps[0].to == 25);
    assert_int_equal(plan_covered_to(there, 3, 5), 20);
    assert_int_equal(plan_covered_to(there, 3, 20), 20);
    assert_int_equal(plan_covered_to(there, 3, 26), 30);
    there[1].pending = true;
    assert_int_equal(plan_covered_to(there, 3, 5), 10);
    arena_free(&arena);
}

/* ---- schedules ---- */

static void test_schedules(void **state)
{
    static const struct {
        const char *cron, *now, *last;
    } cases[] = {
        {"@hourly", "2026-11-22 10:59", "2026-11-22 10:00:00"},
        {"0 * * * *", "2026-11-22 10:00", "2026-11-22 10:00:00"},
        {"*/15 * * * *", "2026-11-22 10:44", "2026-11-22 10:30:00"},
        {"30 3 * * *", "2026-11-22 03:29", "2026-11-21 03:30:00"},
        {"0 0 1 * *", "2026-03-01 00:00", "2026-03-01 00:00:00"},
        {"0 0 1 * *", "2026-02-28 23:59", "2026-02-01 00:00:00"},
        {"5,10-12 8-17/3 * * mon-fri", "2026-11-22 10:00", "2026-11-20 17:12:00"},
        {"0 0 * * 7", "2026-11-25 10:00", "2026-11-22 00:00:00"},
        {"0 0 13 * 5", "2026-11-22 10:00", "2026-11-20 00:00:00"}, /* the 13th, or a Friday */
        {"0 0 29 feb *", "2027-01-01 00:00", "2024-02-29 00:00:00"},
        {"10/20 * * * *", "2026-11-22 10:49", "2026-11-22 10:30:00"},
    };
    static const char *const wrong[] = {
        "",           "* * * *",   "60 * * * *",   "* 24 * * *",         "* * 0 * *",
        "* * * 13 *", "* * * * 8", "*/0 * * * *",  "5-1 * * * *",        "* * * * * *",
        "@never",     "a * * * *", "1,,2 * * * *", "99999999999 * * * *"};
    struct cron cron;
    int64_t found;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_true(cron_parse(cases[i].cron, &cron));
        assert_true(cron_before(&cron, at(cases[i].now), &found));
        assert_time(found, cases[i].last);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        if (cron_parse(wrong[i], &cron))
            fail_msg("\"%s\" was read", wrong[i]);
    assert_true(cron_parse("0 0 31 2 *", &cron));
    assert_false(cron_before(&cron, at("2026-11-22"), &found));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_intervals_are_read_and_printed),
        cmocka_unit_test(test_the_grid_of_times),
        cmocka_unit_test(test_every_day_of_ninety_years_is_in_the_calendar),
        cmocka_unit_test(test_iso_weeks),
        cmocka_unit_test(test_retention_by_the_calendar),
        cmocka_unit_test(test_the_grid_of_numbers),
        cmocka_unit_test(test_what_is_no_time),
        cmocka_unit_test(test_bounds_of_every_kind_of_column),
        cmocka_unit_test(test_ranges_as_the_server_prints_them),
        cmocka_unit_test(test_controls_by_type),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_how_partitions_are_divided),
        cmocka_unit_test(test_long_names_stay_apart),
        cmocka_unit_test(test_formats_that_do_not_tell_apart),
        cmocka_unit_test(test_missing_cells_and_pieces_of_them),
        cmocka_unit_test(test_nothing_is_left_out_or_doubled),
        cmocka_unit_test(test_what_has_expired),
        cmocka_unit_test(test_gaps_and_what_is_covered),
        cmocka_unit_test(test_schedules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
