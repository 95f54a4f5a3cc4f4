/* test_pgoutput.c: messages of logical replication: each kind, each form of a value, and bytes that are no message. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/wire.h"
#include "resharder/pgoutput.h"

static struct pgoutput_parser parser;
static struct pgoutput_message message;

static const char *read_bytes(const void *bytes, size_t length, bool streamed)
{
    /* A copy of exactly this size: a sanitizer sees a byte read behind it. */
    static char *copy;
    free(copy);
    copy = malloc(length + !length);
    if (length)
        memcpy(copy, bytes, length);
    return pgoutput_read(&parser, copy, length, streamed, &message);
}

static const char *read_buffer(struct buffer *bytes, bool streamed)
{
    const char *wrong = read_bytes(buffer_head(bytes), buffer_length(bytes), streamed);
    buffer_release(bytes);
    return wrong;
}

static void put_tuple(struct buffer *out, char kind)
{
    wire_put8(out, kind);
    wire_put16(out, 4);
    wire_put8(out, 't');
    wire_put32(out, 2);
    wire_put_bytes(out, "42", 2);
    wire_put8(out, 'n');
    wire_put8(out, 'u');
    wire_put8(out, 'b');
    wire_put32(out, 0);
}

static void check_tuple(const struct pgoutput_tuple *tuple)
{
    assert_int_equal(tuple->count, 4);
    assert_int_equal(tuple->values[0].kind, PGOUTPUT_TEXT);
    assert_int_equal(tuple->values[0].length, 2);
    assert_memory_equal(tuple->values[0].bytes, "42", 2);
    assert_int_equal(tuple->values[1].kind, PGOUTPUT_NULL);
    assert_null(tuple->values[1].bytes);
    assert_int_equal(tuple->values[2].kind, PGOUTPUT_UNCHANGED);
    assert_null(tuple->values[2].bytes);
    assert_int_equal(tuple->values[3].kind, PGOUTPUT_BINARY);
    assert_non_null(tuple->values[3].bytes); /* empty is not NULL */
}

/* Recorded from PostgreSQL 15: INSERT INTO users VALUES (7, 'x') in binary form, and its frame. */
static void a_recorded_transaction(void **state)
{
    (void)state;
    static const char begin[] =
        "B\0\0\0\0\x01\x9a\x2b\x38\0\x02\xc1\x2f\x6d\x10\x20\x30\0\0\x02\xe4";
    static const char relation[] =
        "R\0\0\x40\x04public\0users\0d\0\x02\x01id\0\0\0\0\x14\xff\xff\xff\xff"
        "\0name\0\0\0\0\x19\xff\xff\xff\xff";
    static const char insert[] = "I\0\0\x40\x04N\0\x02"
                                 "b\0\0\0\x08\0\0\0\0\0\0\0\x07"
                                 "b\0\0\0\x01x";
    static const char commit[] =
        "C\0\0\0\0\0\x01\x9a\x2b\x38\0\0\0\0\x01\x9a\x2b\x68\0\x02\xc1\x2f\x6d\x10\x20\x30";
    assert_null(read_bytes(begin, sizeof begin - 1, false));
    assert_int_equal(message.lsn, 0x19a2b38);
    assert_int_equal(message.xid, 740);
    assert_null(read_bytes(relation, sizeof relation - 1, false));
    assert_int_equal(message.oid, 16388);
    assert_string_equal(message.schema, "public");
    assert_string_equal(message.name, "users");
    assert_int_equal(message.identity, 'd');
    assert_int_equal(message.ncolumns, 2);
    assert_true(message.columns[0].identity && !message.columns[1].identity);
    assert_string_equal(message.columns[1].name, "name");
    assert_int_equal(message.columns[1].type, 25);
    assert_int_equal(message.columns[1].modifier, -1);
    assert_null(read_bytes(insert, sizeof insert - 1, false));
    assert_int_equal(message.new.count, 2);
    assert_int_equal(message.old.count, 0);
    assert_memory_equal(message.new.values[0].bytes, "\0\0\0\0\0\0\0\x07", 8);
    assert_null(read_bytes(commit, sizeof commit - 1, false));
    assert_int_equal(message.lsn, 0x19a2b38);
    assert_int_equal(message.end, 0x19a2b68);
}

static void rows(void **state)
{
    (void)state;
    for (int streamed = 0; streamed < 2; streamed++)
        for (const char *old = "KO-"; *old; old++) {
            struct buffer out = {0};
            wire_put8(&out, 'U');
            if (streamed)
                wire_put32(&out, 4711);
            wire_put32(&out, 16388);
            if (*old != '-')
                put_tuple(&out, *old);
            put_tuple(&out, 'N');
            assert_null(read_buffer(&out, streamed));
            assert_int_equal(message.oid, 16388);
            assert_int_equal(message.xid, streamed ? 4711 : 0);
            assert_int_equal(message.old_kind, *old == '-' ? 0 : *old);
            check_tuple(&message.new);
            if (*old != '-')
                check_tuple(&message.old);
        }
    struct buffer out = {0};
    wire_put8(&out, 'D');
    wire_put32(&out, 5);
    put_tuple(&out, 'K');
    assert_null(read_buffer(&out, false));
    check_tuple(&message.old);
    assert_int_equal(message.new.count, 0);
}

static void other_changes(void **state)
{
    (void)state;
    struct buffer out = {0};
    wire_put8(&out, 'T');
    wire_put32(&out, 2);
    wire_put8(&out, PGOUTPUT_CASCADE);
    wire_put32(&out, 7);
    wire_put32(&out, 8);
    assert_null(read_buffer(&out, false));
    assert_int_equal(message.nrelations, 2);
    assert_int_equal(message.relations[1], 8);
    assert_int_equal(message.options, PGOUTPUT_CASCADE);
    wire_put8(&out, 'M');
    wire_put32(&out, 99);
    wire_put8(&out, 1);
    wire_put64(&out, 0x100000002);
    wire_put_cstring(&out, "pgshunt");
    wire_put32(&out, 3);
    wire_put_bytes(&out, "abc", 3);
    assert_null(read_buffer(&out, true));
    assert_true(message.transactional);
    assert_string_equal(message.name, "pgshunt");
    assert_int_equal(message.content_length, 3);
    assert_memory_equal(message.content, "abc", 3);
    wire_put8(&out, 'Y');
    wire_put32(&out, 16400);
    wire_put_cstring(&out, "");
    wire_put_cstring(&out, "mood");
    assert_null(read_buffer(&out, false));
    assert_int_equal(message.oid, 16400);
    assert_string_equal(message.name, "mood");
}

static void streamed_transactions(void **state)
{
    (void)state;
    struct buffer out = {0};
    wire_put8(&out, 'S');
    wire_put32(&out, 700);
    wire_put8(&out, 1);
    assert_null(read_buffer(&out, false));
    assert_true(message.first && message.xid == 700);
    assert_null(read_bytes("E", 1, true));
    wire_put8(&out, 'c');
    wire_put32(&out, 700);
    wire_put8(&out, 0);
    wire_put64(&out, 1);
    wire_put64(&out, 2);
    wire_put64(&out, 3);
    assert_null(read_buffer(&out, false));
    assert_true(message.xid == 700 && message.lsn == 1 && message.end == 2 && message.time == 3);
    wire_put8(&out, 'A');
    wire_put32(&out, 700);
    wire_put32(&out, 701);
    assert_null(read_buffer(&out, false));
    assert_true(message.xid == 700 && message.subxid == 701);
    wire_put8(&out, 'O');
    wire_put64(&out, 12);
    wire_put_cstring(&out, "pgshunt_grow_r_s1");
    assert_null(read_buffer(&out, true)); /* has no xid, wherever it stands */
    assert_string_equal(message.name, "pgshunt_grow_r_s1");
}

/* Every message cut short, and with a byte too many, is none. */
static void cut_short(void **state)
{
    (void)state;
    struct buffer out = {0};
    wire_put8(&out, 'U');
    wire_put32(&out, 16388);
    put_tuple(&out, 'O');
    put_tuple(&out, 'N');
    size_t whole = buffer_length(&out);
    wire_put8(&out, 0);
    for (size_t length = 0; length <= whole + 1; length++)
        assert_int_equal(read_bytes(buffer_head(&out), length, false) == NULL, length == whole);
    buffer_release(&out);
}

static void hostile_counts(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t length;
    } cases[] = {
        {"I\0\0\0\x01N\xff\xff", 8},                        /* columns: less than none */
        {"I\0\0\0\x01N\x7f\xffn", 9},                       /* more than there are bytes */
        {"I\0\0\0\x01N\0\x01t\x7f\xff\xff\xff", 13},        /* a value longer than the message */
        {"I\0\0\0\x01N\0\x01t\xff\xff\xff\xff", 13},        /* a negative length */
        {"I\0\0\0\x01N\0\x01x", 9},                         /* no kind of a value */
        {"I\0\0\0\x01K\0\x01n", 9},                         /* an insert's old row */
        {"D\0\0\0\x01N\0\x01n", 9},                         /* a delete's new row */
        {"T\xff\xff\xff\xff\0", 6},                         /* tables: less than none */
        {"T\x7f\xff\xff\xff\0\0\0\0\x01", 10},              /* more than there are bytes */
        {"R\0\0\0\x01pg\0t\0d\x7f\xff", 13},                /* columns */
        {"R\0\0\0\x01pgt", 8},                              /* a name without an end */
        {"M\x01\0\0\0\0\0\0\0\x01p\0\xff\xff\xff\xff", 16}, /* content */
        {"?", 1},
        {"", 0},
        {"\0", 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_non_null(read_bytes(cases[i].bytes, cases[i].length, false));
}

static void frames(void **state)
{
    (void)state;
    struct replication_frame frame;
    struct buffer out = {0};
    wire_put8(&out, 'w');
    wire_put64(&out, 10);
    wire_put64(&out, 20);
    wire_put64(&out, 30);
    wire_put_bytes(&out, "BEGIN", 5);
    assert_true(replication_read_frame(buffer_head(&out), buffer_length(&out), &frame));
    assert_true(frame.kind == 'w' && frame.start == 10 && frame.length == 5);
    assert_memory_equal(frame.data, "BEGIN", 5);
    assert_false(replication_read_frame(buffer_head(&out), 24, &frame));
    buffer_clear(&out);
    wire_put8(&out, 'k');
    wire_put64(&out, 77);
    wire_put64(&out, 30);
    wire_put8(&out, 1);
    assert_true(replication_read_frame(buffer_head(&out), buffer_length(&out), &frame));
    assert_true(frame.kind == 'k' && frame.end == 77 && frame.wants_reply);
    assert_false(replication_read_frame(buffer_head(&out), 17, &frame));
    assert_false(replication_read_frame("x", 1, &frame));
    buffer_clear(&out);
    replication_put_status(&out, 5, 4, 3, true);
    assert_int_equal(buffer_length(&out), 34);
    assert_memory_equal(
        buffer_head(&out),
        "r\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0\x03\x01", 34);
    buffer_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_recorded_transaction),
        cmocka_unit_test(rows),
        cmocka_unit_test(other_changes),
        cmocka_unit_test(streamed_transactions),
        cmocka_unit_test(cut_short),
        cmocka_unit_test(hostile_counts),
        cmocka_unit_test(frames),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
