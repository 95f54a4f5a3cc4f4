/* rewrite_lists.c: where the items of `x IN (...)` and `x = ANY (...)` stand in a text, and its parameters. */
#include "router/rewrite.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "router/parse_internal.h"

static bool is_punctuation(const struct scan *scan, const struct token *token, char ch)
{
    return token->kind == SCAN_OTHER && scan->text[token->start] == ch;
}

static void add_item(struct rewrite_items *items, struct arena *arena, size_t start, size_t end)
{
    items->starts = parse_grow(arena, items->starts, items->count, sizeof *items->starts);
    items->ends = parse_grow(arena, items->ends, items->count, sizeof *items->ends);
    items->starts[items->count] = start;
    items->ends[items->count++] = end;
}

/* From behind the opening parenthesis or bracket to the one that closes it. */
static bool take_items(struct scan *scan, char close, struct arena *arena,
                       struct rewrite_items *items)
{
    size_t start = 0, end = 0;
    bool empty = true;
    for (int depth = 0;;) {
        struct token token = scan_next_word(scan);
        if (token.kind == SCAN_END)
            return false;
        bool closes = is_punctuation(scan, &token, ')') || is_punctuation(scan, &token, ']');
        if (depth == 0 && (closes || is_punctuation(scan, &token, ','))) {
            if (empty)
                return false;
            add_item(items, arena, start, end);
            empty = true;
            if (closes)
                return is_punctuation(scan, &token, close);
            continue;
        }
        depth += is_punctuation(scan, &token, '(') || is_punctuation(scan, &token, '[');
        depth -= closes;
        start = empty ? token.start : start;
        empty = false;
        end = token.end;
    }
}

static bool take_word(struct scan *scan, const char *word)
{
    struct token token = scan_next_word(scan);
    return scan_is(scan, &token, word);
}

/* `ANY (ARRAY[...]`, `ANY ('{...}'`; `scan` stands at the operator. */
static bool take_array(struct scan *scan, struct arena *arena, struct rewrite_items *items)
{
    struct token token = scan_next_word(scan);
    if (!is_punctuation(scan, &token, '='))
        return false;
    token = scan_next_word(scan);
    if (!(scan_is(scan, &token, "ANY") || scan_is(scan, &token, "SOME")) || !take_word(scan, "("))
        return false;
    token = scan_next_word(scan);
    if (token.kind == SCAN_STRING) {
        items->string = true;
        add_item(items, arena, token.start, token.end);
        return true;
    }
    return scan_is(scan, &token, "ARRAY") && take_word(scan, "[") &&
           take_items(scan, ']', arena, items);
}

bool rewrite_list_items(const char *text, const struct expr *list, struct arena *arena,
                        struct rewrite_items *items)
{
    size_t length = strlen(text);
    *items = (struct rewrite_items){.count = 0};
    if (list->location < 0 || (size_t)list->location >= length)
        return false;
    struct scan scan = {text, (size_t)list->location, length};
    if (list->kind == EXPR_IN)
        return take_word(&scan, "IN") && take_word(&scan, "(") &&
               take_items(&scan, ')', arena, items);
    return take_array(&scan, arena, items);
}

const char *rewrite_literal(const char *text, struct arena *arena)
{
    return scan_quote(text, arena);
}

void rewrite_count_params(const char *text, int *uses, int room)
{
    struct scan scan = {text, 0, strlen(text)};
    for (struct token token = scan_next(&scan); token.kind != SCAN_END; token = scan_next(&scan)) {
        const char *at = text + token.start;
        if (token.kind != SCAN_OTHER || *at != '$' || !isdigit((unsigned char)at[1]))
            continue;
        long number = strtol(at + 1, NULL, 10);
        if (number >= 1 && number <= room)
            uses[number - 1]++;
    }
}
