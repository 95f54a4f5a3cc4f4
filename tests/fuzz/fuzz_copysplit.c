/*
 * fuzz_copysplit.c: hostile streams into the splitter of COPY FROM.
 *
 * The input's first bytes choose format, options and the sizes of the pieces. Cut in pieces and fed whole,
 * a stream gives the shards the same bytes, or the same error; and no byte of it is lost or doubled: the
 * parts are as long together as the stream, with what goes to every shard counted once.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/copysplit.h"

#define SHARDS 3

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct shardmap *map;
static const struct keyspace *spaces[4];

static void make_map(void)
{
    static const char *names[] = {"a", "b", "c"};
    static const unsigned weights[] = {1, 1, 1};
    struct shardmap_builder builder = {names, weights, SHARDS};
    static const enum key_type types[] = {KEY_TEXT, KEY_BIGINT, KEY_UUID};
    map = shardmap_new(&builder);
    for (int i = 0; i < 3; i++)
        spaces[i] = shardmap_keyspace(
            map, (unsigned)shardmap_add_keyspace(map, names[i], types[i], HASH_XXH64));
    int several = shardmap_add_keyspace(map, "several", KEY_BIGINT, HASH_XXH64);
    static const enum key_type both[] = {KEY_BIGINT, KEY_TEXT};
    shardmap_set_types(map, several, both, 2);
    spaces[3] = shardmap_keyspace(map, (unsigned)several);
}

struct result {
    struct buffer parts[SHARDS];
    bool ok;
    char sqlstate[6];
};

static void run(const struct copy_rows *rows, const char *bytes, size_t len, size_t piece,
                struct result *result)
{
    struct copy_split *split = copy_split_new(rows, 1 << 20);
    result->ok = true;
    for (size_t at = 0; at < len && result->ok; at += piece)
        result->ok =
            copy_split_feed(split, bytes + at, len - at < piece ? len - at : piece, result->parts);
    result->ok = result->ok && copy_split_end(split, result->parts);
    if (!result->ok)
        memcpy(result->sqlstate, copy_split_error(split)->sqlstate, 6);
    copy_split_free(split);
}

static void check(bool holds)
{
    if (!holds)
        abort();
}

static void compare(const struct result *a, const struct result *b)
{
    check(a->ok == b->ok);
    check(a->ok || strcmp(a->sqlstate, b->sqlstate) == 0);
    for (int i = 0; a->ok && i < SHARDS; i++) {
        size_t len = buffer_length(&a->parts[i]);
        check(len == buffer_length(&b->parts[i]));
        check(!len || memcmp(buffer_head(&a->parts[i]), buffer_head(&b->parts[i]), len) == 0);
    }
}

/* What is in a part is in the stream, in its order. */
static bool is_within(const struct buffer *part, const char *bytes, size_t len)
{
    size_t at = 0, found = 0, wanted = buffer_length(part);
    for (; at < len && found < wanted; at++)
        found += buffer_head(part)[found] == bytes[at];
    return found == wanted;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char delimiters[] = {'\t', ',', 'b', ';'}, escapes[] = {'"', '\\', '\'', '"'};
    if (!map)
        make_map();
    if (size < 3)
        return 0;
    struct copy_rows rows = {.format = data[0] % 3,
                             .delimiter = delimiters[data[0] / 3 % 4],
                             .quote = '"',
                             .escape = escapes[data[0] / 12 % 4],
                             .header = data[1] & 1,
                             .null = data[1] & 2 ? "\\N" : "",
                             .default_ = data[1] & 4 ? "D" : NULL,
                             .nkeys = data[2] % 4 == 3 ? 2 : 1,
                             .keys = {{.name = "k",
                                       .field = data[1] >> 6,
                                       .force_null = data[1] & 8,
                                       .force_not_null = data[1] & 16},
                                      {.name = "l", .field = data[1] >> 4 & 3}},
                             .columns = 4,
                             .table = "t",
                             .keyspace = spaces[data[2] % 4],
                             .map = map};
    const char *bytes = (const char *)data + 3;
    size_t len = size - 3, piece = 1 + data[2] / 4 % 32, total = 0;
    struct result whole = {0}, cut = {0};
    run(&rows, bytes, len, len + 1, &whole);
    run(&rows, bytes, len, piece, &cut);
    compare(&whole, &cut);
    for (int i = 0; i < SHARDS; i++) {
        total += buffer_length(&whole.parts[i]);
        check(is_within(&whole.parts[i], bytes, len));
        buffer_release(&cut.parts[i]);
    }
    if (whole.ok && rows.format == COPY_TEXT && !rows.header && !memmem(bytes, len, "\\.", 2))
        check(total == len);
    for (int i = 0; i < SHARDS; i++)
        buffer_release(&whole.parts[i]);
    return 0;
}
