/* pgnumeric.c: numeric in wire form: validity, order, canonical bytes, exact sums and quotients. */
#include "common/pgnumeric.h"

#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "pgshunt/wire.h"

/* Limits of the type: digits before and behind the point. */
#define WHOLE_MAX 131072
#define FRACTION_MAX 16383
/* Postgres divides to 16 significant digits at least, 1000 behind the point at most. */
#define QUOTIENT_DIGITS 16
#define QUOTIENT_SCALE_MAX 1000

#define SIGN_NEGATIVE 0x4000
#define SIGN_NAN 0xC000
#define SIGN_INFINITY 0xD000
#define SIGN_MINUS_INFINITY 0xF000
#define BINARY_HEADER 8

/* ---- text taken apart ---- */

struct text_form {
    enum numeric_kind kind;
    bool negative;
    const char *whole; /* without leading zeros */
    int32_t nwhole;
    const char *fraction;
    int32_t nfraction; /* as written: the scale */
};

static bool word(const char *bytes, int32_t length, const char *expected)
{
    return (size_t)length == strlen(expected) && memcmp(bytes, expected, (size_t)length) == 0;
}

static int32_t count_digits(const char *bytes, int32_t length)
{
    int32_t count = 0;
    while (count < length && bytes[count] >= '0' && bytes[count] <= '9')
        count++;
    return count;
}

static bool split_finite(struct text_form *form, const char *bytes, int32_t length)
{
    const char *end = bytes + length;
    form->negative = length && *bytes == '-';
    form->whole = bytes + form->negative;
    form->nwhole = count_digits(form->whole, (int32_t)(end - form->whole));
    const char *at = form->whole + form->nwhole;
    if (!form->nwhole)
        return false;
    while (form->nwhole && *form->whole == '0') {
        form->whole++;
        form->nwhole--;
    }
    form->fraction = at;
    form->nfraction = 0;
    if (at < end && *at == '.') {
        form->fraction = at + 1;
        form->nfraction = count_digits(at + 1, (int32_t)(end - at - 1));
        at += 1 + form->nfraction;
    }
    return at == end && form->nwhole <= WHOLE_MAX && form->nfraction <= FRACTION_MAX;
}

static bool split_text(struct text_form *form, const char *bytes, int32_t length)
{
    *form = (struct text_form){.kind = NUMERIC_FINITE};
    if (word(bytes, length, "NaN"))
        form->kind = NUMERIC_NAN;
    else if (word(bytes, length, "Infinity"))
        form->kind = NUMERIC_INFINITY;
    else if (word(bytes, length, "-Infinity"))
        form->kind = NUMERIC_MINUS_INFINITY;
    else
        return split_finite(form, bytes, length);
    return true;
}

/* ---- binary taken apart ---- */

struct binary_form {
    enum numeric_kind kind;
    bool negative;
    int weight;         /* of the first digit: 10000^weight */
    int ndigits;        /* without leading and trailing zeros */
    const char *digits; /* two bytes each */
    int scale;
};

static int base_digit(const struct binary_form *form, int index)
{
    return index < form->ndigits ? wire_get16(form->digits + index * 2) : 0;
}

static void strip_zeros(struct binary_form *form)
{
    while (form->ndigits && base_digit(form, 0) == 0) {
        form->digits += 2;
        form->ndigits--;
        form->weight--;
    }
    while (form->ndigits && base_digit(form, form->ndigits - 1) == 0)
        form->ndigits--;
    if (!form->ndigits)
        form->weight = 0;
}

static bool split_binary(struct binary_form *form, const char *bytes, int32_t length)
{
    if (length < BINARY_HEADER || (length - BINARY_HEADER) % 2 != 0)
        return false;
    int sign = wire_get16(bytes + 4);
    *form = (struct binary_form){
        .negative = sign == SIGN_NEGATIVE,
        .weight = (int16_t)wire_get16(bytes + 2),
        .ndigits = wire_get16(bytes),
        .digits = bytes + BINARY_HEADER,
        .scale = wire_get16(bytes + 6),
    };
    if (form->ndigits != (length - BINARY_HEADER) / 2 || form->scale > FRACTION_MAX)
        return false;
    for (int i = 0; i < form->ndigits; i++)
        if (base_digit(form, i) > 9999)
            return false;
    strip_zeros(form);
    form->kind = sign == SIGN_NAN              ? NUMERIC_NAN
                 : sign == SIGN_INFINITY       ? NUMERIC_INFINITY
                 : sign == SIGN_MINUS_INFINITY ? NUMERIC_MINUS_INFINITY
                                               : NUMERIC_FINITE;
    return form->kind != NUMERIC_FINITE || sign == 0 || sign == SIGN_NEGATIVE;
}

bool numeric_valid(int format, const char *bytes, int32_t length)
{
    struct text_form text;
    struct binary_form binary;
    return format ? split_binary(&binary, bytes, length) : split_text(&text, bytes, length);
}

/* ---- order: -Infinity, finite, Infinity, NaN ---- */

static int kind_rank(enum numeric_kind kind)
{
    switch (kind) {
    case NUMERIC_MINUS_INFINITY:
        return 0;
    case NUMERIC_FINITE:
        return 1;
    case NUMERIC_INFINITY:
        return 2;
    case NUMERIC_NAN:
        break;
    }
    return 3;
}

static int sign_of(int number)
{
    return (number > 0) - (number < 0);
}

static int32_t significant_fraction(const struct text_form *form)
{
    int32_t count = form->nfraction;
    while (count && form->fraction[count - 1] == '0')
        count--;
    return count;
}

static int text_sign(const struct text_form *form)
{
    if (!form->nwhole && !significant_fraction(form))
        return 0;
    return form->negative ? -1 : 1;
}

static int compare_text_magnitude(const struct text_form *a, const struct text_form *b)
{
    if (a->nwhole != b->nwhole)
        return a->nwhole > b->nwhole ? 1 : -1;
    int order = memcmp(a->whole, b->whole, (size_t)a->nwhole);
    if (order)
        return order;
    int32_t na = significant_fraction(a), nb = significant_fraction(b);
    order = memcmp(a->fraction, b->fraction, (size_t)(na < nb ? na : nb));
    return order ? order : sign_of(na - nb);
}

int numeric_compare_text(const char *a, int32_t a_length, const char *b, int32_t b_length)
{
    struct text_form left, right;
    split_text(&left, a, a_length);
    split_text(&right, b, b_length);
    int order = kind_rank(left.kind) - kind_rank(right.kind);
    if (order || left.kind != NUMERIC_FINITE)
        return sign_of(order);
    int left_sign = text_sign(&left), right_sign = text_sign(&right);
    if (left_sign != right_sign)
        return left_sign > right_sign ? 1 : -1;
    return left_sign * sign_of(compare_text_magnitude(&left, &right));
}

static int compare_binary_magnitude(const struct binary_form *a, const struct binary_form *b)
{
    if (a->weight != b->weight)
        return a->weight > b->weight ? 1 : -1;
    for (int i = 0; i < a->ndigits || i < b->ndigits; i++)
        if (base_digit(a, i) != base_digit(b, i))
            return base_digit(a, i) > base_digit(b, i) ? 1 : -1;
    return 0;
}

int numeric_compare_binary(const char *a, int32_t a_length, const char *b, int32_t b_length)
{
    struct binary_form left, right;
    split_binary(&left, a, a_length);
    split_binary(&right, b, b_length);
    int order = kind_rank(left.kind) - kind_rank(right.kind);
    if (order || left.kind != NUMERIC_FINITE)
        return sign_of(order);
    int left_sign = !left.ndigits ? 0 : left.negative ? -1 : 1;
    int right_sign = !right.ndigits ? 0 : right.negative ? -1 : 1;
    if (left_sign != right_sign)
        return left_sign > right_sign ? 1 : -1;
    return left_sign * compare_binary_magnitude(&left, &right);
}

/* ---- canonical bytes: the same exactly when the values are equal ---- */

void numeric_canonical_text(const char *bytes, int32_t length, struct buffer *out)
{
    struct text_form form;
    split_text(&form, bytes, length);
    if (form.kind != NUMERIC_FINITE) {
        buffer_append(out, bytes, (size_t)length);
        return;
    }
    if (text_sign(&form) < 0)
        buffer_append(out, "-", 1);
    buffer_append(out, form.whole, (size_t)form.nwhole);
    buffer_append(out, ".", 1);
    buffer_append(out, form.fraction, (size_t)significant_fraction(&form));
}

void numeric_canonical_binary(const char *bytes, int32_t length, struct buffer *out)
{
    struct binary_form form;
    split_binary(&form, bytes, length);
    char header[4] = {(char)('0' + kind_rank(form.kind)), form.negative && form.ndigits ? '-' : '+',
                      (char)(form.weight >> 8), (char)form.weight};
    if (form.kind != NUMERIC_FINITE) {
        buffer_append(out, header, 1);
        return;
    }
    buffer_append(out, header, sizeof header);
    buffer_append(out, form.digits, (size_t)form.ndigits * 2);
}

/* ---- numbers ---- */

void numeric_init(struct numeric *number)
{
    number->kind = NUMERIC_FINITE;
    number->scale = 0;
    mpz_init(number->digits);
}

void numeric_clear(struct numeric *number)
{
    mpz_clear(number->digits);
}

void numeric_set_int64(struct numeric *number, int64_t value)
{
    number->kind = NUMERIC_FINITE;
    number->scale = 0;
    mpz_set_si(number->digits, value);
}

static void set_digits(struct numeric *number, const char *digits, bool negative)
{
    mpz_set_str(number->digits, *digits ? digits : "0", 10);
    if (negative)
        mpz_neg(number->digits, number->digits);
}

static bool read_text(struct numeric *number, const char *bytes, int32_t length)
{
    struct text_form form;
    if (!split_text(&form, bytes, length))
        return false;
    number->kind = form.kind;
    number->scale = form.nfraction;
    struct buffer digits = {0};
    buffer_append(&digits, form.whole, (size_t)form.nwhole);
    buffer_append(&digits, form.fraction, (size_t)form.nfraction);
    buffer_append(&digits, "", 1);
    set_digits(number, buffer_head(&digits), form.negative);
    buffer_release(&digits);
    return true;
}

/* The base-10000 digits from the first one down to the last that the scale shows, in decimal. */
static void put_decimal(const struct binary_form *form, struct buffer *out)
{
    int last = (form->scale + 3) / 4; /* base digits behind the point */
    int count = form->weight + 1 + last;
    for (int i = 0; i < count; i++) {
        int digit = base_digit(form, i);
        char four[4] = {(char)('0' + digit / 1000), (char)('0' + digit / 100 % 10),
                        (char)('0' + digit / 10 % 10), (char)('0' + digit % 10)};
        buffer_append(out, four, sizeof four);
    }
    size_t surplus = (size_t)(last * 4 - form->scale);
    out->end = buffer_length(out) > surplus ? out->end - surplus : out->start;
    buffer_append(out, "", 1);
}

static bool read_binary(struct numeric *number, const char *bytes, int32_t length)
{
    struct binary_form form;
    if (!split_binary(&form, bytes, length))
        return false;
    number->kind = form.kind;
    number->scale = form.kind == NUMERIC_FINITE ? form.scale : 0;
    if (form.kind != NUMERIC_FINITE || !form.ndigits) {
        mpz_set_ui(number->digits, 0);
        return true;
    }
    struct buffer digits = {0};
    put_decimal(&form, &digits);
    set_digits(number, buffer_head(&digits), form.negative);
    buffer_release(&digits);
    return true;
}

bool numeric_read(struct numeric *number, int format, const char *bytes, int32_t length)
{
    return format ? read_binary(number, bytes, length) : read_text(number, bytes, length);
}

/* ---- arithmetic ---- */

static void scale_up(mpz_t digits, int by)
{
    if (by <= 0 || mpz_sgn(digits) == 0)
        return;
    mpz_t factor;
    mpz_init(factor);
    mpz_ui_pow_ui(factor, 10, (unsigned long)by);
    mpz_mul(digits, digits, factor);
    mpz_clear(factor);
}

static void add_special(struct numeric *sum, const struct numeric *term)
{
    if (sum->kind == term->kind || term->kind == NUMERIC_FINITE)
        return;
    sum->kind = sum->kind == NUMERIC_FINITE ? term->kind : NUMERIC_NAN;
    sum->scale = 0;
}

void numeric_add(struct numeric *sum, const struct numeric *term)
{
    if (sum->kind != NUMERIC_FINITE || term->kind != NUMERIC_FINITE) {
        add_special(sum, term);
        return;
    }
    if (sum->scale >= term->scale) {
        mpz_t scaled;
        mpz_init_set(scaled, term->digits);
        scale_up(scaled, sum->scale - term->scale);
        mpz_add(sum->digits, sum->digits, scaled);
        mpz_clear(scaled);
        return;
    }
    scale_up(sum->digits, term->scale - sum->scale);
    mpz_add(sum->digits, sum->digits, term->digits);
    sum->scale = term->scale;
}

/* Decimal digits of |number|, 1 for 0. */
static long decimal_length(const mpz_t number)
{
    size_t estimate = mpz_sizeinbase(number, 10); /* exact or one too many */
    mpz_t power;
    mpz_init(power);
    mpz_ui_pow_ui(power, 10, estimate - 1);
    long length = (long)estimate - (estimate > 1 && mpz_cmpabs(number, power) < 0);
    mpz_clear(power);
    return length;
}

static long floor_div4(long number)
{
    return number >= 0 ? number / 4 : -((-number + 3) / 4);
}

/* Weight and value of the first nonzero base-10000 digit, as Postgres stores the number. */
static long first_base_digit(const struct numeric *number, long *digit)
{
    *digit = 0;
    if (mpz_sgn(number->digits) == 0)
        return 0;
    long top = decimal_length(number->digits) - number->scale - 1; /* exponent of the top digit */
    long weight = floor_div4(top);
    long keep = top - weight * 4 + 1; /* decimal digits in it: 1 to 4 */
    long drop = decimal_length(number->digits) - keep;
    mpz_t head;
    mpz_init_set(head, number->digits);
    if (drop > 0) {
        mpz_t power;
        mpz_init(power);
        mpz_ui_pow_ui(power, 10, (unsigned long)drop);
        mpz_tdiv_q(head, head, power);
        mpz_clear(power);
    } else {
        scale_up(head, (int)-drop);
    }
    *digit = labs(mpz_get_si(head));
    mpz_clear(head);
    return weight;
}

/* Digits behind the point that Postgres gives a quotient. */
static int quotient_scale(const struct numeric *a, const struct numeric *b)
{
    long a_digit, b_digit;
    long weight = first_base_digit(a, &a_digit) - first_base_digit(b, &b_digit);
    if (a_digit <= b_digit)
        weight--;
    long scale = QUOTIENT_DIGITS - weight * 4;
    scale = scale > a->scale ? scale : a->scale;
    scale = scale > b->scale ? scale : b->scale;
    scale = scale > 0 ? scale : 0;
    return (int)(scale < QUOTIENT_SCALE_MAX ? scale : QUOTIENT_SCALE_MAX);
}

/* number = round(number / divisor), halves away from zero. */
static void divide_rounded(mpz_t number, const mpz_t divisor)
{
    mpz_t rest;
    mpz_init(rest);
    int sign = mpz_sgn(number) * mpz_sgn(divisor);
    mpz_tdiv_qr(number, rest, number, divisor);
    mpz_mul_2exp(rest, rest, 1);
    if (mpz_cmpabs(rest, divisor) >= 0)
        sign < 0 ? mpz_sub_ui(number, number, 1) : mpz_add_ui(number, number, 1);
    mpz_clear(rest);
}

void numeric_divide(struct numeric *quotient, const struct numeric *a, const struct numeric *b)
{
    quotient->kind = a->kind;
    quotient->scale = 0;
    if (a->kind != NUMERIC_FINITE)
        return;
    int scale = quotient_scale(a, b);
    /* a / 10^sa / (b / 10^sb) * 10^scale = a * 10^(scale + sb) / (b * 10^sa) */
    mpz_t divisor;
    mpz_init_set(divisor, b->digits);
    scale_up(divisor, a->scale);
    mpz_set(quotient->digits, a->digits);
    scale_up(quotient->digits, scale + b->scale);
    divide_rounded(quotient->digits, divisor);
    quotient->scale = scale;
    mpz_clear(divisor);
}

/* ---- writing ---- */

static const char *special_text(enum numeric_kind kind)
{
    switch (kind) {
    case NUMERIC_NAN:
        return "NaN";
    case NUMERIC_INFINITY:
        return "Infinity";
    case NUMERIC_MINUS_INFINITY:
        return "-Infinity";
    case NUMERIC_FINITE:
        break;
    }
    return NULL;
}

/* Digits of |number| with at least one before the point; the caller frees. */
static char *padded_digits(const struct numeric *number, size_t *length)
{
    char *digits = mem_alloc(mpz_sizeinbase(number->digits, 10) + (size_t)number->scale + 4);
    mpz_t magnitude;
    mpz_init(magnitude);
    mpz_abs(magnitude, number->digits);
    mpz_get_str(digits, 10, magnitude);
    mpz_clear(magnitude);
    *length = strlen(digits);
    size_t least = (size_t)number->scale + 1;
    if (*length < least) {
        memmove(digits + least - *length, digits, *length + 1);
        memset(digits, '0', least - *length);
        *length = least;
    }
    return digits;
}

static void write_text(const struct numeric *number, const char *digits, size_t length,
                       struct buffer *out)
{
    size_t whole = length - (size_t)number->scale;
    if (mpz_sgn(number->digits) < 0)
        buffer_append(out, "-", 1);
    buffer_append(out, digits, whole);
    if (number->scale) {
        buffer_append(out, ".", 1);
        buffer_append(out, digits + whole, (size_t)number->scale);
    }
}

static void put_header(struct buffer *out, int ndigits, int weight, int sign, int scale)
{
    int fields[4] = {ndigits, weight, sign, scale};
    for (int i = 0; i < 4; i++) {
        char two[2] = {(char)(fields[i] >> 8), (char)fields[i]};
        buffer_append(out, two, 2);
    }
}

/* Decimal digit at `position` relative to the point: 0 is the ones, -1 the tenths. */
static int decimal_digit(const char *digits, long whole, long fraction, long position)
{
    if (position >= whole || position < -fraction)
        return 0;
    return digits[whole - 1 - position] - '0';
}

static void write_binary(const struct numeric *number, const char *digits, size_t length,
                         struct buffer *out)
{
    long fraction = number->scale, whole = (long)length - fraction;
    long weight = floor_div4(whole - 1), lowest = -((fraction + 3) / 4);
    size_t header = buffer_length(out);
    put_header(out, 0, 0, mpz_sgn(number->digits) < 0 ? SIGN_NEGATIVE : 0, number->scale);
    int count = 0, kept = 0, first = 0;
    for (long w = weight; w >= lowest; w--) {
        int digit = 0;
        for (long i = 3; i >= 0; i--)
            digit = digit * 10 + decimal_digit(digits, whole, fraction, w * 4 + i);
        if (!digit && !count)
            continue;
        if (!count++)
            first = (int)w;
        char two[2] = {(char)(digit >> 8), (char)digit};
        buffer_append(out, two, 2);
        if (digit)
            kept = count;
    }
    out->end -= (size_t)(count - kept) * 2; /* trailing zeros are not stored */
    char *at = buffer_head(out) + header;
    at[0] = (char)(kept >> 8);
    at[1] = (char)kept;
    at[2] = (char)(first >> 8);
    at[3] = (char)first;
}

static void write_special(enum numeric_kind kind, int format, struct buffer *out)
{
    const char *text = special_text(kind);
    if (!format) {
        buffer_append(out, text, strlen(text));
        return;
    }
    int sign = kind == NUMERIC_NAN        ? SIGN_NAN
               : kind == NUMERIC_INFINITY ? SIGN_INFINITY
                                          : SIGN_MINUS_INFINITY;
    /* the scale of infinities is of no meaning, but this is what Postgres sends */
    put_header(out, 0, 0, sign, kind == NUMERIC_NAN ? 0 : 0x20);
}

bool numeric_write(const struct numeric *number, int format, struct buffer *out)
{
    if (number->kind != NUMERIC_FINITE) {
        write_special(number->kind, format, out);
        return true;
    }
    size_t length;
    char *digits = padded_digits(number, &length);
    bool fits = length - (size_t)number->scale <= WHOLE_MAX;
    if (fits && format)
        write_binary(number, digits, length, out);
    else if (fits)
        write_text(number, digits, length, out);
    free(digits);
    return fits;
}
