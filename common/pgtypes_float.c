/* pgtypes_float.c: floating point values in wire form, and the shortest text that reads back alike. */
#include "common/pgtypes_internal.h"

#include <gmp.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FLOAT_TEXT_MAX 64 /* more than any float Postgres prints */

/* NUL-terminated copy of what can be a decimal number. */
static bool copy_number(const char *bytes, int32_t length, char out[FLOAT_TEXT_MAX])
{
    if (length < 1 || length >= FLOAT_TEXT_MAX)
        return false;
    for (int32_t i = 0; i < length; i++)
        if (!strchr("0123456789+-.e", bytes[i]) || !bytes[i])
            return false;
    memcpy(out, bytes, (size_t)length);
    out[length] = '\0';
    return true;
}

static bool special_value(const char *bytes, int32_t length, double *value)
{
    static const struct {
        const char *text;
        double value;
    } specials[] = {{"NaN", NAN}, {"Infinity", INFINITY}, {"-Infinity", -INFINITY}};
    for (size_t i = 0; i < sizeof specials / sizeof specials[0]; i++) {
        if (strlen(specials[i].text) == (size_t)length &&
            memcmp(specials[i].text, bytes, (size_t)length) == 0) {
            *value = specials[i].value;
            return true;
        }
    }
    return false;
}

/* The C library's own "C" locale object: the point is a point whatever the process has set. */
static locale_t c_locale(void)
{
    return newlocale(LC_ALL_MASK, "C", (locale_t)0);
}

bool float8_read(int format, const char *bytes, int32_t length, double *value)
{
    char text[FLOAT_TEXT_MAX], *end;
    if (format) {
        if (length != 8)
            return false;
        int64_t bits = get64(bytes);
        memcpy(value, &bits, sizeof bits);
        return true;
    }
    if (special_value(bytes, length, value))
        return true;
    if (!copy_number(bytes, length, text))
        return false;
    *value = strtod_l(text, &end, c_locale());
    return !*end && isfinite(*value);
}

bool float4_read(int format, const char *bytes, int32_t length, float *value)
{
    char text[FLOAT_TEXT_MAX], *end;
    double special;
    if (format) {
        if (length != 4)
            return false;
        uint32_t bits = wire_get32(bytes);
        memcpy(value, &bits, sizeof bits);
        return true;
    }
    if (special_value(bytes, length, &special)) {
        *value = (float)special;
        return true;
    }
    if (!copy_number(bytes, length, text))
        return false;
    *value = strtof_l(text, &end, c_locale());
    return !*end && isfinite(*value);
}

/* ---- shortest decimal ---- */

/* A positive float as mantissa * 2^exponent, and what decides how far its neighbours are. */
struct float_parts {
    uint64_t mantissa;
    int exponent;
    bool lower_closer; /* at a power of two the gap below is half as wide */
    int max_digits;
};

struct decimal {
    char digits[24];
    int ndigits;
    int exponent; /* of the first digit */
};

/*
 * Everything below is in units of 10^power * 2^scale made integral:
 * value, and half way to the neighbours (both exclusive).
 */
struct interval_bounds {
    mpz_t low, value, high, unit;
};

static void bounds_init(struct interval_bounds *bounds, const struct float_parts *parts)
{
    mpz_inits(bounds->low, bounds->value, bounds->high, bounds->unit, NULL);
    /* quarters of the last mantissa bit: value 4m, half gaps 2, or 1 below a power of two */
    mpz_set_ui(bounds->value, parts->mantissa);
    mpz_mul_2exp(bounds->value, bounds->value, 2);
    mpz_sub_ui(bounds->low, bounds->value, parts->lower_closer ? 1 : 2);
    mpz_add_ui(bounds->high, bounds->value, 2);
    mpz_set_ui(bounds->unit, 1);
    int exponent = parts->exponent - 2;
    if (exponent < 0) {
        mpz_mul_2exp(bounds->unit, bounds->unit, (mp_bitcnt_t)-exponent);
    } else {
        mpz_mul_2exp(bounds->value, bounds->value, (mp_bitcnt_t)exponent);
        mpz_mul_2exp(bounds->low, bounds->low, (mp_bitcnt_t)exponent);
        mpz_mul_2exp(bounds->high, bounds->high, (mp_bitcnt_t)exponent);
    }
}

static void bounds_clear(struct interval_bounds *bounds)
{
    mpz_clears(bounds->low, bounds->value, bounds->high, bounds->unit, NULL);
}

/* Makes `step` = 10^power in the bounds' unit; a negative power scales the bounds instead. */
static void set_step(struct interval_bounds *bounds, int power, mpz_t step)
{
    mpz_t factor;
    mpz_init(factor);
    mpz_ui_pow_ui(factor, 10, (unsigned long)abs(power));
    mpz_set(step, bounds->unit);
    if (power >= 0) {
        mpz_mul(step, step, factor);
    } else {
        mpz_mul(bounds->low, bounds->low, factor);
        mpz_mul(bounds->value, bounds->value, factor);
        mpz_mul(bounds->high, bounds->high, factor);
    }
    mpz_clear(factor);
}

static bool inside(const struct interval_bounds *bounds, const mpz_t candidate, const mpz_t step)
{
    mpz_t scaled;
    mpz_init(scaled);
    mpz_mul(scaled, candidate, step);
    bool is = mpz_cmp(scaled, bounds->low) > 0 && mpz_cmp(scaled, bounds->high) < 0;
    mpz_clear(scaled);
    return is;
}

/* The multiple of 10^power nearest to the value and strictly between the bounds, if there is one. */
static bool nearest_multiple(const struct float_parts *parts, int power, mpz_t result)
{
    struct interval_bounds bounds;
    mpz_t step, rest;
    mpz_inits(step, rest, NULL);
    bounds_init(&bounds, parts);
    set_step(&bounds, power, step);
    mpz_fdiv_qr(result, rest, bounds.value, step);
    bool down = inside(&bounds, result, step);
    mpz_mul_2exp(rest, rest, 1);
    int half = mpz_cmp(rest, step);
    mpz_add_ui(result, result, 1);
    bool up = inside(&bounds, result, step);
    if (down && (!up || half < 0 || (half == 0 && mpz_odd_p(result))))
        mpz_sub_ui(result, result, 1);
    mpz_clears(step, rest, NULL);
    bounds_clear(&bounds);
    return up || down;
}

static void shortest_decimal(const struct float_parts *parts, double value, struct decimal *out)
{
    mpz_t digits;
    mpz_init(digits);
    int top = (int)floor(log10(value)) + 1; /* may be one off: more powers are tried than needed */
    for (int power = top; power >= top - parts->max_digits - 1; power--)
        if (nearest_multiple(parts, power, digits) && mpz_sgn(digits) > 0) {
            mpz_get_str(out->digits, 10, digits);
            out->ndigits = (int)strlen(out->digits);
            out->exponent = power + out->ndigits - 1;
            while (out->ndigits > 1 && out->digits[out->ndigits - 1] == '0')
                out->ndigits--;
            break;
        }
    mpz_clear(digits);
}

static void put_zeros(struct buffer *out, int count)
{
    for (int i = 0; i < count; i++)
        buffer_append(out, "0", 1);
}

static void put_fixed(const struct decimal *number, struct buffer *out)
{
    size_t count = (size_t)number->ndigits;
    if (number->exponent < 0) {
        buffer_append(out, "0.", 2);
        put_zeros(out, -number->exponent - 1);
        buffer_append(out, number->digits, count);
        return;
    }
    size_t whole = (size_t)number->exponent + 1;
    if (count <= whole) {
        buffer_append(out, number->digits, count);
        put_zeros(out, (int)(whole - count));
        return;
    }
    buffer_append(out, number->digits, whole);
    buffer_append(out, ".", 1);
    buffer_append(out, number->digits + whole, count - whole);
}

static void put_scientific(const struct decimal *number, struct buffer *out)
{
    buffer_append(out, number->digits, 1);
    if (number->ndigits > 1) {
        buffer_append(out, ".", 1);
        buffer_append(out, number->digits + 1, (size_t)number->ndigits - 1);
    }
    buffer_printf(out, "e%c%02d", number->exponent < 0 ? '-' : '+', abs(number->exponent));
}

/* Not a finite nonzero number: its text. */
static bool put_special(double value, struct buffer *out)
{
    const char *text = isnan(value)   ? "NaN"
                       : isinf(value) ? (value > 0 ? "Infinity" : "-Infinity")
                       : value == 0   ? (signbit(value) ? "-0" : "0")
                                      : NULL;
    if (text)
        buffer_append(out, text, strlen(text));
    return text != NULL;
}

/* Fixed notation for exponents from -4 up to `fixed_below`, as Postgres prints. */
static void put_number(const struct float_parts *parts, double value, int fixed_below,
                       struct buffer *out)
{
    struct decimal number = {.digits = "0", .ndigits = 1};
    shortest_decimal(parts, fabs(value), &number);
    if (value < 0)
        buffer_append(out, "-", 1);
    if (number.exponent >= -4 && number.exponent < fixed_below)
        put_fixed(&number, out);
    else
        put_scientific(&number, out);
}

void float8_format(double value, struct buffer *out)
{
    if (put_special(value, out))
        return;
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint64_t fraction = bits & ((UINT64_C(1) << 52) - 1);
    int exponent = (int)(bits >> 52 & 0x7ff);
    struct float_parts parts = {
        .mantissa = exponent ? fraction | UINT64_C(1) << 52 : fraction,
        .exponent = (exponent ? exponent : 1) - 1075,
        .lower_closer = !fraction && exponent > 1,
        .max_digits = 17,
    };
    put_number(&parts, value, 15, out);
}

void float4_format(float value, struct buffer *out)
{
    if (put_special(value, out))
        return;
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t fraction = bits & ((UINT32_C(1) << 23) - 1);
    int exponent = (int)(bits >> 23 & 0xff);
    struct float_parts parts = {
        .mantissa = exponent ? fraction | UINT32_C(1) << 23 : fraction,
        .exponent = (exponent ? exponent : 1) - 150,
        .lower_closer = !fraction && exponent > 1,
        .max_digits = 9,
    };
    put_number(&parts, (double)value, 6, out);
}
