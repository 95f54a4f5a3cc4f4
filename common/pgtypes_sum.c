/* pgtypes_sum.c: adding partial sums and dividing them, with Postgres' results and its overflows. */
#include "pgshunt/pgtypes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/pgnumeric.h"
#include "common/pgtypes_internal.h"
#include "pgshunt/arena.h"

bool pg_sum_init(struct pg_sum *sum, uint32_t oid, int format)
{
    *sum = (struct pg_sum){.oid = oid, .format = format};
    if (format < 0 || format > 1)
        return false;
    return oid == OID_INT8 || oid == OID_NUMERIC || oid == OID_FLOAT4 || oid == OID_FLOAT8 ||
           oid == OID_INTERVAL || (oid == OID_MONEY && format == 1);
}

void pg_sum_free(struct pg_sum *sum)
{
    if (sum->oid == OID_NUMERIC && sum->numeric) {
        numeric_clear(sum->numeric);
        free(sum->numeric);
        sum->numeric = NULL;
    }
}

static enum pg_status add_integer(struct pg_sum *sum, const char *bytes, int32_t length)
{
    int64_t value;
    if (sum->format && length != 8)
        return PG_MALFORMED;
    if (sum->format)
        value = get64(bytes);
    else if (!integer_parse(bytes, length, &value))
        return PG_MALFORMED;
    return __builtin_add_overflow(sum->integer, value, &sum->integer) ? PG_OUT_OF_RANGE : PG_OK;
}

static enum pg_status add_numeric(struct pg_sum *sum, const char *bytes, int32_t length)
{
    if (!sum->numeric) {
        sum->numeric = mem_alloc(sizeof *sum->numeric);
        numeric_init(sum->numeric);
    }
    struct numeric term;
    numeric_init(&term);
    bool valid = numeric_read(&term, sum->format, bytes, length);
    if (valid)
        numeric_add(sum->numeric, &term);
    numeric_clear(&term);
    return valid ? PG_OK : PG_MALFORMED;
}

static enum pg_status add_double(struct pg_sum *sum, double value)
{
    double total = sum->real + value;
    if (isinf(total) && !isinf(sum->real) && !isinf(value))
        return PG_OUT_OF_RANGE;
    sum->real = total;
    return PG_OK;
}

static enum pg_status add_float4(struct pg_sum *sum, const char *bytes, int32_t length)
{
    float value;
    if (!float4_read(sum->format, bytes, length, &value))
        return PG_MALFORMED;
    float total = sum->single + value;
    if (isinf(total) && !isinf(sum->single) && !isinf(value))
        return PG_OUT_OF_RANGE;
    sum->single = total;
    return PG_OK;
}

static enum pg_status add_interval(struct pg_sum *sum, const char *bytes, int32_t length)
{
    struct interval term;
    if (!interval_read(sum->format, bytes, length, &term))
        return PG_MALFORMED;
    if (__builtin_add_overflow(sum->interval.time, term.time, &sum->interval.time) ||
        __builtin_add_overflow(sum->interval.days, term.days, &sum->interval.days) ||
        __builtin_add_overflow(sum->interval.months, term.months, &sum->interval.months))
        return PG_OUT_OF_RANGE;
    return PG_OK;
}

enum pg_status pg_sum_add(struct pg_sum *sum, const char *bytes, int32_t length)
{
    double value;
    if (length < 0)
        return PG_OK;
    /* Adding the first value to 0 would lose a minus zero: -0 + 0 is 0. */
    if (!sum->any && sum->oid == OID_FLOAT8)
        sum->real = -0.0;
    if (!sum->any && sum->oid == OID_FLOAT4)
        sum->single = -0.0F;
    sum->any = true;
    switch (sum->oid) {
    case OID_NUMERIC:
        return add_numeric(sum, bytes, length);
    case OID_FLOAT8:
        if (!float8_read(sum->format, bytes, length, &value))
            return PG_MALFORMED;
        return add_double(sum, value);
    case OID_FLOAT4:
        return add_float4(sum, bytes, length);
    case OID_INTERVAL:
        return add_interval(sum, bytes, length);
    default:
        return add_integer(sum, bytes, length);
    }
}

enum pg_status pg_sum_add_weighted(struct pg_sum *sum, const char *bytes, int32_t length,
                                   int64_t count)
{
    double value;
    if (length < 0)
        return PG_OK;
    if (sum->oid != OID_FLOAT8 || !float8_read(sum->format, bytes, length, &value))
        return PG_MALFORMED;
    sum->any = true;
    return add_double(sum, value * (double)count);
}

const char *pg_sum_overflow_message(uint32_t oid)
{
    switch (oid) {
    case OID_NUMERIC:
        return "value overflows numeric format";
    case OID_FLOAT4:
    case OID_FLOAT8:
        return "value out of range: overflow";
    case OID_INTERVAL:
        return "interval out of range";
    case OID_MONEY:
        return "money out of range";
    default:
        return "bigint out of range";
    }
}

const char *pg_sum_overflow_state(uint32_t oid)
{
    return oid == OID_INTERVAL ? "22008" : "22003";
}

/* ---- writing ---- */

static void put64(struct buffer *out, int64_t value)
{
    char bytes[8];
    wire_set32(bytes, (uint32_t)((uint64_t)value >> 32));
    wire_set32(bytes + 4, (uint32_t)value);
    buffer_append(out, bytes, sizeof bytes);
}

static void put32(struct buffer *out, uint32_t value)
{
    char bytes[4];
    wire_set32(bytes, value);
    buffer_append(out, bytes, sizeof bytes);
}

static void put_double(double value, int format, struct buffer *out)
{
    int64_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (format)
        put64(out, bits);
    else
        float8_format(value, out);
}

static void put_float(float value, int format, struct buffer *out)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (format)
        put32(out, bits);
    else
        float4_format(value, out);
}

static void put_interval(const struct pg_sum *sum, struct buffer *out)
{
    struct interval value = {sum->interval.time, sum->interval.days, sum->interval.months};
    if (!sum->format) {
        interval_format(&value, out);
        return;
    }
    put64(out, value.time);
    put32(out, (uint32_t)value.days);
    put32(out, (uint32_t)value.months);
}

/* printf takes most of the time where there are millions of them. */
static void put_decimal(int64_t value, struct buffer *out)
{
    char digits[20];
    int at = sizeof digits;
    uint64_t rest = value < 0 ? -(uint64_t)value : (uint64_t)value;
    do
        digits[--at] = (char)('0' + rest % 10);
    while (rest /= 10);
    if (value < 0)
        digits[--at] = '-';
    buffer_append(out, digits + at, sizeof digits - (size_t)at);
}

static bool put_value(const struct pg_sum *sum, struct buffer *out)
{
    switch (sum->oid) {
    case OID_NUMERIC:
        return numeric_write(sum->numeric, sum->format, out);
    case OID_FLOAT8:
        put_double(sum->real, sum->format, out);
        break;
    case OID_FLOAT4:
        put_float(sum->single, sum->format, out);
        break;
    case OID_INTERVAL:
        put_interval(sum, out);
        break;
    default:
        if (sum->format)
            put64(out, sum->integer);
        else
            put_decimal(sum->integer, out);
        break;
    }
    return true;
}

/* Room for the length of a value; set_length fills it in when the value is behind it. */
static size_t begin_value(struct buffer *out)
{
    put32(out, UINT32_MAX);
    return buffer_length(out);
}

static void set_length(struct buffer *out, size_t begin)
{
    wire_set32(buffer_head(out) + begin - 4, (uint32_t)(buffer_length(out) - begin));
}

enum pg_status pg_sum_append(const struct pg_sum *sum, struct buffer *out)
{
    size_t begin = begin_value(out);
    if (!sum->any)
        return PG_OK;
    if (!put_value(sum, out))
        return PG_OUT_OF_RANGE;
    set_length(out, begin);
    return PG_OK;
}

/* ---- averages ---- */

bool pg_average_known(uint32_t result, uint32_t sum)
{
    if (result == OID_FLOAT8)
        return sum == OID_FLOAT8 || sum == OID_FLOAT4;
    return result == OID_NUMERIC && (sum == OID_NUMERIC || sum == OID_INT8);
}

static bool put_quotient(const struct pg_sum *sum, int64_t count, int format, struct buffer *out)
{
    struct numeric total, divisor, quotient;
    numeric_init(&total);
    numeric_init(&divisor);
    numeric_init(&quotient);
    numeric_set_int64(&divisor, count);
    if (sum->oid == OID_INT8)
        numeric_set_int64(&total, sum->integer);
    numeric_divide(&quotient, sum->oid == OID_INT8 ? &total : sum->numeric, &divisor);
    bool fits = numeric_write(&quotient, format, out);
    numeric_clear(&total);
    numeric_clear(&divisor);
    numeric_clear(&quotient);
    return fits;
}

enum pg_status pg_average_append(const struct pg_sum *sum, int64_t count, int format,
                                 struct buffer *out)
{
    size_t begin = begin_value(out);
    if (!count || !sum->any)
        return PG_OK;
    if (sum->oid == OID_FLOAT8)
        put_double(sum->real / (double)count, format, out);
    else if (!put_quotient(sum, count, format, out))
        return PG_OUT_OF_RANGE;
    set_length(out, begin);
    return PG_OK;
}
