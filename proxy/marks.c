/* marks.c: the prepared statements a server connection has, least recently used last. */
#include "proxy/marks.h"

#include <stdlib.h>

#include "pgshunt/arena.h"

void marks_init(struct marks *marks)
{
    *marks = (struct marks){0};
    list_init(&marks->order);
}

/* The key is a hash already. */
static struct mark *find(const struct marks *marks, const struct prepared_key *key)
{
    struct mark *mark;
    HASH_FIND_BYHASHVALUE(hh, marks->entries, key, sizeof *key, (unsigned)key->low, mark);
    return mark;
}

static void drop(struct marks *marks, struct mark *mark)
{
    if (!mark->closing)
        marks->count--;
    list_remove(&mark->order);
    HASH_DEL(marks->entries, mark);
    free(mark);
}

void marks_clear(struct marks *marks)
{
    struct mark *mark, *next;
    HASH_ITER(hh, marks->entries, mark, next)
    drop(marks, mark);
}

enum marked marks_look(const struct marks *marks, const struct prepared *prepared, uint32_t path)
{
    const struct mark *mark = find(marks, &prepared->key);
    if (!mark || mark->closing)
        return MARK_NONE;
    return mark->generation == prepared->generation && mark->path == path ? MARK_HELD : MARK_STALE;
}

void marks_use(struct marks *marks, const struct prepared *prepared)
{
    struct mark *mark = find(marks, &prepared->key);
    if (!mark || mark->closing || marks->order.next == &mark->order)
        return;
    list_remove(&mark->order);
    list_push_front(&marks->order, &mark->order);
}

void marks_add(struct marks *marks, const struct prepared *prepared, uint32_t path)
{
    struct mark *mark = find(marks, &prepared->key);
    if (!mark) {
        mark = mem_alloc(sizeof *mark);
        mark->key = prepared->key;
        mark->closing = true;
        list_init(&mark->order);
        HASH_ADD_BYHASHVALUE(hh, marks->entries, key, sizeof mark->key, (unsigned)mark->key.low,
                             mark);
    }
    mark->generation = prepared->generation;
    mark->path = path;
    marks_kept(marks, &mark->key);
}

struct mark *marks_surplus(struct marks *marks, int limit)
{
    if (marks->count <= limit || list_empty(&marks->order))
        return NULL;
    return list_entry(marks->order.prev, struct mark, order);
}

void marks_closing(struct marks *marks, const struct prepared_key *key)
{
    struct mark *mark = find(marks, key);
    if (!mark || mark->closing)
        return;
    mark->closing = true;
    list_remove(&mark->order);
    marks->count--;
}

void marks_closed(struct marks *marks, const struct prepared_key *key)
{
    struct mark *mark = find(marks, key);
    if (mark && mark->closing)
        drop(marks, mark);
}

void marks_kept(struct marks *marks, const struct prepared_key *key)
{
    struct mark *mark = find(marks, key);
    if (!mark || !mark->closing)
        return;
    mark->closing = false;
    list_push_front(&marks->order, &mark->order);
    marks->count++;
}
