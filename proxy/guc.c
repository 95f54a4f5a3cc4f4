/* guc.c: sets of session settings and what it takes to get from one to another. */
#include "proxy/guc.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "pgshunt/arena.h"
#include "pgshunt/copysplit.h"

/* ---- the table of sets ---- */

/* All sets of the process, by hash. Only changes of settings come here, no query does. */
static struct {
    pthread_mutex_t lock;
    struct guc_set *sets;
} table = {.lock = PTHREAD_MUTEX_INITIALIZER};

static bool same_items(const struct guc_set *a, const struct guc_set *b)
{
    if (a->count != b->count)
        return false;
    for (int i = 0; i < a->count; i++)
        if (strcmp(a->items[i].name, b->items[i].name) != 0 ||
            strcmp(a->items[i].value, b->items[i].value) != 0)
            return false;
    return true;
}

/* The set of this content with a reference for the caller; `fresh`, which holds it, is used or freed. */
static struct guc_set *intern(struct guc_set *fresh)
{
    struct guc_set *known;
    pthread_mutex_lock(&table.lock);
    HASH_FIND(hh, table.sets, &fresh->hash, sizeof fresh->hash, known);
    while (known && !same_items(known, fresh)) { /* two contents of one hash */
        fresh->hash++;
        HASH_FIND(hh, table.sets, &fresh->hash, sizeof fresh->hash, known);
    }
    if (known)
        atomic_fetch_add(&known->references, 1);
    else
        HASH_ADD(hh, table.sets, hash, sizeof fresh->hash, fresh);
    pthread_mutex_unlock(&table.lock);
    if (!known)
        return fresh;
    free(fresh);
    return known;
}

static void unref(struct guc_set *set)
{
    int references = atomic_load(&set->references);
    /* The last reference goes under the lock: else another thread might find the set while it dies. */
    while (references > 1)
        if (atomic_compare_exchange_weak(&set->references, &references, references - 1))
            return;
    pthread_mutex_lock(&table.lock);
    bool last = atomic_fetch_sub(&set->references, 1) == 1;
    if (last)
        HASH_DEL(table.sets, set);
    pthread_mutex_unlock(&table.lock);
    if (last)
        free(set);
}

void guc_set_assign(struct guc_set **to, struct guc_set *from)
{
    struct guc_set *old = *to;
    if (old == from)
        return;
    if (from)
        atomic_fetch_add(&from->references, 1);
    *to = from;
    if (old)
        unref(old);
}

void guc_set_release(struct guc_set **set)
{
    guc_set_assign(set, NULL);
}

int guc_sets_alive(void)
{
    pthread_mutex_lock(&table.lock);
    int count = (int)HASH_COUNT(table.sets);
    pthread_mutex_unlock(&table.lock);
    return count;
}

/* ---- making sets ---- */

static size_t text_size(const struct guc *items, int count)
{
    size_t size = 0;
    for (int i = 0; i < count; i++)
        size += strlen(items[i].name) + strlen(items[i].value) + 2;
    return size;
}

static const char *put_text(char **at, const char *text)
{
    const char *copy = *at;
    size_t size = strlen(text) + 1;
    memcpy(*at, text, size);
    *at += size;
    return copy;
}

static bool contains(const char *value, const char *word)
{
    return value && strcasestr(value, word);
}

static bool is_on(const char *value)
{
    return value && (strcmp(value, "'on'") == 0 || strcmp(value, "on") == 0 ||
                     strcmp(value, "true") == 0 || strcmp(value, "'true'") == 0);
}

static unsigned facts_of(const struct guc_set *set)
{
    const char *encoding = guc_set_get(set, "client_encoding");
    bool unicode = !encoding || contains(encoding, "utf8") || contains(encoding, "utf-8") ||
                   contains(encoding, "unicode") || contains(encoding, "sql_ascii");
    bool serializable = contains(guc_set_get(set, "default_transaction_isolation"), "serializable");
    return (is_on(guc_set_get(set, "default_transaction_read_only")) ? GUC_READ_ONLY : 0) |
           (serializable ? GUC_SERIALIZABLE : 0) | (unicode ? 0 : GUC_OTHER_ENCODING) |
           (!unicode && copy_encoding_hides_ascii(encoding) ? GUC_ASCII_HIDES : 0);
}

static struct guc_set *make_set(const struct guc *items, int count)
{
    size_t head = sizeof(struct guc_set) + sizeof *items * (size_t)count;
    size_t text = text_size(items, count);
    if (!count)
        return NULL;
    struct guc_set *set = mem_alloc(head + text);
    char *at = (char *)set + head;
    set->count = count;
    atomic_init(&set->references, 1);
    for (int i = 0; i < count; i++) {
        set->items[i].name = put_text(&at, items[i].name);
        set->items[i].value = put_text(&at, items[i].value);
    }
    set->hash = XXH3_64bits((char *)set + head, text);
    set->facts = facts_of(set);
    return intern(set);
}

static int find(const struct guc_set *set, const char *name, bool *found)
{
    int low = 0, high = guc_set_count(set);
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

void guc_set_put(struct guc_set **set, const char *name, const char *value)
{
    bool found;
    int count = guc_set_count(*set), at = find(*set, name, &found);
    if (found ? value && strcmp((*set)->items[at].value, value) == 0 : !value)
        return;
    struct guc *items = mem_alloc(sizeof *items * (size_t)(count + 1));
    int n = 0;
    for (int i = 0; i <= count; i++) {
        if (i == at && value)
            items[n++] = (struct guc){name, value};
        if (i < count && !(i == at && found))
            items[n++] = (*set)->items[i];
    }
    struct guc_set *changed = make_set(items, n);
    free(items);
    guc_set_release(set);
    *set = changed;
}

const char *guc_set_get(const struct guc_set *set, const char *name)
{
    bool found;
    int at = find(set, name, &found);
    return found ? set->items[at].value : NULL;
}

/* Settings whose SET takes a list of identifiers: a string with commas would become one identifier, so
 * a plain value goes through set_config() instead. */
static bool is_identifier_list(const char *name)
{
    return strcmp(name, "search_path") == 0 || strcmp(name, "temp_tablespaces") == 0 ||
           strcmp(name, "local_preload_libraries") == 0 ||
           strcmp(name, "session_preload_libraries") == 0;
}

#define BY_SET_CONFIG '\1' /* first byte of a value that set_config() has to set */

char *guc_text_value(const char *name, const char *text)
{
    char *value = mem_alloc(strlen(text) * 2 + 6), *at = value;
    if (is_identifier_list(name))
        *at++ = BY_SET_CONFIG;
    if (strchr(text, '\\')) {
        *at++ = ' ';
        *at++ = 'E';
    }
    *at++ = '\'';
    for (const char *p = text; *p; p++) {
        if (*p == '\'' || *p == '\\')
            *at++ = *p;
        *at++ = *p;
    }
    *at++ = '\'';
    *at = '\0';
    return value;
}

void guc_set_put_text(struct guc_set **set, const char *name, const char *text)
{
    char *value = guc_text_value(name, text);
    guc_set_put(set, name, value);
    free(value);
}

/* ---- who one is ---- */

#define ROLE "role"
#define AUTHORIZATION "session_authorization"

static bool is_identity(const char *name)
{
    return strcmp(name, ROLE) == 0 || strcmp(name, AUTHORIZATION) == 0;
}

void guc_set_reset_all(struct guc_set **set)
{
    struct guc kept[2];
    int n = 0;
    for (int i = 0; i < guc_set_count(*set); i++)
        if (is_identity((*set)->items[i].name))
            kept[n++] = (*set)->items[i];
    struct guc_set *changed = make_set(kept, n);
    guc_set_release(set);
    *set = changed;
}

/* SET SESSION AUTHORIZATION ends a SET ROLE. */
static void put_change(struct guc_set **set, const char *name, const char *value)
{
    guc_set_put(set, name, value);
    if (strcmp(name, AUTHORIZATION) == 0)
        guc_set_put(set, ROLE, NULL);
}

/* ---- SQL ---- */

void guc_append_identifier(struct buffer *sql, const char *name)
{
    buffer_append(sql, "\"", 1);
    for (const char *p = name; *p; p++) {
        if (*p == '"')
            buffer_append(sql, p, 1);
        buffer_append(sql, p, 1);
    }
    buffer_append(sql, "\"", 1);
}

/* Names come from SQL or from a startup packet: quoted, unless they are plain words. SET TIME ZONE, ROLE and SESSION
 * AUTHORIZATION have their names as ordinary settings too. In a name with dots each word may be one of SQL's own. */
static void append_name(struct buffer *sql, const char *name)
{
    bool plain = strspn(name, "abcdefghijklmnopqrstuvwxyz_0123456789.") == strlen(name);
    if (!plain || !((*name >= 'a' && *name <= 'z') || *name == '_')) {
        guc_append_identifier(sql, name);
        return;
    }
    for (const char *dot; (dot = strchr(name, '.')); name = dot + 1)
        buffer_printf(sql, "\"%.*s\".", (int)(dot - name), name);
    bool dotted = buffer_length(sql) && buffer_head(sql)[buffer_length(sql) - 1] == '.';
    buffer_printf(sql, dotted ? "\"%s\"" : "%s", name);
}

static void append_text(struct buffer *sql, const char *text)
{
    buffer_append(sql, text, strlen(text));
}

static void append_reset(struct buffer *sql, bool local, const char *name)
{
    append_text(sql, local ? "SET LOCAL " : "RESET ");
    append_name(sql, name);
    append_text(sql, local ? " TO DEFAULT;" : ";");
}

static void append_set(struct buffer *sql, bool local, const char *name, const char *value)
{
    if (value[0] == BY_SET_CONFIG) {
        append_text(sql, "SELECT pg_catalog.set_config('");
        append_text(sql, name);
        append_text(sql, "',");
        append_text(sql, value + 1);
        append_text(sql, local ? ",true);" : ",false);");
        return;
    }
    append_text(sql, local ? "SET LOCAL " : "SET ");
    append_name(sql, name);
    append_text(sql, " TO ");
    append_text(sql, value);
    append_text(sql, ";");
}

/* All but role and session authorization. True: there was something. */
static bool ordinary_difference(const struct guc_set *from, const struct guc_set *to,
                                struct buffer *sql)
{
    size_t before = buffer_length(sql);
    int i = 0, j = 0, from_count = guc_set_count(from), to_count = guc_set_count(to);
    while (i < from_count || j < to_count) {
        int order = i == from_count ? 1
                    : j == to_count ? -1
                                    : strcmp(from->items[i].name, to->items[j].name);
        const struct guc *old = order <= 0 ? &from->items[i++] : NULL;
        const struct guc *new = order >= 0 ? &to->items[j++] : NULL;
        if (is_identity((old ? old : new)->name))
            continue;
        if (!new)
            append_reset(sql, false, old->name);
        else if (!old || strcmp(old->value, new->value) != 0)
            append_set(sql, false, new->name, new->value);
    }
    return buffer_length(sql) > before;
}

static bool same_value(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

/*
 * What one may set depends on who one is, and a new session authorization forgets the role. So other
 * settings change under the login user, and then come the authorization and, last, the role.
 */
void guc_difference(const struct guc_set *from, const struct guc_set *to, struct buffer *sql)
{
    const char *from_user = guc_set_get(from, AUTHORIZATION), *from_role = guc_set_get(from, ROLE);
    const char *to_user = guc_set_get(to, AUTHORIZATION), *to_role = guc_set_get(to, ROLE);
    struct buffer ordinary = {0};
    bool others = ordinary_difference(from, to, &ordinary);
    if (from_user && (others || !same_value(from_user, to_user))) {
        append_text(sql, "RESET SESSION AUTHORIZATION;");
        from_user = from_role = NULL;
    } else if (from_role &&
               (others || !same_value(from_role, to_role) || (to_user && !from_user))) {
        append_text(sql, "RESET ROLE;");
        from_role = NULL;
    }
    buffer_append(sql, buffer_head(&ordinary), buffer_length(&ordinary));
    buffer_release(&ordinary);
    if (to_user && !same_value(from_user, to_user))
        append_set(sql, false, AUTHORIZATION, to_user);
    if (to_role && !same_value(from_role, to_role))
        append_set(sql, false, ROLE, to_role);
}

/* ---- changes of a transaction ---- */

static struct guc_change *add(struct guc_pending *pending)
{
    if (pending->count == pending->capacity) {
        pending->capacity = pending->capacity ? pending->capacity * 2 : 4;
        pending->items =
            mem_realloc(pending->items, sizeof *pending->items * (size_t)pending->capacity);
    }
    struct guc_change *change = &pending->items[pending->count++];
    *change = (struct guc_change){0};
    return change;
}

/* They belong to one transaction, however they are set. */
static bool ends_with_transaction(const char *name)
{
    return strcmp(name, "transaction_isolation") == 0 ||
           strcmp(name, "transaction_read_only") == 0 ||
           strcmp(name, "transaction_deferrable") == 0;
}

void guc_pending_add(struct guc_pending *pending, bool local, const char *name, const char *value)
{
    struct guc_change *change = add(pending);
    change->local = local || ends_with_transaction(name);
    change->name = mem_strdup(name);
    change->value = value ? mem_strdup(value) : NULL;
}

void guc_pending_add_kind(struct guc_pending *pending, enum guc_change_kind kind)
{
    add(pending)->kind = kind;
}

void guc_pending_truncate(struct guc_pending *pending, int count)
{
    while (pending->count > count) {
        struct guc_change *change = &pending->items[--pending->count];
        free(change->name);
        free(change->value);
    }
}

static void reset_all(const struct guc_set *startup, struct guc_set **set)
{
    guc_set_reset_all(set);
    for (int i = 0; i < guc_set_count(startup); i++)
        if (!is_identity(startup->items[i].name))
            guc_set_put(set, startup->items[i].name, startup->items[i].value);
}

void guc_pending_apply(const struct guc_pending *pending, const struct guc_set *startup,
                       struct guc_set **set)
{
    for (int i = 0; i < pending->count; i++) {
        const struct guc_change *change = &pending->items[i];
        if (change->local)
            continue;
        switch (change->kind) {
        case GUC_SET:
            put_change(set, change->name,
                       change->value ? change->value : guc_set_get(startup, change->name));
            break;
        case GUC_RESET_ALL:
            reset_all(startup, set);
            break;
        case GUC_DISCARD_ALL:
            guc_set_assign(set, (struct guc_set *)startup);
            break;
        }
    }
}

const struct guc_change *guc_pending_last(const struct guc_pending *pending, const char *name)
{
    for (int i = pending->count - 1; i >= 0; i--) {
        const struct guc_change *change = &pending->items[i];
        bool concerns = change->kind == GUC_SET         ? strcmp(change->name, name) == 0
                        : change->kind == GUC_RESET_ALL ? !is_identity(name)
                                                        : true;
        if (!change->local && concerns)
            return change;
    }
    return NULL;
}

void guc_pending_sql(const struct guc_pending *pending, int from, int to, struct buffer *sql)
{
    for (int i = from; i < to; i++) {
        const struct guc_change *change = &pending->items[i];
        if (change->kind != GUC_SET)
            append_text(sql, "RESET ALL;");
        else if (change->value)
            append_set(sql, change->local, change->name, change->value);
        else
            append_reset(sql, change->local, change->name);
    }
}

void guc_pending_free(struct guc_pending *pending)
{
    if (!pending->items)
        return;
    guc_pending_truncate(pending, 0);
    free(pending->items);
    *pending = (struct guc_pending){0};
}
