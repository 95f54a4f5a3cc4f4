/*
 * pgtypes_internal.h: what the pgtypes*.c files share: decoders of single types and text forms.
 */
#ifndef PGSHUNT_COMMON_PGTYPES_INTERNAL_H
#define PGSHUNT_COMMON_PGTYPES_INTERNAL_H

#include "pgshunt/pgtypes.h"
#include "pgshunt/wire.h"

static inline int64_t get64(const void *p)
{
    const char *b = p;
    return (int64_t)((uint64_t)wire_get32(b) << 32 | wire_get32(b + 4));
}

/* Digits with an optional minus that fit 64 bits, nothing else. */
bool integer_parse(const char *bytes, int32_t length, int64_t *value);

/* Floats: "NaN", "Infinity", "-Infinity" or a decimal number; shortest text that reads back alike. */
bool float8_read(int format, const char *bytes, int32_t length, double *value);
bool float4_read(int format, const char *bytes, int32_t length, float *value);
void float8_format(double value, struct buffer *out);
void float4_format(float value, struct buffer *out);

struct interval {
    int64_t time; /* microseconds */
    int32_t days;
    int32_t months;
};
bool interval_read(int format, const char *bytes, int32_t length, struct interval *value);
void interval_format(const struct interval *value, struct buffer *out);

/* Decoders to struct pg_key, see struct pg_order. */
bool decode_date_text(const char *bytes, int32_t length, struct pg_key *key);
bool decode_date_binary(const char *bytes, int32_t length, struct pg_key *key);
bool decode_time_text(const char *bytes, int32_t length, struct pg_key *key);
bool decode_timetz_text(const char *bytes, int32_t length, struct pg_key *key);
bool decode_timetz_binary(const char *bytes, int32_t length, struct pg_key *key);
bool decode_timestamp_text(const char *bytes, int32_t length, struct pg_key *key);
bool decode_timestamptz_text(const char *bytes, int32_t length, struct pg_key *key);
bool decode_interval_text(const char *bytes, int32_t length, struct pg_key *key);
bool decode_interval_binary(const char *bytes, int32_t length, struct pg_key *key);

#endif
