/* guc.c: sets of session settings and what it takes to get from one to another. */
#include "proxy/guc.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "pgshunt/arena.h"

static int find(const struct guc_set *set, const char *name, bool *found)
{
    int low = 0, high = set->count;
    while (low < high) {
        int middle = (low + high) / 2;
        int order = strcmp(set->items[middle].name, name);
        if (order == 0) {
            *found = true;
            return middle;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *found = false;
    return low;
}

static uint64_t item_hash(const struct guc *item)
{
    uint64_t seed = XXH64(item->name, strlen(item->name), 1);
    return XXH64(item->value, strlen(item->value), seed) | 1;
}

static void free_item(struct guc *item)
{
    free(item->name);
    free(item->value);
}

static void remove_at(struct guc_set *set, int at)
{
    set->hash ^= item_hash(&set->items[at]);
    free_item(&set->items[at]);
    set->count--;
    memmove(set->items + at, set->items + at + 1, sizeof *set->items * (size_t)(set->count - at));
}

static void insert_at(struct guc_set *set, int at, const char *name, const char *value)
{
    if (set->count == set->capacity) {
        set->capacity = set->capacity ? set->capacity * 2 : 4;
        set->items = mem_realloc(set->items, sizeof *set->items * (size_t)set->capacity);
    }
    memmove(set->items + at + 1, set->items + at, sizeof *set->items * (size_t)(set->count - at));
    set->items[at] = (struct guc){mem_strdup(name), mem_strdup(value)};
    set->count++;
    set->hash ^= item_hash(&set->items[at]);
}

void guc_set_put(struct guc_set *set, const char *name, const char *value)
{
    bool found;
    int at = find(set, name, &found);
    if (found)
        remove_at(set, at);
    if (value)
        insert_at(set, at, name, value);
}

/* Settings whose SET takes a list of identifiers: a string with commas would become one identifier, so
 * a plain value goes through set_config() instead. */
static bool is_identifier_list(const char *name)
{
    return strcmp(name, "search_path") == 0 || strcmp(name, "temp_tablespaces") == 0 ||
           strcmp(name, "local_preload_libraries") == 0;
}

#define BY_SET_CONFIG '\1' /* first byte of a value that set_config() has to set */

void guc_set_put_text(struct guc_set *set, const char *name, const char *text)
{
    struct buffer quoted = {0};
    if (is_identifier_list(name))
        buffer_append(&quoted, (char[]){BY_SET_CONFIG}, 1);
    buffer_append(&quoted, strchr(text, '\\') ? " E'" : "'", strchr(text, '\\') ? 3 : 1);
    for (const char *p = text; *p; p++) {
        if (*p == '\'' || *p == '\\')
            buffer_append(&quoted, p, 1);
        buffer_append(&quoted, p, 1);
    }
    buffer_append(&quoted, "'", 2);
    guc_set_put(set, name, buffer_head(&quoted));
    buffer_release(&quoted);
}

const char *guc_set_get(const struct guc_set *set, const char *name)
{
    bool found;
    int at = find(set, name, &found);
    return found ? set->items[at].value : NULL;
}

void guc_set_clear(struct guc_set *set)
{
    for (int i = 0; i < set->count; i++)
        free_item(&set->items[i]);
    set->count = 0;
    set->hash = 0;
}

void guc_set_copy(struct guc_set *to, const struct guc_set *from)
{
    guc_set_clear(to);
    for (int i = 0; i < from->count; i++)
        insert_at(to, i, from->items[i].name, from->items[i].value);
}

void guc_set_free(struct guc_set *set)
{
    guc_set_clear(set);
    free(set->items);
    *set = (struct guc_set){0};
}

/* Names come from SQL or from a startup packet: quoted, unless they are plain words with dots. SET TIME
 * ZONE, ROLE and SESSION AUTHORIZATION have their names as ordinary settings too. */
static void append_name(struct buffer *sql, const char *name)
{
    bool plain = strspn(name, "abcdefghijklmnopqrstuvwxyz_0123456789.") == strlen(name);
    if (plain && *name) {
        buffer_append(sql, name, strlen(name));
        return;
    }
    buffer_append(sql, "\"", 1);
    for (const char *p = name; *p; p++) {
        if (*p == '"')
            buffer_append(sql, p, 1);
        buffer_append(sql, p, 1);
    }
    buffer_append(sql, "\"", 1);
}

static void append_set(struct buffer *sql, const struct guc *item)
{
    if (item->value[0] == BY_SET_CONFIG) {
        buffer_printf(sql, "SELECT pg_catalog.set_config('%s',%s,false);", item->name,
                      item->value + 1);
        return;
    }
    buffer_append(sql, "SET ", 4);
    append_name(sql, item->name);
    buffer_append(sql, " TO ", 4);
    buffer_append(sql, item->value, strlen(item->value));
    buffer_append(sql, ";", 1);
}

static void append_reset(struct buffer *sql, const char *name)
{
    buffer_append(sql, "RESET ", 6);
    append_name(sql, name);
    buffer_append(sql, ";", 1);
}

void guc_difference(const struct guc_set *from, const struct guc_set *to, struct buffer *sql)
{
    int i = 0, j = 0;
    while (i < from->count || j < to->count) {
        int order = i == from->count ? 1
                    : j == to->count ? -1
                                     : strcmp(from->items[i].name, to->items[j].name);
        if (order < 0) {
            append_reset(sql, from->items[i++].name);
        } else if (order > 0) {
            append_set(sql, &to->items[j++]);
        } else {
            if (strcmp(from->items[i].value, to->items[j].value) != 0)
                append_set(sql, &to->items[j]);
            i++;
            j++;
        }
    }
}

void guc_pending_add(struct guc_pending *pending, const char *name, const char *value)
{
    if (pending->count == pending->capacity) {
        pending->capacity = pending->capacity ? pending->capacity * 2 : 4;
        pending->items =
            mem_realloc(pending->items, sizeof *pending->items * (size_t)pending->capacity);
    }
    pending->items[pending->count++] =
        (struct guc){name ? mem_strdup(name) : NULL, value ? mem_strdup(value) : NULL};
}

void guc_pending_truncate(struct guc_pending *pending, int count)
{
    while (pending->count > count)
        free_item(&pending->items[--pending->count]);
}

void guc_pending_apply(const struct guc_pending *pending, struct guc_set *set)
{
    for (int i = 0; i < pending->count; i++) {
        if (pending->items[i].name)
            guc_set_put(set, pending->items[i].name, pending->items[i].value);
        else
            guc_set_clear(set);
    }
}

void guc_pending_free(struct guc_pending *pending)
{
    guc_pending_truncate(pending, 0);
    free(pending->items);
    *pending = (struct guc_pending){0};
}
