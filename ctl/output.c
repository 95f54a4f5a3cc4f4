/* output.c: what pgshuntctl prints: tables, JSON, progress. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ctl/ctl.h"
#include "pgshunt/arena.h"

/* ---- tables ---- */

struct ctl_table {
    struct arena arena;
    const char *const *columns;
    int ncolumns;
    const char **cells;
    int count, room;
};

struct ctl_table *ctl_table_new(const char *const *columns, int ncolumns)
{
    struct ctl_table *table = mem_alloc(sizeof *table);
    arena_init(&table->arena);
    table->columns = columns;
    table->ncolumns = ncolumns;
    return table;
}

void ctl_table_add(struct ctl_table *table, const char *cell)
{
    if (table->count == table->room) {
        table->room = table->room ? table->room * 2 : 64;
        table->cells = mem_realloc(table->cells, sizeof *table->cells * (size_t)table->room);
    }
    table->cells[table->count++] = cell ? arena_strdup(&table->arena, cell) : NULL;
}

int ctl_table_rows(const struct ctl_table *table)
{
    return table->count / table->ncolumns;
}

static const char *cell_text(const struct ctl_table *table, int row, int column)
{
    const char *cell =
        row < 0 ? table->columns[column] : table->cells[row * table->ncolumns + column];
    return cell ? cell : "";
}

/* In characters: what is no UTF-8 continuation. */
static int width_of(const char *text)
{
    int width = 0;
    for (; *text; text++)
        width += ((unsigned char)*text & 0xc0) != 0x80;
    return width;
}

static int column_width(const struct ctl_table *table, int column)
{
    int widest = 0;
    for (int row = -1; row < ctl_table_rows(table); row++) {
        int width = width_of(cell_text(table, row, column));
        widest = width > widest ? width : widest;
    }
    return widest;
}

void ctl_table_print(const struct ctl_table *table)
{
    for (int row = -1; row < ctl_table_rows(table); row++)
        for (int column = 0; column < table->ncolumns; column++) {
            const char *text = cell_text(table, row, column);
            bool last = column == table->ncolumns - 1;
            int pad = last ? 0 : column_width(table, column) - width_of(text) + 2;
            printf("%s%*s%s", text, pad, "", last ? "\n" : "");
        }
}

/* Numbers and truths stay texts but for what is plainly one. */
static json_t *cell_json(const char *cell)
{
    char *end;
    if (!cell)
        return json_null();
    long long number = strtoll(cell, &end, 10);
    if (*cell && !*end && strlen(cell) < 19)
        return json_integer(number);
    if (strcmp(cell, "yes") == 0 || strcmp(cell, "no") == 0)
        return json_boolean(*cell == 'y');
    json_t *text = json_string(cell);
    return text ? text : json_string("(not UTF-8)");
}

json_t *ctl_table_json(const struct ctl_table *table)
{
    json_t *rows = json_array();
    for (int row = 0; row < ctl_table_rows(table); row++) {
        json_t *object = json_object();
        for (int column = 0; column < table->ncolumns; column++)
            json_object_set_new(object, table->columns[column],
                                cell_json(table->cells[row * table->ncolumns + column]));
        json_array_append_new(rows, object);
    }
    return rows;
}

void ctl_table_free(struct ctl_table *table)
{
    arena_free(&table->arena);
    free(table->cells);
    free(table);
}

void ctl_print_json(json_t *json)
{
    json_dumpf(json, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(json);
}

/* ---- progress ---- */

static bool line_open;

static void close_line(void)
{
    if (line_open)
        putchar('\n');
    line_open = false;
}

void ctl_progress_begin(const char *step, const char *text)
{
    if (!isatty(STDOUT_FILENO))
        return;
    printf("  %-13s %s ...", step, text);
    fflush(stdout);
    line_open = true;
}

void ctl_progress_end(const char *step, const char *text, const char *how)
{
    printf("%s  %-13s %s: %s\n", line_open ? "\r\033[K" : "", step, text, how);
    fflush(stdout); /* whoever reads a pipe wants to see it now */
    line_open = false;
}

void ctl_line(const char *indent, const char *text)
{
    close_line();
    while (*text) {
        size_t length = strcspn(text, "\n");
        printf("%s%.*s\n", indent, (int)length, text);
        text += length + (text[length] == '\n');
    }
    fflush(stdout);
}
