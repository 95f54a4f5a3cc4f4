/* plan_move.c: moves as they are written: buckets by number, values of a list, parts of ranges. */
#include <ctype.h>
#include <string.h>

#include "resharder/plan_internal.h"

#define HOW                                                                                        \
    "Moves are written like 0-4095:s2 or users/7:s1 (buckets by hash), regions/de:s1 or "          \
    "regions/DEFAULT:s1 (of a list), times/[100,200):s1 (of ranges, up to before 200); values "    \
    "with commas, colons or slashes stand in quotes."

/* One of the words, "users/0-99:s1", in its parts. */
struct asked {
    const char *word; /* all of it */
    int keyspace;     /* -1: it says none */
    const char *what;
    unsigned target;
};

/* The buckets that are meant. */
struct picked {
    unsigned *buckets;
    unsigned count;
};

static bool bad_move(struct planning *g, const char *word)
{
    return plan_wrong(g, HOW, "\"%s\" is no move", word);
}

/* ---- words ---- */

/* Behind a quoted text, a doubled quote being one of it, or an interval; else where it was. */
static const char *skip_closed(const char *at)
{
    char quote = *at;
    if (quote == '\'' || quote == '"') {
        for (at++; *at && (*at != quote || at[1] == quote); at++)
            at += *at == quote;
        return *at ? at + 1 : at;
    }
    return at;
}

/* Commas within quotes, which begin a value, and brackets part nothing. */
static const char *word_end(const char *from)
{
    const char *at = from;
    for (bool within = false; *at && (within || *at != ',');) {
        bool begins = at == from || strchr("/[, ", at[-1]);
        const char *behind = begins ? skip_closed(at) : at;
        within = *at == '[' || (within && *at != ')');
        at = behind > at ? behind : at + 1;
    }
    return at;
}

/* The next one, without blanks around it; NULL: no more. */
static const char *next_move(struct planning *g, const char **at)
{
    const char *from = *at;
    if (!from || !*from)
        return NULL;
    const char *end = word_end(from);
    *at = *end ? end + 1 : NULL;
    while (from < end && isspace((unsigned char)*from))
        from++;
    while (end > from && isspace((unsigned char)end[-1]))
        end--;
    return arena_strndup(g->arena, from, (size_t)(end - from));
}

static bool read_keyspace(struct planning *g, const char *name, struct asked *asked)
{
    asked->keyspace = shardmap_keyspace_by_name(g->map, name);
    if (asked->keyspace < 0)
        return plan_wrong(g, "Name one of the database's keyspaces.", "there is no keyspace \"%s\"",
                          name);
    return g->chosen[asked->keyspace] ||
           plan_wrong(g, "Leave it out, or name it with --keyspaces, too.",
                      "keyspace \"%s\" is not among those that are to be moved", name);
}

static bool read_asked(struct planning *g, const char *word, struct asked *asked)
{
    const char *from = word, *colon = strrchr(word, ':');
    const char *slash = strpbrk(word, "/[\"'");
    *asked = (struct asked){.word = word, .keyspace = -1};
    if (!colon)
        return bad_move(g, word);
    if (slash && *slash == '/' && slash < colon) {
        if (!read_keyspace(g, arena_strndup(g->arena, word, (size_t)(slash - word)), asked))
            return false;
        from = slash + 1;
    }
    asked->what = arena_strndup(g->arena, from, (size_t)(colon - from));
    return *asked->what ? plan_find_shard(g, colon + 1, &asked->target) : bad_move(g, word);
}

/* ---- which keyspaces a word is about ---- */

static bool goes_by_number(const struct keyspace *keyspace)
{
    return keyspace->map == MAP_HASH;
}

/* The one that it names; else the only one there is, else all by xxh64. */
static bool is_about(const struct planning *g, const struct asked *asked, unsigned index)
{
    unsigned chosen = 0;
    const struct keyspace *keyspace = shardmap_keyspace(g->map, index);
    if (asked->keyspace >= 0)
        return (unsigned)asked->keyspace == index;
    for (unsigned k = 0; k < shardmap_keyspaces(g->map); k++)
        chosen += g->chosen[k];
    return g->chosen[index] &&
           (chosen == 1 || (goes_by_number(keyspace) && keyspace->hash == HASH_XXH64));
}

/* ---- values ---- */

/* A value as it is written, in quotes or not, with blanks around. False: it is not whole. */
static bool unquote(struct planning *g, const char *text, size_t length, const char **value)
{
    for (; length && isspace((unsigned char)*text); length--)
        text++;
    while (length && isspace((unsigned char)text[length - 1]))
        length--;
    char quote = length ? text[0] : '\0';
    if (quote != '\'' && quote != '"') {
        *value = arena_strndup(g->arena, text, length);
        return length > 0;
    }
    char *out = arena_alloc(g->arena, length + 1), *put = out;
    const char *at = text + 1, *end = text + length;
    for (; at < end && (*at != quote || (at + 1 < end && at[1] == quote)); at++) {
        at += *at == quote;
        *put++ = *at;
    }
    *put = '\0';
    *value = out;
    return at == end - 1;
}

static bool read_value(struct planning *g, const struct asked *asked,
                       const struct keyspace *keyspace, const char *text, size_t length,
                       struct shardkey *key)
{
    static const char *const types[] = {"bigint", "uuid", "text"};
    const char *value;
    if (!unquote(g, text, length, &value))
        return bad_move(g, asked->word);
    return shardkey_from_text(keyspace->type, value, strlen(value), key) ||
           plan_wrong(g, HOW, "\"%s\": \"%s\" is no value of type %s, which keyspace \"%s\" has",
                      asked->word, value, types[keyspace->type], keyspace->name);
}

/* It is one already, or becomes one. */
static bool own_bucket(struct planning *g, const struct asked *asked, int index,
                       const struct shardkey *key, unsigned *bucket)
{
    *bucket = shardmap_split(g->map, index, key, 0);
    return *bucket != SHARDMAP_NO_BUCKET ||
           plan_wrong(g, "Move values that have a bucket already.",
                      "\"%s\": keyspace \"%s\" cannot have more than %d buckets", asked->word,
                      shardmap_keyspace(g->map, (unsigned)index)->name, SHARDKEY_BUCKETS);
}

static bool pick_value(struct planning *g, const struct asked *asked, int index,
                       struct picked *picked)
{
    const struct keyspace *keyspace = shardmap_keyspace(g->map, (unsigned)index);
    struct shardkey key;
    picked->count = 1;
    picked->buckets = arena_array(g->arena, unsigned, 1);
    if (strcmp(asked->what, "DEFAULT") == 0) {
        picked->buckets[0] = keyspace->rest;
        return keyspace->rest != SHARDMAP_NO_BUCKET ||
               plan_wrong(g, "Name values of its lists.", "keyspace \"%s\" has no default",
                          keyspace->name);
    }
    if (!read_value(g, asked, keyspace, asked->what, strlen(asked->what), &key))
        return false;
    if (keyspace_value_bucket(keyspace, &key) == SHARDMAP_NO_BUCKET)
        return plan_wrong(g, "\"pgshuntctl map show\" lists the values.",
                          "\"%s\": the value is in no list of keyspace \"%s\"", asked->word,
                          keyspace->name);
    return own_bucket(g, asked, index, &key, &picked->buckets[0]);
}

/* ---- intervals ---- */

/* [low, high) as written. */
struct interval {
    const char *low, *high;
    size_t low_length, high_length;
};

/* "[100,200)", "['a,b',MAXVALUE)". */
static bool read_brackets(const char *what, struct interval *interval)
{
    const char *end = what + strlen(what);
    const char *comma = skip_closed(what + 1);
    comma = strchr(comma, ',');
    if (!comma || end[-1] != ')' || comma >= end - 1)
        return false;
    *interval = (struct interval){what + 1, comma + 1, (size_t)(comma - what - 1),
                                  (size_t)(end - comma - 2)};
    return true;
}

/* "100-200", "-200--100", of integers. */
static bool read_dash(const char *what, struct interval *interval)
{
    const char *dash = *what ? strchr(what + 1, '-') : NULL;
    if (!dash)
        return false;
    *interval = (struct interval){what, dash + 1, (size_t)(dash - what), strlen(dash + 1)};
    return true;
}

static bool is_word(const char *text, size_t length, const char *word)
{
    return length == strlen(word) && memcmp(text, word, length) == 0;
}

/* The ends that are values; *has_...: it is one. */
static bool read_ends(struct planning *g, const struct asked *asked,
                      const struct keyspace *keyspace, struct shardkey *low, bool *has_low,
                      struct shardkey *high, bool *has_high)
{
    struct interval interval;
    bool brackets = asked->what[0] == '[';
    if (!(brackets ? read_brackets(asked->what, &interval)
                   : keyspace->type == KEY_BIGINT && read_dash(asked->what, &interval)))
        return bad_move(g, asked->word);
    *has_low = !is_word(interval.low, interval.low_length, "MINVALUE");
    *has_high = !is_word(interval.high, interval.high_length, "MAXVALUE");
    if ((*has_low && !read_value(g, asked, keyspace, interval.low, interval.low_length, low)) ||
        (*has_high && !read_value(g, asked, keyspace, interval.high, interval.high_length, high)))
        return false;
    if (*has_low && *has_high &&
        shardkey_compare(keyspace->type, low->bytes, low->length, high->bytes, high->length) >= 0)
        return plan_wrong(g, HOW, "\"%s\" holds no key", asked->word);
    return true;
}

static bool pick_interval(struct planning *g, const struct asked *asked, int index,
                          struct picked *picked)
{
    const struct keyspace *keyspace = shardmap_keyspace(g->map, (unsigned)index);
    struct shardkey low, high;
    bool has_low = false, has_high = false;
    unsigned bucket, first, end;
    if (!read_ends(g, asked, keyspace, &low, &has_low, &high, &has_high) ||
        (has_low && !own_bucket(g, asked, index, &low, &bucket)) ||
        (has_high && !own_bucket(g, asked, index, &high, &bucket)))
        return false;
    keyspace_range(keyspace, has_low ? &low : NULL, has_high ? &high : NULL, true, &first, &end);
    picked->count = end - first;
    picked->buckets = arena_array(g->arena, unsigned, picked->count);
    for (unsigned i = first; i < end; i++)
        picked->buckets[i - first] = keyspace->entries[i].bucket;
    return true;
}

/* ---- numbers ---- */

static bool pick_numbers(struct planning *g, const struct asked *asked, int index,
                         struct picked *picked)
{
    const struct keyspace *keyspace = shardmap_keyspace(g->map, (unsigned)index);
    const char *what = asked->what, *dash = strchr(what, '-'), *end = what + strlen(what);
    int64_t first, last, most = keyspace->nbuckets - 1;
    if (!plan_read_number(what, dash ? dash : end, most, &first) ||
        !plan_read_number(dash ? dash + 1 : what, end, most, &last) || last < first)
        return plan_wrong(
            g, arena_printf(g->arena, "Its buckets are from 0 to %lld. " HOW, (long long)most),
            "\"%s\" is no move", asked->word);
    picked->count = (unsigned)(last - first + 1);
    picked->buckets = arena_array(g->arena, unsigned, picked->count);
    for (unsigned i = 0; i < picked->count; i++)
        picked->buckets[i] = (unsigned)first + i;
    return true;
}

static bool pick(struct planning *g, const struct asked *asked, int index, struct picked *picked)
{
    const struct keyspace *keyspace = shardmap_keyspace(g->map, (unsigned)index);
    return keyspace->map == MAP_LIST    ? pick_value(g, asked, index, picked)
           : keyspace->map == MAP_RANGE ? pick_interval(g, asked, index, picked)
                                        : pick_numbers(g, asked, index, picked);
}

/* ---- all of them ---- */

/* Every keyspace of the word; *moves: any of the buckets is not the target's yet. */
static bool split_word(struct planning *g, const struct asked *asked, bool *about, bool *moves)
{
    struct picked picked = {.count = 0};
    for (unsigned k = 0; k < shardmap_keyspaces(g->map); k++) {
        if (!is_about(g, asked, k))
            continue;
        *about = true;
        if (!pick(g, asked, (int)k, &picked))
            return false;
        for (unsigned i = 0; i < picked.count; i++)
            *moves |=
                shardmap_keyspace(g->map, k)->bucket_shard[picked.buckets[i]] != asked->target;
    }
    return true;
}

bool plan_split(struct planning *g)
{
    struct asked asked;
    for (const char *at = g->wish->move, *word; (word = next_move(g, &at));) {
        bool about = false, moves = false;
        if (!read_asked(g, word, &asked) || !split_word(g, &asked, &about, &moves))
            return false;
        if (!about)
            return plan_wrong(g, HOW, "\"%s\": say of which keyspace it is", word);
        if (!moves)
            return plan_wrong(g, "Leave it out.", "\"%s\": these buckets are on shard %s already",
                              word, shardmap_shard_name(g->map, asked.target));
    }
    return true;
}

static bool apply_move(struct planning *g, const struct asked *asked, int index, bool *taken)
{
    const struct keyspace *keyspace = shardmap_keyspace(g->map, (unsigned)index);
    struct picked picked;
    if (!pick(g, asked, index, &picked))
        return false;
    for (unsigned i = 0; i < picked.count; i++) {
        unsigned bucket = picked.buckets[i];
        if (taken[bucket])
            return plan_wrong(
                g, "Name each bucket once.", "\"%s\": %s of %s is named before", asked->word,
                keyspace_buckets_text(keyspace, bucket, bucket, g->arena), keyspace->name);
        taken[bucket] = true;
        g->owners[bucket] = (uint16_t)asked->target;
    }
    return true;
}

bool plan_apply_moves(struct planning *g, int index)
{
    bool *taken = arena_array(g->arena, bool, SHARDKEY_BUCKETS);
    struct asked asked;
    for (const char *at = g->wish->move, *word; (word = next_move(g, &at));)
        if (!read_asked(g, word, &asked) ||
            (is_about(g, &asked, (unsigned)index) && !apply_move(g, &asked, index, taken)))
            return false;
    return true;
}
