/*
 * pgnumeric.h: Postgres' numeric: wire forms, order, exact sum and quotient.
 *
 * Postgres sends numeric as text, or in binary as base-10000 digits:
 *   int16 ndigits, int16 weight (of the first digit), uint16 sign, uint16 dscale, int16 digits[]
 */
#ifndef PGSHUNT_COMMON_PGNUMERIC_H
#define PGSHUNT_COMMON_PGNUMERIC_H

#include <gmp.h>
#include <stdbool.h>
#include <stdint.h>

#include "pgshunt/buffer.h"

enum numeric_kind { NUMERIC_FINITE, NUMERIC_NAN, NUMERIC_INFINITY, NUMERIC_MINUS_INFINITY };

struct numeric {
    enum numeric_kind kind;
    mpz_t digits; /* value = digits / 10^scale */
    int scale;    /* digits shown behind the point */
};

void numeric_init(struct numeric *number);
void numeric_clear(struct numeric *number);
void numeric_set_int64(struct numeric *number, int64_t value);
/* False: not a numeric. */
bool numeric_read(struct numeric *number, int format, const char *bytes, int32_t length);
void numeric_add(struct numeric *sum, const struct numeric *term);
/* quotient = a / b rounded to the scale that Postgres' division picks; b is finite, not zero. */
void numeric_divide(struct numeric *quotient, const struct numeric *a, const struct numeric *b);
/* False: too large for the type. Appends the value's bytes, without a length. */
bool numeric_write(const struct numeric *number, int format, struct buffer *out);

bool numeric_valid(int format, const char *bytes, int32_t length);
/* Both must be valid. */
int numeric_compare_text(const char *a, int32_t a_length, const char *b, int32_t b_length);
int numeric_compare_binary(const char *a, int32_t a_length, const char *b, int32_t b_length);
void numeric_canonical_text(const char *bytes, int32_t length, struct buffer *out);
void numeric_canonical_binary(const char *bytes, int32_t length, struct buffer *out);

#endif
