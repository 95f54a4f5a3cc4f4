/* report_prepared.c: the prepared statements that the workers know by content, as rows of a report. */
#include <string.h>

#include "proxy/report.h"

/* At most so many, each with so much of its text: a report is to stay small whatever clients prepare. */
#define ROWS_MAX 1000
#define TEXT_MAX 1000

static const char *beginning(struct arena *arena, const char *sql)
{
    char text[TEXT_MAX + 4];
    size_t length = strnlen(sql, TEXT_MAX + 1);
    if (length <= TEXT_MAX)
        return report_text(arena, sql);
    memcpy(text, sql, TEXT_MAX);
    length = TEXT_MAX;
    while (length && ((unsigned char)text[length - 1] & 0xc0) == 0x80)
        length--; /* the character that was cut in two */
    if (length && (unsigned char)text[length - 1] >= 0xc0)
        length--;
    memcpy(text + length, "...", 4);
    return report_text(arena, text);
}

static struct report_prepared *find(const struct report *report, const struct prepared_key *key)
{
    struct report_prepared *row;
    HASH_FIND(hh, report->prepared, key, sizeof *key, row);
    return row;
}

static void add(struct report *report, const struct prepared *prepared)
{
    struct report_prepared *row = find(report, &prepared->key);
    if (!row && HASH_COUNT(report->prepared) >= ROWS_MAX)
        return;
    if (!row) {
        row = arena_new(&report->arena, struct report_prepared);
        row->key = prepared->key;
        row->name = arena_strdup(&report->arena, prepared->server_name);
        row->statement = beginning(&report->arena, prepared->sql);
        HASH_ADD(hh, report->prepared, key, sizeof row->key, row);
    }
    row->references += prepared->references;
    row->workers++;
}

/* Those in use first: where not all have room, what only waits to be used again is left out. */
static void add_table(struct report *report, const struct prepared_table *table, bool used)
{
    for (const struct prepared *at = table->entries; at; at = at->hh.next)
        if ((at->references > 0) == used)
            add(report, at);
}

static void count_marks(struct report *report, const struct marks *marks)
{
    for (const struct mark *mark = marks->entries; mark; mark = mark->hh.next) {
        struct report_prepared *row = find(report, &mark->key);
        if (row && !mark->closing)
            row->servers++;
    }
}

void report_list_prepared(struct report *report, struct worker *worker)
{
    add_table(report, &worker->prepared, true);
    add_table(report, &worker->prepared, false);
    list_each(at, following, &worker->servers)
    {
        count_marks(report, &list_entry(at, struct server, all)->marks);
    }
}
