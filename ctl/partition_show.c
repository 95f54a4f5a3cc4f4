/* partition_show.c: policies and partitions as tables, as a timeline, and as JSON. */
#include "ctl/partition_show.h"

#include <stdio.h>
#include <string.h>

#define CELL 64

static const char *size_text(int64_t bytes, char text[CELL])
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
    double value = (double)bytes;
    int unit = 0;
    for (; value >= 10240 && unit < 5; unit++)
        value /= 1024;
    snprintf(text, CELL, "%.0f %s", value, units[unit]);
    return text;
}

static const char *number_text(int64_t number, char text[CELL])
{
    snprintf(text, CELL, "%lld", (long long)number);
    return text;
}

/* ---- JSON ---- */

static json_t *text_json(const char *text)
{
    return text ? json_string(text) : json_null();
}

static json_t *partition_json(const struct partition_shown *partition)
{
    json_t *object = json_object();
    json_object_set_new(object, "name", text_json(partition->name));
    json_object_set_new(object, "from", text_json(partition->from));
    json_object_set_new(object, "to", text_json(partition->to));
    json_object_set_new(object, "state", text_json(partition->state));
    json_object_set_new(object, "bytes", json_integer(partition->bytes));
    json_object_set_new(object, "rows",
                        partition->rows < 0 ? json_null() : json_integer(partition->rows));
    json_object_set_new(object, "parts", json_integer(partition->parts));
    json_object_set_new(object, "shards", text_json(partition->shards));
    return object;
}

static json_t *table_json(const struct partition_table *table, bool details)
{
    json_t *object = json_object(), *partitions = json_array();
    json_object_set_new(object, "table", text_json(table->table));
    json_object_set_new(object, "by", text_json(table->by));
    json_object_set_new(object, "every", text_json(table->every));
    json_object_set_new(object, "keep", text_json(table->keep));
    json_object_set_new(object, "on_expiry", text_json(table->on_expiry));
    json_object_set_new(object, "timezone", text_json(table->timezone));
    json_object_set_new(object, "sub", text_json(table->sub));
    json_object_set_new(object, "ahead", json_integer(table->ahead));
    json_object_set_new(object, "have_ahead", json_integer(table->have_ahead));
    json_object_set_new(object, "until", text_json(table->until));
    json_object_set_new(object, "next_creation", text_json(table->next_creation));
    json_object_set_new(object, "next_expiry", text_json(table->next_expiry));
    json_object_set_new(object, "bytes", json_integer(table->bytes));
    json_object_set_new(object, "bytes_to_expire", json_integer(table->bytes_to_expire));
    json_object_set_new(object, "default_rows", json_integer(table->default_rows));
    for (int i = 0; i < table->npartitions; i++)
        json_array_append_new(partitions, partition_json(&table->partitions[i]));
    if (details)
        json_object_set(object, "partitions", partitions);
    json_decref(partitions);
    return object;
}

static void print_json(const struct partition_survey *survey, bool details)
{
    json_t *all = json_object(), *tables = json_array();
    for (int i = 0; i < survey->ntables; i++)
        json_array_append_new(tables, table_json(&survey->tables[i], details));
    json_object_set_new(all, "tables", tables);
    json_object_set_new(all, "last_run", text_json(survey->last_run));
    json_object_set_new(all, "last_outcome", text_json(survey->last_outcome));
    ctl_print_json(all);
}

/* ---- for people ---- */

static void print_tables(const struct partition_survey *survey)
{
    static const char *const columns[] = {"table", "by",     "every", "ahead", "until",
                                          "keep",  "expiry", "size",  "to go", "in default"};
    struct ctl_table *shown = ctl_table_new(columns, 10);
    for (int i = 0; i < survey->ntables; i++) {
        const struct partition_table *table = &survey->tables[i];
        char ahead[CELL], size[CELL], going[CELL], rest[CELL];
        snprintf(ahead, sizeof ahead, "%d of %d", table->have_ahead, table->ahead);
        const char *cells[] = {
            table->table,
            table->by,
            table->every,
            ahead,
            table->until,
            table->keep,
            table->on_expiry,
            size_text(table->bytes, size),
            table->bytes_to_expire ? size_text(table->bytes_to_expire, going) : "",
            table->default_rows ? number_text(table->default_rows, rest) : "",
        };
        for (size_t j = 0; j < sizeof cells / sizeof *cells; j++)
            ctl_table_add(shown, cells[j]);
    }
    ctl_table_print(shown);
    ctl_table_free(shown);
}

static void print_partitions(const struct partition_table *table)
{
    static const char *const columns[] = {"partition", "from", "to",    "state",
                                          "rows",      "size", "shards"};
    struct ctl_table *shown = ctl_table_new(columns, 7);
    for (int i = 0; i < table->npartitions; i++) {
        const struct partition_shown *partition = &table->partitions[i];
        char rows[CELL], size[CELL];
        const char *cells[] = {
            partition->name,
            partition->from ? partition->from : "",
            partition->to ? partition->to : "",
            partition->state,
            partition->rows < 0 ? "" : number_text(partition->rows, rows),
            size_text(partition->bytes, size),
            partition->shards,
        };
        for (size_t j = 0; j < sizeof cells / sizeof *cells; j++)
            ctl_table_add(shown, cells[j]);
    }
    ctl_table_print(shown);
    ctl_table_free(shown);
}

static void print_policy(const struct partition_table *table)
{
    printf("%s by %s every %s, %d of %d ahead, in %s\n", table->table, table->by, table->every,
           table->have_ahead, table->ahead, table->timezone);
    if (table->sub)
        printf("each partition is divided by %s\n", table->sub);
    printf("rows have partitions up to %s; the next is made at %s\n",
           table->until ? table->until : "?", table->next_creation ? table->next_creation : "?");
    if (table->next_expiry)
        printf("kept for %s, then %s; the oldest expires at %s\n", table->keep, table->on_expiry,
               table->next_expiry);
    else
        printf("kept %s\n", strcmp(table->keep, "forever") == 0 ? "forever" : table->keep);
    puts("");
}

void partition_show(const struct ctl *ctl, const struct partition_survey *survey, bool one,
                    bool details)
{
    if (ctl->json) {
        print_json(survey, details);
        return;
    }
    if (!one && survey->ntables)
        print_tables(survey);
    for (int i = 0; details && i < survey->ntables; i++) {
        if (!one)
            puts("");
        print_policy(&survey->tables[i]);
        print_partitions(&survey->tables[i]);
    }
    if (!one && survey->last_run)
        printf("\nlast run: %s, %s\n", survey->last_run, survey->last_outcome);
}
