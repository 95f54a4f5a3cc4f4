/*
 * pgtypes.h: type oids, and comparing and adding values in wire form exactly as Postgres does.
 *
 * A value is what a DataRow holds: bytes and a length, in text (format 0) or binary (format 1); SQL
 * NULL is length -1. Comparing goes in two steps, so that a merge decodes each value once:
 *
 *   pg_order_init(type, format, collation) -> pg_order_decode(value) -> pg_order_compare(key, key)
 *
 * Types that have no entry in the table (enums, jsonb, arrays, whatever an extension brings) have no
 * order here, because the wire does not carry what their order depends on; pg_order_init says so and
 * never guesses. Equality (GROUP BY, DISTINCT) knows more types: see pg_order_init_equal.
 */
#ifndef PGSHUNT_PGTYPES_H
#define PGSHUNT_PGTYPES_H

#include <locale.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pgshunt/buffer.h"

enum {
    OID_BOOL = 16,
    OID_BYTEA = 17,
    OID_CHAR = 18,
    OID_NAME = 19,
    OID_INT8 = 20,
    OID_INT2 = 21,
    OID_INT4 = 23,
    OID_TEXT = 25,
    OID_OID = 26,
    OID_TID = 27,
    OID_XID = 28,
    OID_CID = 29,
    OID_JSON = 114,
    OID_CIDR = 650,
    OID_FLOAT4 = 700,
    OID_FLOAT8 = 701,
    OID_UNKNOWN = 705,
    OID_MACADDR8 = 774,
    OID_MONEY = 790,
    OID_MACADDR = 829,
    OID_INET = 869,
    OID_BPCHAR = 1042,
    OID_VARCHAR = 1043,
    OID_DATE = 1082,
    OID_TIME = 1083,
    OID_TIMESTAMP = 1114,
    OID_TIMESTAMPTZ = 1184,
    OID_INTERVAL = 1186,
    OID_TIMETZ = 1266,
    OID_BIT = 1560,
    OID_VARBIT = 1562,
    OID_NUMERIC = 1700,
    OID_UUID = 2950,
    OID_PG_LSN = 3220,
    OID_JSONB = 3802,
    OID_XID8 = 5069,
};

#define OID_FIRST_USER 16384 /* types from here on are made by users and extensions */

/* "bigint", "timestamp with time zone"; NULL if the type is not in the table. */
const char *pg_type_name(uint32_t oid);
/* Whether the text of this type depends on DateStyle or IntervalStyle. */
bool pg_type_has_style(uint32_t oid);

/* ---- collation ---- */

struct pg_collation {
    locale_t locale;          /* (locale_t)0: order of the bytes */
    struct buffer scratch[2]; /* NUL-terminated copies for strcoll */
};

/*
 * Opens a collation by its libc locale name. NULL, "", "C", "POSIX" and C.UTF-8 are the order of the
 * bytes. False: this host cannot compare under it (ICU, or a locale that is not installed).
 */
bool pg_collation_open(struct pg_collation *collation, const char *name, char provider);
void pg_collation_close(struct pg_collation *collation);

/* ---- order and equality ---- */

/* A decoded value. `bytes` points into the value it came from and lives as long. */
struct pg_key {
    int32_t length; /* -1: NULL */
    union {
        int64_t integer; /* integers, times and (mapped in order) floats */
        __int128 wide;   /* uuid, interval, timetz */
        const char *bytes;
    };
};

enum pg_key_kind {
    PG_KEY_NONE,
    PG_KEY_INTEGER,
    PG_KEY_WIDE,
    PG_KEY_BYTES,      /* memcmp, the shorter first */
    PG_KEY_COLLATED,   /* strcoll, ties by bytes */
    PG_KEY_BYTEA_TEXT, /* hex or escape format */
    PG_KEY_NUMERIC_TEXT,
    PG_KEY_NUMERIC_BINARY,
};

typedef bool (*pg_decoder)(const char *bytes, int32_t length, struct pg_key *key);

struct pg_order {
    enum pg_key_kind kind;
    pg_decoder decode;
    struct pg_collation *collation; /* PG_KEY_COLLATED; borrowed */
};

/* False: values of this type and format have no order here. `collation` is borrowed. */
bool pg_order_init(struct pg_order *order, uint32_t oid, int format,
                   struct pg_collation *collation);

/*
 * For equality alone: every type with an order, and those whose wire form is the same exactly when the
 * values are equal: inet, cidr, macaddr, macaddr8, bit, varbit, pg_lsn, xid, xid8, cid, tid, money; in
 * text also arrays of boolean, integer, oid, text, varchar, name, bytea, uuid, date and timestamp, and
 * ranges of integers, dates and timestamps; and 4-byte user types, which is what enums are. Not jsonb,
 * composites, other arrays, citext: two equal values of theirs may look different.
 * `type_size` is the one of the RowDescription.
 */
bool pg_order_init_equal(struct pg_order *order, uint32_t oid, int type_size, int format);

/* False: the bytes are no value of the type (or not in ISO DateStyle, postgres IntervalStyle). */
bool pg_order_decode(const struct pg_order *order, const char *bytes, int32_t length,
                     struct pg_key *key);
int pg_order_compare_slow(const struct pg_order *order, const struct pg_key *a,
                          const struct pg_key *b);
/* Appends bytes that are the same exactly when the values are equal. Not for NULL. */
void pg_order_canonical(const struct pg_order *order, const struct pg_key *key, struct buffer *out);

/* Less than, equal to, greater than 0, as the type's btree operator class. Neither may be NULL. */
static inline int pg_order_compare(const struct pg_order *order, const struct pg_key *a,
                                   const struct pg_key *b)
{
    if (order->kind == PG_KEY_INTEGER)
        return (a->integer > b->integer) - (a->integer < b->integer);
    return pg_order_compare_slow(order, a, b);
}

/* ---- sums and averages ---- */

enum pg_status {
    PG_OK,
    PG_MALFORMED,    /* not a value of the type */
    PG_OUT_OF_RANGE, /* the result does not fit: pg_sum_overflow_message */
};

struct numeric;

/* A running sum of partial sums; NULLs are skipped, and the sum of nothing is NULL. */
struct pg_sum {
    uint32_t oid; /* type of the sum and of what is added to it */
    int format;
    bool any;
    union {
        int64_t integer;
        double real;
        float single;
        struct {
            int64_t time; /* microseconds */
            int32_t days;
            int32_t months;
        } interval;
        struct numeric *numeric; /* owned; NULL until first used */
    };
};

/* bigint, numeric, real, double precision, interval, and money in binary. False: other types. */
bool pg_sum_init(struct pg_sum *sum, uint32_t oid, int format);
void pg_sum_free(struct pg_sum *sum);
enum pg_status pg_sum_add(struct pg_sum *sum, const char *bytes, int32_t length);
/* Adds a value `count` times; double precision only. */
enum pg_status pg_sum_add_weighted(struct pg_sum *sum, const char *bytes, int32_t length,
                                   int64_t count);
const char *pg_sum_overflow_message(uint32_t oid);
/* SQLSTATE that goes with it. */
const char *pg_sum_overflow_state(uint32_t oid);
/* Appends the sum as a DataRow holds it: 32-bit length (-1: NULL), then the bytes. */
enum pg_status pg_sum_append(const struct pg_sum *sum, struct buffer *out);

/* Whether an average of type `result` can be made of sums of type `sum`. */
bool pg_average_known(uint32_t result, uint32_t sum);
/* Appends sum / count as avg() gives it, as pg_sum_append does. NULL if count is 0. */
enum pg_status pg_average_append(const struct pg_sum *sum, int64_t count, int format,
                                 struct buffer *out);

#endif
