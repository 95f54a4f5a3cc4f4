/*
 * shape.c: texts that differ in their literals alone share a parsed tree.
 *
 *   text --outline()--> key (literals replaced by marks) and where the literals are
 *   key  --hash-------> group: all trees of this shape, free ones in a list
 *   tree --place()----> its constants get this text's literals
 *
 * A tree belongs to one request at a time, so nobody sees its constants change; a group grows to as many
 * trees as requests of its shape are under way at once. Groups that have not been used for long go first.
 */
#include "pgshunt/shape.h"

#include <string.h>

#include <uthash.h>
#include <utlist.h>
#include <xxhash.h>

#include "pgshunt/arena.h"

enum {
    TEXT_MAX = 2048,   /* longer texts are parsed each time */
    LITERALS_MAX = 32, /* ... and those with more literals */
    DIGITS_MAX = 9,    /* what is an int4 to the grammar, whatever the digits */
    GROUPS_MAX = 512,
    TREES_MAX = 2048, /* of all groups */
    SEEN_SLOTS = 1024,
    GUESSES = 8, /* shapes used last that a text is held against first */
};

/* Marks in keys: control characters, which outline() lets into no key. */
enum { MARK_NUMBER = 1, MARK_STRING = 2 };

struct literal {
    uint32_t at, length; /* a string's quotes are part of it */
    int minus;           /* where the '-' in front of it stands, -1: there is none */
    bool string;
};

struct outline {
    struct literal literals[LITERALS_MAX];
    int nliterals;
    size_t key_length;
    char key[TEXT_MAX];
};

/* What stands between two literals of a key, and the mark behind it (0: the key ends). */
struct piece {
    uint16_t length;
    char mark;
};

/* A constant of the tree and the literal it comes from. */
struct slot {
    struct expr *constant;
    int literal;
    bool negative; /* the grammar made -5 one constant */
};

/* Text that changes from use to use. */
struct storage {
    char *bytes;
    size_t size;
};

struct tree {
    struct shape shape; /* first: what callers hold is the tree itself */
    struct group *group;
    struct tree *next; /* group's free list */
    struct arena arena;
    struct slot *slots;
    int nslots;
    struct storage text;
    struct storage *values; /* by slot */
};

struct group {
    struct tree *free;
    int ntrees;    /* free or taken */
    bool unusable; /* this shape has no tree that could be shared */
    bool evicted;  /* in no table: freed with its last tree */
    struct group *prev, *next;
    UT_hash_handle hh;
    struct piece pieces[LITERALS_MAX + 1];
    size_t key_length;
    char key[];
};

struct shape_table {
    uint64_t seed;
    struct group *groups; /* hash by key */
    struct group *recent; /* list, least recently used first */
    unsigned ngroups;
    int ntrees;
    uint64_t seen[SEEN_SLOTS]; /* hashes of shapes met once */
};

/* ---- outline: the key and the literals of a text ---- */

/* Identifiers go on with the last two. */
enum byte_class { ODD, SPACE, QUOTE, IDENTIFIER_QUOTE, MARK, END, DIGIT, WORD };

static const unsigned char byte_classes[256] = {
    [' '] = SPACE,
    ['\t' ... '\r'] = SPACE,
    ['A' ... 'Z'] = WORD,
    ['a' ... 'z'] = WORD,
    ['_'] = WORD,
    [0x80 ... 0xFF] = WORD,
    ['0' ... '9'] = DIGIT,
    ['\''] = QUOTE,
    ['"'] = IDENTIFIER_QUOTE,
    ['!'] = MARK,
    ['#'] = MARK,
    ['%' ... '&'] = MARK,
    ['(' ... '/'] = MARK,
    [':'] = MARK,
    ['<' ... '@'] = MARK,
    ['['] = MARK,
    [']' ... '^'] = MARK,
    ['`'] = MARK,
    ['{'] = MARK,
    ['|'] = MARK,
    ['}' ... '~'] = MARK,
    [';'] = END,
};

static enum byte_class class_of(char ch)
{
    return byte_classes[(unsigned char)ch];
}

struct cursor {
    const char *sql;
    size_t at, length;
    size_t kept; /* up to there it is in the key; from there to `at` it will be */
    struct outline *out;
};

static void keep(struct cursor *c)
{
    memcpy(c->out->key + c->out->key_length, c->sql + c->kept, c->at - c->kept);
    c->out->key_length += c->at - c->kept;
    c->kept = c->at;
}

static char after(const struct cursor *c, size_t count)
{
    return c->at + count < c->length ? c->sql[c->at + count] : '\0';
}

/* The last byte that is no white space, looking back from before `at`. */
static size_t solid_before(const struct cursor *c, size_t at)
{
    while (at > 0 && class_of(c->sql[at - 1]) == SPACE)
        at--;
    return at;
}

static void note_literal(struct cursor *c, size_t length, bool string)
{
    struct outline *out = c->out;
    size_t before = solid_before(c, c->at);
    out->literals[out->nliterals++] = (struct literal){
        .at = (uint32_t)c->at,
        .length = (uint32_t)length,
        .minus = before > 0 && c->sql[before - 1] == '-' ? (int)before - 1 : -1,
        .string = string,
    };
    c->at += length;
}

static bool add_literal(struct cursor *c, size_t length, bool string)
{
    struct outline *out = c->out;
    if (out->nliterals == LITERALS_MAX)
        return false;
    keep(c);
    out->key[out->key_length++] = string ? MARK_STRING : MARK_NUMBER;
    note_literal(c, length, string);
    c->kept = c->at;
    return true;
}

/* Bytes of the plain integer that stands here, 0: it is no such number. */
static size_t number_length(const struct cursor *c)
{
    size_t n = 0;
    while (class_of(after(c, n)) == DIGIT)
        n++;
    char next = after(c, n);
    return n <= DIGITS_MAX && next != '.' && class_of(next) != WORD ? n : 0;
}

/* Bytes of the string that stands here, quotes included; 0: it is none, or not a plain one. */
static size_t string_length(const struct cursor *c)
{
    const char *start = c->sql + c->at;
    if (after(c, 0) != '\'')
        return 0;
    const char *close = memchr(start + 1, '\'', c->length - c->at - 1);
    size_t length = close ? (size_t)(close - start) + 1 : 0;
    return after(c, length) == '\'' || memchr(start, '\\', length) ? 0 : length;
}

/* An identifier or keyword. With a quote right behind it, it is the prefix of a special string. */
static bool take_word(struct cursor *c)
{
    const char *p = c->sql + c->at, *end = c->sql + c->length;
    while (p < end && class_of(*p) >= DIGIT)
        p++;
    c->at = (size_t)(p - c->sql);
    return p == end || (*p != '\'' && *p != '$');
}

/* A plain integer is a literal; any other number stays in the key. */
static bool take_number(struct cursor *c)
{
    size_t n = number_length(c);
    bool behind_point = c->at > 0 && c->sql[c->at - 1] == '.';
    if (n && !behind_point)
        return add_literal(c, n, false);
    while (after(c, n) == '.' || class_of(after(c, n)) == DIGIT)
        n++;
    if (class_of(after(c, n)) == WORD) /* 1e-5, 0x1F */
        return false;
    c->at += n;
    return true;
}

static bool take_string(struct cursor *c)
{
    size_t length = string_length(c), before = solid_before(c, c->at);
    /* U&'...', or the continuation of a string on the line before. */
    if (!length || (before > 0 && (c->sql[before - 1] == '\'' || c->sql[before - 1] == '&')))
        return false;
    return add_literal(c, length, true);
}

static bool take_quoted(struct cursor *c)
{
    const char *start = c->sql + c->at;
    const char *close = memchr(start + 1, '"', c->length - c->at - 1);
    size_t length = close ? (size_t)(close - start) : 0;
    if (!length || memchr(start, '\\', length) || memchr(start, MARK_NUMBER, length) ||
        memchr(start, MARK_STRING, length))
        return false;
    c->at += (size_t)(close - start) + 1;
    return true;
}

static bool take_mark(struct cursor *c)
{
    char ch = after(c, 0), next = after(c, 1);
    if ((ch == '-' && next == '-') || (ch == '/' && next == '*'))
        return false;
    c->at++;
    return true;
}

/* One statement only: nothing but white space may follow its semicolon. */
static bool take_end(struct cursor *c)
{
    size_t n = 1;
    while (class_of(after(c, n)) == SPACE)
        n++;
    c->at += n;
    return c->at == c->length;
}

static bool take(struct cursor *c)
{
    switch (class_of(c->sql[c->at])) {
    case SPACE:
        c->at++;
        return true;
    case WORD:
        return take_word(c);
    case DIGIT:
        return take_number(c);
    case QUOTE:
        return take_string(c);
    case IDENTIFIER_QUOTE:
        return take_quoted(c);
    case MARK:
        return take_mark(c);
    case END:
        return take_end(c);
    case ODD:
        break;
    }
    return false;
}

/* False: a text whose shape we do not recognise. */
static bool outline(const char *sql, size_t length, struct outline *out)
{
    struct cursor c = {.sql = sql, .length = length, .out = out};
    out->nliterals = 0;
    out->key_length = 0;
    if (length == 0)
        return false;
    while (c.at < length)
        if (!take(&c))
            return false;
    keep(&c);
    return true;
}

static void cut_into_pieces(const struct outline *out, struct piece *pieces)
{
    int n = 0;
    size_t start = 0;
    for (size_t i = 0; i < out->key_length; i++) {
        char ch = out->key[i];
        if (ch != MARK_NUMBER && ch != MARK_STRING)
            continue;
        pieces[n++] = (struct piece){.length = (uint16_t)(i - start), .mark = ch};
        start = i + 1;
    }
    pieces[n] = (struct piece){.length = (uint16_t)(out->key_length - start)};
}

/* The same for a text that may be of the shape `key`. What stands around a literal is equal then, so only
 * the literals themselves are looked at. Much faster, where it is. */
static bool outline_as(const char *key, const struct piece *pieces, const char *sql, size_t length,
                       struct outline *out)
{
    struct cursor c = {.sql = sql, .length = length, .out = out};
    out->nliterals = 0;
    for (;; pieces++) {
        if (length - c.at < pieces->length || memcmp(key, sql + c.at, pieces->length) != 0)
            return false;
        c.at += pieces->length;
        key += pieces->length + 1u;
        if (!pieces->mark)
            return c.at == length;
        bool string = pieces->mark == MARK_STRING;
        size_t n = string ? string_length(&c) : number_length(&c);
        if (!n)
            return false;
        note_literal(&c, n, string);
    }
}

/* ---- trees ---- */

static int64_t digits_value(const char *digits, size_t length)
{
    int64_t value = 0;
    for (size_t i = 0; i < length; i++)
        value = value * 10 + (digits[i] - '0');
    return value;
}

static char *storage_reserve(struct storage *storage, struct arena *arena, size_t size)
{
    if (storage->size < size) {
        storage->size = size < 16 ? 16 : 2 * size;
        storage->bytes = arena_alloc(arena, storage->size);
    }
    return storage->bytes;
}

static void place_number(struct tree *tree, int index, const char *digits, size_t length)
{
    const struct slot *slot = &tree->slots[index];
    char *text = storage_reserve(&tree->values[index], &tree->arena, length + 2), *p = text;
    while (length > 1 && *digits == '0') /* as integers print */
        digits++, length--;
    if (slot->negative && *digits != '0')
        *p++ = '-';
    memcpy(p, digits, length);
    p[length] = '\0';
    int64_t value = digits_value(digits, length);
    slot->constant->number = slot->negative ? -value : value;
    slot->constant->name = text;
}

static void place_string(struct tree *tree, int index, const char *body, size_t length)
{
    char *text = storage_reserve(&tree->values[index], &tree->arena, length + 1);
    memcpy(text, body, length);
    text[length] = '\0';
    tree->slots[index].constant->name = text;
}

/* The statement's own text: without white space around and the semicolon. */
static void place_text(struct tree *tree, const char *sql, size_t length)
{
    struct statement *statement = tree->shape.list.items[0];
    size_t start = (size_t)statement->location;
    while (length > start && (class_of(sql[length - 1]) == SPACE || sql[length - 1] == ';'))
        length--;
    char *text = storage_reserve(&tree->text, &tree->arena, length - start + 1);
    memcpy(text, sql + start, length - start);
    text[length - start] = '\0';
    statement->text = text;
    statement->length = (int)(length - start);
}

static void place(struct tree *tree, const char *sql, size_t length, const struct outline *out)
{
    for (int i = 0; i < tree->nslots; i++) {
        const struct literal *literal = &out->literals[tree->slots[i].literal];
        const char *start = sql + literal->at;
        if (literal->string)
            place_string(tree, i, start + 1, literal->length - 2);
        else
            place_number(tree, i, start, literal->length);
    }
    place_text(tree, sql, length);
}

static bool comes_from(const struct expr *constant, const struct literal *literal, const char *sql,
                       int base, bool *negative)
{
    int64_t value;
    if (literal->string)
        return constant->const_kind == CONST_STRING &&
               constant->location == (int)literal->at - base;
    value = digits_value(sql + literal->at, literal->length);
    *negative = literal->minus >= 0 && constant->location == literal->minus - base;
    return constant->const_kind == CONST_INT &&
           (*negative || constant->location == (int)literal->at - base) &&
           constant->number == (*negative ? -value : value);
}

/* Finds the constants of each literal. False: a literal is something else, too. */
static bool find_slots(struct tree *tree, const char *sql, const struct outline *out,
                       const struct constant_list *constants)
{
    int base = tree->shape.list.items[0]->location;
    tree->slots = arena_array(&tree->arena, struct slot, constants->count + 1);
    for (int i = 0; i < out->nliterals; i++) {
        int before = tree->nslots;
        for (int j = 0; j < constants->count; j++) {
            struct slot slot = {.constant = constants->items[j], .literal = i};
            if (comes_from(slot.constant, &out->literals[i], sql, base, &slot.negative))
                tree->slots[tree->nslots++] = slot;
        }
        if (tree->nslots == before)
            return false;
    }
    tree->values = arena_array(&tree->arena, struct storage, tree->nslots + 1);
    return true;
}

static bool may_be_shared(const struct statement_list *list)
{
    const struct statement *statement = list->count == 1 ? list->items[0] : NULL;
    return statement && statement->kind == STMT_QUERY && !statement->syntax_error &&
           !statement->nhints && !statement->max_param;
}

static void tree_free(struct shape_table *table, struct tree *tree)
{
    tree->group->ntrees--;
    table->ntrees--;
    arena_free(&tree->arena);
    free(tree);
}

/* NULL: the shape has no tree to share. */
static struct tree *tree_create(struct shape_table *table, struct group *group, const char *sql,
                                const struct outline *out)
{
    struct tree *tree = mem_alloc(sizeof *tree);
    struct constant_list constants;
    arena_init(&tree->arena);
    tree->group = group;
    group->ntrees++;
    table->ntrees++;
    tree->shape.list = statement_parse_constants(sql, &tree->arena, &constants);
    if (may_be_shared(&tree->shape.list) && find_slots(tree, sql, out, &constants))
        return tree;
    tree_free(table, tree);
    return NULL;
}

/* ---- groups ---- */

static void group_free(struct shape_table *table, struct group *group)
{
    while (group->free) {
        struct tree *tree = group->free;
        group->free = tree->next;
        tree_free(table, tree);
    }
    if (!group->ntrees)
        free(group);
}

static void group_evict(struct shape_table *table, struct group *group)
{
    HASH_DEL(table->groups, group);
    DL_DELETE(table->recent, group);
    table->ngroups--;
    group->evicted = true;
    group_free(table, group);
}

static struct group *group_create(struct shape_table *table, const struct outline *out,
                                  unsigned hash)
{
    struct group *group = mem_alloc(sizeof *group + out->key_length);
    if (table->ngroups == GROUPS_MAX)
        group_evict(table, table->recent);
    cut_into_pieces(out, group->pieces);
    group->key_length = out->key_length;
    memcpy(group->key, out->key, out->key_length);
    HASH_ADD_KEYPTR_BYHASHVALUE(hh, table->groups, group->key, group->key_length, hash, group);
    DL_APPEND(table->recent, group);
    table->ngroups++;
    return group;
}

static void mark_used(struct shape_table *table, struct group *group)
{
    if (!group->next)
        return;
    DL_DELETE(table->recent, group);
    DL_APPEND(table->recent, group);
}

/* One of the shapes used last, if the text is of one. */
static struct group *group_guess(struct shape_table *table, const char *sql, size_t length,
                                 struct outline *out)
{
    struct group *group = table->recent ? table->recent->prev : NULL;
    for (int i = 0; group && i < GUESSES; i++) {
        if (outline_as(group->key, group->pieces, sql, length, out)) {
            mark_used(table, group);
            return group;
        }
        group = group == table->recent ? NULL : group->prev;
    }
    return NULL;
}

/* A shape met for the first time is only remembered: most texts with many literals never come again. */
static struct group *group_find(struct shape_table *table, const struct outline *out)
{
    struct group *group;
    uint64_t full = XXH3_64bits_withSeed(out->key, out->key_length, table->seed);
    unsigned hash = (unsigned)full;
    HASH_FIND_BYHASHVALUE(hh, table->groups, out->key, out->key_length, hash, group);
    if (group) {
        mark_used(table, group);
        return group;
    }
    uint64_t *seen = &table->seen[(full >> 32) % SEEN_SLOTS];
    if (*seen == full)
        return group_create(table, out, hash);
    *seen = full;
    return NULL;
}

/* ---- for callers ---- */

struct shape_table *shapes_create(uint64_t seed)
{
    struct shape_table *table = mem_alloc(sizeof *table);
    table->seed = seed;
    return table;
}

void shapes_free(struct shape_table *table)
{
    while (table->recent)
        group_evict(table, table->recent);
    free(table);
}

struct shape *shape_take(struct shape_table *table, const char *sql, size_t length)
{
    struct outline out;
    if (length > TEXT_MAX)
        return NULL;
    struct group *group = group_guess(table, sql, length, &out);
    if (!group && outline(sql, length, &out))
        group = group_find(table, &out);
    if (!group || group->unusable)
        return NULL;
    struct tree *tree = group->free;
    if (tree) {
        group->free = tree->next;
    } else if (table->ntrees < TREES_MAX) {
        tree = tree_create(table, group, sql, &out);
        group->unusable = !tree;
    }
    if (!tree)
        return NULL;
    place(tree, sql, length, &out);
    return &tree->shape;
}

void shape_give(struct shape_table *table, struct shape *shape)
{
    struct tree *tree = (struct tree *)shape;
    struct group *group = tree->group;
    tree->next = group->free;
    group->free = tree;
    if (group->evicted)
        group_free(table, group);
}
