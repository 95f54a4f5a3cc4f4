/*
 * console_table.h: a result of the console's, built cell by cell into DataRow messages. Pure.
 *
 *   console_text(table, name);  console_integer(table, port);  ...
 *
 * Cells go into the columns from left to right; behind the last one the row is complete and the next
 * cell begins another. Each cell has to be of its column's type: a number in a text column or the other
 * way round is a programming error and aborts.
 */
#ifndef PGSHUNT_PROXY_CONSOLE_TABLE_H
#define PGSHUNT_PROXY_CONSOLE_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pgshunt/buffer.h"

enum console_type {
    CONSOLE_TEXT = 's',
    CONSOLE_BOOL = 'b',
    CONSOLE_INT4 = 'i',
    CONSOLE_INT8 = 'q',
    CONSOLE_NUMERIC = 'N', /* whole numbers only */
};

struct console_column {
    const char *name;
    enum console_type type;
};

struct console_table {
    struct buffer rows; /* owned: see console_table_free */
    const struct console_column *columns;
    int ncolumns;
    /* Result format codes as Bind has them: none: all text, one: for all, else one per column. */
    const int16_t *formats;
    int nformats;
    uint64_t count; /* complete rows */
    int at;         /* column of the next cell */
    size_t begin;   /* of the message being built */
};

void console_table_init(struct console_table *table, const struct console_column *columns,
                        int ncolumns);
void console_table_free(struct console_table *table);

void console_text(struct console_table *table, const char *text); /* NULL: SQL NULL */
void console_null(struct console_table *table);
void console_bool(struct console_table *table, bool value);
/* Into any column of a number type; what an int4 column cannot hold becomes its limit. */
void console_integer(struct console_table *table, int64_t value);

/* RowDescription of the columns in the given formats. */
void console_put_columns(struct buffer *out, const struct console_column *columns, int ncolumns,
                         const int16_t *formats, int nformats);

#endif
