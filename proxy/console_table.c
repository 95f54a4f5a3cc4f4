/* console_table.c: the console's results as RowDescription and DataRow messages, text or binary. */
#include "proxy/console_table.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/wire.h"

#define NUMERIC_BASE 10000
#define NUMERIC_DIGITS 5 /* base 10000 digits of the largest int64 */
#define NUMERIC_NEGATIVE 0x4000

static uint32_t type_oid(enum console_type type)
{
    switch (type) {
    case CONSOLE_BOOL:
        return 16;
    case CONSOLE_INT4:
        return 23;
    case CONSOLE_INT8:
        return 20;
    case CONSOLE_NUMERIC:
        return 1700;
    case CONSOLE_TEXT:
        break;
    }
    return 25;
}

static int type_size(enum console_type type)
{
    switch (type) {
    case CONSOLE_BOOL:
        return 1;
    case CONSOLE_INT4:
        return 4;
    case CONSOLE_INT8:
        return 8;
    case CONSOLE_NUMERIC:
    case CONSOLE_TEXT:
        break;
    }
    return -1;
}

static bool is_binary(const int16_t *formats, int nformats, int column)
{
    if (nformats == 0)
        return false;
    return formats[nformats == 1 ? 0 : column] == 1;
}

void console_put_columns(struct buffer *out, const struct console_column *columns, int ncolumns,
                         const int16_t *formats, int nformats)
{
    size_t begin = wire_begin(out, 'T');
    wire_put16(out, ncolumns);
    for (int i = 0; i < ncolumns; i++) {
        wire_put_cstring(out, columns[i].name);
        wire_put32(out, 0); /* of no table */
        wire_put16(out, 0);
        wire_put32(out, type_oid(columns[i].type));
        wire_put16(out, type_size(columns[i].type));
        wire_put32(out, -1);
        wire_put16(out, is_binary(formats, nformats, i));
    }
    wire_end(out, begin);
}

void console_table_init(struct console_table *table, const struct console_column *columns,
                        int ncolumns)
{
    *table = (struct console_table){.columns = columns, .ncolumns = ncolumns};
}

void console_table_free(struct console_table *table)
{
    buffer_release(&table->rows);
}

/* ---- cells ---- */

static void begin_cell(struct console_table *table)
{
    if (table->at)
        return;
    table->begin = wire_begin(&table->rows, 'D');
    wire_put16(&table->rows, table->ncolumns);
}

static void end_cell(struct console_table *table)
{
    if (++table->at < table->ncolumns)
        return;
    wire_end(&table->rows, table->begin);
    table->at = 0;
    table->count++;
}

static void put_cell(struct console_table *table, const void *bytes, size_t length)
{
    begin_cell(table);
    wire_put32(&table->rows, (int64_t)length);
    wire_put_bytes(&table->rows, bytes, length);
    end_cell(table);
}

static bool cell_is_binary(const struct console_table *table)
{
    return is_binary(table->formats, table->nformats, table->at);
}

static enum console_type cell_type(const struct console_table *table)
{
    return table->columns[table->at].type;
}

void console_null(struct console_table *table)
{
    begin_cell(table);
    wire_put32(&table->rows, -1);
    end_cell(table);
}

void console_text(struct console_table *table, const char *text)
{
    if (cell_type(table) != CONSOLE_TEXT)
        abort();
    if (text)
        put_cell(table, text, strlen(text));
    else
        console_null(table);
}

void console_bool(struct console_table *table, bool value)
{
    if (cell_type(table) != CONSOLE_BOOL)
        abort();
    char binary = value ? 1 : 0;
    if (cell_is_binary(table))
        put_cell(table, &binary, 1);
    else
        put_cell(table, value ? "t" : "f", 1);
}

/* numeric_send(): digit count, weight of the first digit, sign, scale, digits in base 10000. */
static void put_binary_numeric(struct console_table *table, int64_t value)
{
    int digits[NUMERIC_DIGITS], count = 0;
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    for (; rest; rest /= NUMERIC_BASE)
        digits[count++] = (int)(rest % NUMERIC_BASE);
    begin_cell(table);
    wire_put32(&table->rows, 8 + 2 * count);
    wire_put16(&table->rows, count);
    wire_put16(&table->rows, count ? count - 1 : 0);
    wire_put16(&table->rows, value < 0 ? NUMERIC_NEGATIVE : 0);
    wire_put16(&table->rows, 0);
    while (count)
        wire_put16(&table->rows, digits[--count]);
    end_cell(table);
}

static void put_binary_integer(struct console_table *table, int size, int64_t value)
{
    begin_cell(table);
    wire_put32(&table->rows, size);
    if (size == 4)
        wire_put32(&table->rows, value);
    else
        wire_put64(&table->rows, value);
    end_cell(table);
}

static int64_t into_range(int64_t value, int64_t low, int64_t high)
{
    return value < low ? low : value > high ? high : value;
}

void console_integer(struct console_table *table, int64_t value)
{
    enum console_type type = cell_type(table);
    char text[32];
    if (type == CONSOLE_TEXT || type == CONSOLE_BOOL)
        abort();
    if (type == CONSOLE_INT4)
        value = into_range(value, INT32_MIN, INT32_MAX);
    if (!cell_is_binary(table)) {
        int length = snprintf(text, sizeof text, "%" PRId64, value);
        put_cell(table, text, (size_t)length);
    } else if (type == CONSOLE_NUMERIC) {
        put_binary_numeric(table, value);
    } else {
        put_binary_integer(table, type_size(type), value);
    }
}
