/*
 * fuzz_merge.c: hostile result streams into the merge.
 *
 * The input's first bytes choose the spec and the columns' types, the rest is cut into messages: mostly
 * well-formed DataRows with wild values, some raw bytes as any message. Whatever comes, the merge ends
 * in an error or in rows whose framing is right; over-reads and leaks are the sanitizers' business.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/merge.h"
#include "pgshunt/pgtypes.h"
#include "pgshunt/wire.h"

#define SHARDS 3
#define MAX_COLUMNS 5

struct input {
    const uint8_t *at, *end;
};

static unsigned take(struct input *in)
{
    return in->at < in->end ? *in->at++ : 0;
}

static const char *take_bytes(struct input *in, size_t wanted, size_t *length)
{
    size_t left = (size_t)(in->end - in->at);
    const char *bytes = (const char *)in->at;
    *length = wanted < left ? wanted : left;
    in->at += *length;
    return bytes;
}

static const uint32_t oids[] = {
    OID_BOOL, OID_BYTEA, OID_CHAR,      OID_NAME,        OID_INT8,     OID_INT2,   OID_INT4,
    OID_TEXT, OID_OID,   OID_JSON,      OID_FLOAT4,      OID_FLOAT8,   OID_MONEY,  OID_BPCHAR,
    OID_DATE, OID_TIME,  OID_TIMESTAMP, OID_TIMESTAMPTZ, OID_INTERVAL, OID_TIMETZ, OID_NUMERIC,
    OID_UUID, OID_INET,  20001,         OID_INT8,        OID_NUMERIC,
};

static void put_description(struct buffer *out, struct input *in, int columns)
{
    char count[2] = {0, (char)columns};
    buffer_append(out, count, sizeof count);
    for (int i = 0; i < columns; i++) {
        char tail[18] = {0};
        unsigned choice = take(in);
        uint32_t oid = oids[choice % (sizeof oids / sizeof oids[0])];
        wire_set32(tail + 6, oid);
        tail[11] = oid == 20001 ? 4 : 8;
        tail[17] = choice >= 128;
        char name[2] = {(char)('a' + i), '\0'};
        buffer_append(out, name, sizeof name);
        buffer_append(out, tail, sizeof tail);
    }
}

/* Values that types accept, so that the fuzzer need not find them all. */
static const char *const samples[] = {
    "1",
    "-1",
    "0.5",
    "NaN",
    "Infinity",
    "-Infinity",
    "true",
    "t",
    "1e300",
    "-0",
    "1 day",
    "2024-01-31",
    "12:00:00",
    "2024-01-31 12:00:00+01",
    "99999999999999999999",
    "9223372036854775807",
};

static void put_row(struct buffer *out, struct input *in, int columns)
{
    char count[2] = {0, (char)columns};
    buffer_append(out, count, sizeof count);
    for (int i = 0; i < columns; i++) {
        unsigned choice = take(in);
        size_t length;
        const char *bytes;
        if (choice < 64) {
            bytes = samples[choice % (sizeof samples / sizeof samples[0])];
            length = strlen(bytes);
        } else {
            bytes = take_bytes(in, choice % 24, &length);
        }
        char size[4];
        bool null = choice >= 240;
        wire_set32(size, null ? UINT32_MAX : (uint32_t)length);
        buffer_append(out, size, sizeof size);
        if (!null)
            buffer_append(out, bytes, length);
    }
}

struct plan {
    struct merge_spec spec;
    struct merge_column columns[MAX_COLUMNS];
    struct merge_sort_key sort[2];
    const char *names[2];
    int keys[2];
};

static void make_plan(struct plan *plan, struct input *in, int columns)
{
    unsigned flags = take(in), shape = take(in);
    *plan = (struct plan){.names = {"a", "b"}};
    plan->spec = (struct merge_spec){
        .hidden = (int)(shape & 1),
        .visible = shape & 2 ? -1 : columns - (int)(shape & 1),
        .sort = plan->sort,
        .sort_names = plan->names,
        .nsort = (int)(flags & 3) % 3,
        .group = flags & 4,
        .distinct = flags & 8,
        .limit = flags & 16 ? (int)(shape >> 4) : -1,
        .offset = flags & 32 ? 2 : 0,
        .columns = plan->columns,
        .ncolumns = columns - (int)(shape & 1),
        .group_keys = plan->keys,
        .ngroup_keys = (int)(shape >> 2 & 3) % 3,
    };
    for (int i = 0; i < MAX_COLUMNS; i++) {
        unsigned choice = take(in);
        plan->columns[i] = (struct merge_column){(enum aggregate_kind)(choice % 6),
                                                 (int)(choice / 6 % 6), (int)(choice / 36 % 6)};
    }
    for (int i = 0; i < 2; i++) {
        unsigned choice = take(in);
        plan->sort[i] = (struct merge_sort_key){(int)(choice % 8) - 2, choice & 64, choice & 128};
        plan->keys[i] = (int)(take(in) % 6);
    }
}

/* A message in a block of exactly its size, so that reading past it is seen. */
static bool feed(struct merge *merge, int shard, char type, const char *bytes, size_t length)
{
    char *copy = malloc(length ? length : 1);
    if (length)
        memcpy(copy, bytes, length);
    bool fed = merge_feed(merge, shard, type, copy, length);
    free(copy);
    return fed;
}

static void check(bool holds)
{
    if (!holds)
        abort();
}

static void check_messages(const struct buffer *out)
{
    if (!buffer_length(out))
        return;
    const char *at = buffer_head(out), *end = at + buffer_length(out);
    while (at < end) {
        check((*at == 'T' || *at == 'D') && end - at >= 7);
        size_t length = wire_get32(at + 1);
        check(length <= (size_t)(end - at - 1));
        at += 1 + length;
    }
}

static void feed_one(struct merge *merge, struct input *in, int columns)
{
    unsigned choice = take(in);
    int shard = (int)(choice % SHARDS);
    struct buffer body = {0};
    if (choice < 200) {
        put_row(&body, in, columns);
        (void)!feed(merge, shard, 'D', buffer_head(&body), buffer_length(&body));
    } else if (choice < 215) {
        (void)!feed(merge, shard, 'C', "", 0);
    } else {
        size_t length;
        const char *bytes = take_bytes(in, take(in), &length);
        (void)!feed(merge, shard, "TDCIE"[choice % 5], bytes, length);
    }
    buffer_release(&body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, data + size};
    struct buffer out = {0}, description = {0};
    struct plan plan;
    int columns = 1 + (int)(take(&in) % MAX_COLUMNS);
    make_plan(&plan, &in, columns);
    struct merge *merge = merge_new(&plan.spec, SHARDS, 8);
    merge_want_description(merge, true);
    put_description(&description, &in, columns);
    (void)!feed(merge, 0, 'T', buffer_head(&description), buffer_length(&description));
    while (in.at < in.end) {
        feed_one(merge, &in, columns);
        while (merge_run(merge, &out, 16) == MERGE_FULL)
            continue;
    }
    for (int i = 0; i < SHARDS; i++)
        (void)!merge_feed(merge, i, 'C', "", 0);
    enum merge_status status;
    while ((status = merge_run(merge, &out, 16)) == MERGE_FULL)
        continue;
    check(status == MERGE_DONE || status == MERGE_FAILED);
    check(status != MERGE_FAILED || (merge_error(merge)->sqlstate && merge_error(merge)->hint));
    check_messages(&out);
    merge_free(merge);
    buffer_release(&out);
    buffer_release(&description);
    return 0;
}
