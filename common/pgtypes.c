/* pgtypes.c: the table of types, and decoding, comparing and canonical bytes of their values. */
#include "pgshunt/pgtypes.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/pgnumeric.h"
#include "common/pgtypes_internal.h"
#include "pgshunt/arena.h"

/* ---- decoders ---- */

bool integer_parse(const char *bytes, int32_t length, int64_t *value)
{
    bool negative = length > 0 && *bytes == '-';
    int32_t i = negative;
    int64_t number = 0; /* kept negative: there is one more of those */
    if (i == length || length > 20)
        return false;
    for (; i < length; i++) {
        int digit = bytes[i] - '0';
        if (digit < 0 || digit > 9 || __builtin_mul_overflow(number, 10, &number) ||
            __builtin_sub_overflow(number, digit, &number))
            return false;
    }
    if (!negative && number == INT64_MIN)
        return false;
    *value = negative ? number : -number;
    return true;
}

static bool decode_integer_text(const char *bytes, int32_t length, struct pg_key *key)
{
    return integer_parse(bytes, length, &key->integer);
}

static bool decode_int2_binary(const char *bytes, int32_t length, struct pg_key *key)
{
    if (length != 2)
        return false;
    key->integer = (int16_t)wire_get16(bytes);
    return true;
}

static bool decode_int4_binary(const char *bytes, int32_t length, struct pg_key *key)
{
    if (length != 4)
        return false;
    key->integer = (int32_t)wire_get32(bytes);
    return true;
}

static bool decode_int8_binary(const char *bytes, int32_t length, struct pg_key *key)
{
    if (length != 8)
        return false;
    key->integer = get64(bytes);
    return true;
}

static bool decode_oid_binary(const char *bytes, int32_t length, struct pg_key *key)
{
    if (length != 4)
        return false;
    key->integer = wire_get32(bytes);
    return true;
}

static bool decode_bool_text(const char *bytes, int32_t length, struct pg_key *key)
{
    if (length != 1 || (*bytes != 't' && *bytes != 'f'))
        return false;
    key->integer = *bytes == 't';
    return true;
}

static bool decode_bool_binary(const char *bytes, int32_t length, struct pg_key *key)
{
    if (length != 1)
        return false;
    key->integer = *bytes != 0;
    return true;
}

/* "char": one byte; nothing at all is byte 0; from Postgres 16 on high bytes come as \ooo. */
static bool decode_char_text(const char *bytes, int32_t length, struct pg_key *key)
{
    if (length == 4 && *bytes == '\\') {
        key->integer = (bytes[1] - '0') * 64 + (bytes[2] - '0') * 8 + (bytes[3] - '0');
        return key->integer >= 0 && key->integer <= 255;
    }
    key->integer = length ? (unsigned char)*bytes : 0;
    return length <= 1;
}

static bool decode_char_binary(const char *bytes, int32_t length, struct pg_key *key)
{
    if (length != 1)
        return false;
    key->integer = (unsigned char)*bytes;
    return true;
}

/* Integers in the order of the floats: -0 is 0, NaN is one value above all. */
static int64_t float_order(double value)
{
    if (value != value)
        return INT64_MAX;
    if (value == 0)
        return 0;
    int64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits >= 0 ? bits : -(bits & INT64_MAX);
}

static bool decode_float8(int format, const char *bytes, int32_t length, struct pg_key *key)
{
    double value;
    if (!float8_read(format, bytes, length, &value))
        return false;
    key->integer = float_order(value);
    return true;
}

static bool decode_float4(int format, const char *bytes, int32_t length, struct pg_key *key)
{
    float value;
    if (!float4_read(format, bytes, length, &value))
        return false;
    key->integer = float_order((double)value);
    return true;
}

static bool decode_float8_text(const char *bytes, int32_t length, struct pg_key *key)
{
    return decode_float8(0, bytes, length, key);
}

static bool decode_float8_binary(const char *bytes, int32_t length, struct pg_key *key)
{
    return decode_float8(1, bytes, length, key);
}

static bool decode_float4_text(const char *bytes, int32_t length, struct pg_key *key)
{
    return decode_float4(0, bytes, length, key);
}

static bool decode_float4_binary(const char *bytes, int32_t length, struct pg_key *key)
{
    return decode_float4(1, bytes, length, key);
}

static bool decode_bytes(const char *bytes, int32_t length, struct pg_key *key)
{
    key->bytes = bytes;
    key->length = length;
    return true;
}

/* char(n): blanks at the end do not count. */
static bool decode_padded(const char *bytes, int32_t length, struct pg_key *key)
{
    while (length && bytes[length - 1] == ' ')
        length--;
    return decode_bytes(bytes, length, key);
}

static bool decode_numeric_text(const char *bytes, int32_t length, struct pg_key *key)
{
    return numeric_valid(0, bytes, length) && decode_bytes(bytes, length, key);
}

static bool decode_numeric_binary(const char *bytes, int32_t length, struct pg_key *key)
{
    return numeric_valid(1, bytes, length) && decode_bytes(bytes, length, key);
}

static void set_uuid(struct pg_key *key, unsigned __int128 number)
{
    key->wide = (__int128)(number ^ (unsigned __int128)1 << 127); /* unsigned order as signed */
}

static bool decode_uuid_binary(const char *bytes, int32_t length, struct pg_key *key)
{
    if (length != 16)
        return false;
    set_uuid(key, (unsigned __int128)(uint64_t)get64(bytes) << 64 | (uint64_t)get64(bytes + 8));
    return true;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool decode_uuid_text(const char *bytes, int32_t length, struct pg_key *key)
{
    unsigned __int128 number = 0;
    if (length != 36)
        return false;
    for (int i = 0; i < 36; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        int digit = hex_digit(bytes[i]);
        if (dash ? bytes[i] != '-' : digit < 0)
            return false;
        if (!dash)
            number = number << 4 | (unsigned)digit;
    }
    set_uuid(key, number);
    return true;
}

/* ---- bytea in text ---- */

static bool is_hex(const struct pg_key *key)
{
    return key->length >= 2 && key->bytes[0] == '\\' && key->bytes[1] == 'x';
}

/* The next byte at *at, or -1 at the end. Escape format: \\ is a backslash, \ooo any byte. */
static int next_bytea_byte(const struct pg_key *key, int32_t *at)
{
    const char *p = key->bytes + *at;
    if (*at >= key->length)
        return -1;
    if (is_hex(key)) {
        int high = hex_digit(p[0]), low = *at + 1 < key->length ? hex_digit(p[1]) : 0;
        *at += 2;
        return high < 0 || low < 0 ? 0 : high << 4 | low; /* no server sends other digits */
    }
    if (*p != '\\') {
        *at += 1;
        return (unsigned char)*p;
    }
    if (p[1] == '\\') {
        *at += 2;
        return '\\';
    }
    *at += 4;
    return (p[1] - '0') << 6 | (p[2] - '0') << 3 | (p[3] - '0');
}

static bool is_octal(const char *p)
{
    return p[0] >= '0' && p[0] <= '3' && p[1] >= '0' && p[1] <= '7' && p[2] >= '0' && p[2] <= '7';
}

static bool valid_escapes(const char *bytes, int32_t length)
{
    for (int32_t i = 0; i < length; i++) {
        if (bytes[i] != '\\')
            continue;
        if (i + 1 < length && bytes[i + 1] == '\\')
            i += 1;
        else if (i + 3 < length && is_octal(bytes + i + 1))
            i += 3;
        else
            return false;
    }
    return true;
}

static bool decode_bytea_text(const char *bytes, int32_t length, struct pg_key *key)
{
    decode_bytes(bytes, length, key);
    if (!is_hex(key))
        return valid_escapes(bytes, length);
    for (int32_t i = 2; i < length; i++)
        if (hex_digit(bytes[i]) < 0)
            return false;
    return length % 2 == 0;
}

static int compare_bytea_text(const struct pg_key *a, const struct pg_key *b)
{
    int32_t a_at = is_hex(a) ? 2 : 0, b_at = is_hex(b) ? 2 : 0;
    for (;;) {
        int left = next_bytea_byte(a, &a_at), right = next_bytea_byte(b, &b_at);
        if (left != right || left < 0)
            return (left > right) - (left < right);
    }
}

static void canonical_bytea_text(const struct pg_key *key, struct buffer *out)
{
    int32_t at = is_hex(key) ? 2 : 0;
    for (int byte = next_bytea_byte(key, &at); byte >= 0; byte = next_bytea_byte(key, &at)) {
        char c = (char)byte;
        buffer_append(out, &c, 1);
    }
}

/* ---- the table ---- */

enum equality {
    EQUAL_DECODED, /* equal values may look different: compare decoded */
    EQUAL_BYTES,   /* one form a value */
    EQUAL_TEXT,    /* one form a value in text only */
};

struct pg_type {
    uint32_t oid;
    const char *name;
    enum pg_key_kind text_kind, binary_kind; /* PG_KEY_NONE: no order */
    pg_decoder text, binary;
    enum equality equality;
};

#define INTEGER_TYPE(oid, name, text, binary, equality)                                            \
    {                                                                                              \
        oid, name, PG_KEY_INTEGER, PG_KEY_INTEGER, text, binary, equality                          \
    }
#define WIDE_TYPE(oid, name, text, binary, equality)                                               \
    {                                                                                              \
        oid, name, PG_KEY_WIDE, PG_KEY_WIDE, text, binary, equality                                \
    }
#define TEXT_TYPE(oid, name, kind, decode, equality)                                               \
    {                                                                                              \
        oid, name, kind, kind, decode, decode, equality                                            \
    }
#define NO_ORDER(oid, name, equality)                                                              \
    {                                                                                              \
        oid, name, PG_KEY_NONE, PG_KEY_NONE, decode_bytes, decode_bytes, equality                  \
    }

static const struct pg_type types[] = {
    INTEGER_TYPE(OID_INT8, "bigint", decode_integer_text, decode_int8_binary, EQUAL_BYTES),
    INTEGER_TYPE(OID_INT4, "integer", decode_integer_text, decode_int4_binary, EQUAL_BYTES),
    INTEGER_TYPE(OID_INT2, "smallint", decode_integer_text, decode_int2_binary, EQUAL_BYTES),
    INTEGER_TYPE(OID_OID, "oid", decode_integer_text, decode_oid_binary, EQUAL_BYTES),
    INTEGER_TYPE(OID_BOOL, "boolean", decode_bool_text, decode_bool_binary, EQUAL_BYTES),
    INTEGER_TYPE(OID_CHAR, "\"char\"", decode_char_text, decode_char_binary, EQUAL_BYTES),
    INTEGER_TYPE(OID_FLOAT8, "double precision", decode_float8_text, decode_float8_binary,
                 EQUAL_DECODED),
    INTEGER_TYPE(OID_FLOAT4, "real", decode_float4_text, decode_float4_binary, EQUAL_DECODED),
    INTEGER_TYPE(OID_DATE, "date", decode_date_text, decode_date_binary, EQUAL_BYTES),
    INTEGER_TYPE(OID_TIME, "time without time zone", decode_time_text, decode_int8_binary,
                 EQUAL_BYTES),
    INTEGER_TYPE(OID_TIMESTAMP, "timestamp without time zone", decode_timestamp_text,
                 decode_int8_binary, EQUAL_BYTES),
    INTEGER_TYPE(OID_TIMESTAMPTZ, "timestamp with time zone", decode_timestamptz_text,
                 decode_int8_binary, EQUAL_DECODED),
    WIDE_TYPE(OID_TIMETZ, "time with time zone", decode_timetz_text, decode_timetz_binary,
              EQUAL_DECODED),
    WIDE_TYPE(OID_INTERVAL, "interval", decode_interval_text, decode_interval_binary,
              EQUAL_DECODED),
    WIDE_TYPE(OID_UUID, "uuid", decode_uuid_text, decode_uuid_binary, EQUAL_BYTES),
    TEXT_TYPE(OID_TEXT, "text", PG_KEY_COLLATED, decode_bytes, EQUAL_BYTES),
    TEXT_TYPE(OID_VARCHAR, "character varying", PG_KEY_COLLATED, decode_bytes, EQUAL_BYTES),
    TEXT_TYPE(OID_BPCHAR, "character", PG_KEY_COLLATED, decode_padded, EQUAL_DECODED),
    TEXT_TYPE(OID_NAME, "name", PG_KEY_BYTES, decode_bytes, EQUAL_BYTES),
    {OID_BYTEA, "bytea", PG_KEY_BYTEA_TEXT, PG_KEY_BYTES, decode_bytea_text, decode_bytes,
     EQUAL_DECODED},
    {OID_NUMERIC, "numeric", PG_KEY_NUMERIC_TEXT, PG_KEY_NUMERIC_BINARY, decode_numeric_text,
     decode_numeric_binary, EQUAL_DECODED},
    {OID_MONEY, "money", PG_KEY_NONE, PG_KEY_INTEGER, decode_bytes, decode_int8_binary,
     EQUAL_BYTES},
    NO_ORDER(OID_INET, "inet", EQUAL_BYTES),
    NO_ORDER(OID_CIDR, "cidr", EQUAL_BYTES),
    NO_ORDER(OID_MACADDR, "macaddr", EQUAL_BYTES),
    NO_ORDER(OID_MACADDR8, "macaddr8", EQUAL_BYTES),
    NO_ORDER(OID_BIT, "bit", EQUAL_BYTES),
    NO_ORDER(OID_VARBIT, "bit varying", EQUAL_BYTES),
    NO_ORDER(OID_PG_LSN, "pg_lsn", EQUAL_BYTES),
    NO_ORDER(OID_XID, "xid", EQUAL_BYTES),
    NO_ORDER(OID_XID8, "xid8", EQUAL_BYTES),
    NO_ORDER(OID_CID, "cid", EQUAL_BYTES),
    NO_ORDER(OID_TID, "tid", EQUAL_BYTES),
    /* arrays and ranges whose elements have one text form each */
    NO_ORDER(1000, "boolean[]", EQUAL_TEXT),
    NO_ORDER(1001, "bytea[]", EQUAL_TEXT),
    NO_ORDER(1003, "name[]", EQUAL_TEXT),
    NO_ORDER(1005, "smallint[]", EQUAL_TEXT),
    NO_ORDER(1007, "integer[]", EQUAL_TEXT),
    NO_ORDER(1009, "text[]", EQUAL_TEXT),
    NO_ORDER(1015, "character varying[]", EQUAL_TEXT),
    NO_ORDER(1016, "bigint[]", EQUAL_TEXT),
    NO_ORDER(1028, "oid[]", EQUAL_TEXT),
    NO_ORDER(1115, "timestamp without time zone[]", EQUAL_TEXT),
    NO_ORDER(1182, "date[]", EQUAL_TEXT),
    NO_ORDER(2951, "uuid[]", EQUAL_TEXT),
    NO_ORDER(3904, "int4range", EQUAL_TEXT),
    NO_ORDER(3908, "tsrange", EQUAL_TEXT),
    NO_ORDER(3912, "daterange", EQUAL_TEXT),
    NO_ORDER(3926, "int8range", EQUAL_TEXT),
    /* named for messages only */
    {OID_JSON, "json", PG_KEY_NONE, PG_KEY_NONE, NULL, NULL, EQUAL_DECODED},
    {OID_JSONB, "jsonb", PG_KEY_NONE, PG_KEY_NONE, NULL, NULL, EQUAL_DECODED},
    {OID_UNKNOWN, "unknown", PG_KEY_NONE, PG_KEY_NONE, NULL, NULL, EQUAL_DECODED},
};

static const struct pg_type *find_type(uint32_t oid)
{
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (types[i].oid == oid)
            return &types[i];
    return NULL;
}

const char *pg_type_name(uint32_t oid)
{
    const struct pg_type *type = find_type(oid);
    return type ? type->name : NULL;
}

bool pg_type_has_style(uint32_t oid)
{
    return oid == OID_DATE || oid == OID_TIMESTAMP || oid == OID_TIMESTAMPTZ ||
           oid == OID_INTERVAL || oid == OID_TIMETZ || oid == OID_TIME;
}

/* ---- collation ---- */

bool pg_collation_open(struct pg_collation *collation, const char *name, char provider)
{
    *collation = (struct pg_collation){0};
    if (!name || !*name || strcmp(name, "C") == 0 || strcmp(name, "POSIX") == 0 ||
        strcasecmp(name, "C.UTF-8") == 0 || strcasecmp(name, "C.UTF8") == 0)
        return true;
    if (provider == 'i')
        return false;
    collation->locale = newlocale(LC_COLLATE_MASK | LC_CTYPE_MASK, name, (locale_t)0);
    return collation->locale != (locale_t)0;
}

void pg_collation_close(struct pg_collation *collation)
{
    if (collation->locale)
        freelocale(collation->locale);
    buffer_release(&collation->scratch[0]);
    buffer_release(&collation->scratch[1]);
    collation->locale = (locale_t)0;
}

static const char *terminated(struct buffer *scratch, const struct pg_key *key)
{
    buffer_clear(scratch);
    buffer_append(scratch, key->bytes, (size_t)key->length);
    buffer_append(scratch, "", 1);
    return buffer_head(scratch);
}

static int compare_bytes(const struct pg_key *a, const struct pg_key *b)
{
    int32_t shared = a->length < b->length ? a->length : b->length;
    int order = memcmp(a->bytes, b->bytes, (size_t)shared);
    return order ? order : (a->length > b->length) - (a->length < b->length);
}

/* Deterministic collations: what strcoll finds alike is told apart by its bytes. */
static int compare_collated(struct pg_collation *collation, const struct pg_key *a,
                            const struct pg_key *b)
{
    if (!collation || !collation->locale)
        return compare_bytes(a, b);
    int order = strcoll_l(terminated(&collation->scratch[0], a),
                          terminated(&collation->scratch[1], b), collation->locale);
    return order ? order : compare_bytes(a, b);
}

/* ---- order and equality ---- */

bool pg_order_init(struct pg_order *order, uint32_t oid, int format, struct pg_collation *collation)
{
    const struct pg_type *type = find_type(oid);
    *order = (struct pg_order){.collation = collation};
    if (!type || format < 0 || format > 1)
        return false;
    order->kind = format ? type->binary_kind : type->text_kind;
    order->decode = format ? type->binary : type->text;
    return order->kind != PG_KEY_NONE;
}

bool pg_order_init_equal(struct pg_order *order, uint32_t oid, int type_size, int format)
{
    const struct pg_type *type = find_type(oid);
    bool is_enum = !type && oid >= OID_FIRST_USER && type_size == 4;
    if (is_enum || (type && (type->equality == EQUAL_BYTES ||
                             (type->equality == EQUAL_TEXT && format == 0)))) {
        *order = (struct pg_order){.kind = PG_KEY_BYTES, .decode = decode_bytes};
        return format == 0 || format == 1;
    }
    return pg_order_init(order, oid, format, NULL);
}

bool pg_order_decode(const struct pg_order *order, const char *bytes, int32_t length,
                     struct pg_key *key)
{
    key->length = length;
    return length < 0 || order->decode(bytes, length, key);
}

int pg_order_compare_slow(const struct pg_order *order, const struct pg_key *a,
                          const struct pg_key *b)
{
    switch (order->kind) {
    case PG_KEY_WIDE:
        return (a->wide > b->wide) - (a->wide < b->wide);
    case PG_KEY_BYTES:
        return compare_bytes(a, b);
    case PG_KEY_COLLATED:
        return compare_collated(order->collation, a, b);
    case PG_KEY_BYTEA_TEXT:
        return compare_bytea_text(a, b);
    case PG_KEY_NUMERIC_TEXT:
        return numeric_compare_text(a->bytes, a->length, b->bytes, b->length);
    case PG_KEY_NUMERIC_BINARY:
        return numeric_compare_binary(a->bytes, a->length, b->bytes, b->length);
    case PG_KEY_INTEGER:
    case PG_KEY_NONE:
        break;
    }
    return pg_order_compare(order, a, b);
}

void pg_order_canonical(const struct pg_order *order, const struct pg_key *key, struct buffer *out)
{
    switch (order->kind) {
    case PG_KEY_INTEGER:
        buffer_append(out, &key->integer, sizeof key->integer);
        break;
    case PG_KEY_WIDE:
        buffer_append(out, &key->wide, sizeof key->wide);
        break;
    case PG_KEY_BYTEA_TEXT:
        canonical_bytea_text(key, out);
        break;
    case PG_KEY_NUMERIC_TEXT:
        numeric_canonical_text(key->bytes, key->length, out);
        break;
    case PG_KEY_NUMERIC_BINARY:
        numeric_canonical_binary(key->bytes, key->length, out);
        break;
    case PG_KEY_BYTES:
    case PG_KEY_COLLATED:
    case PG_KEY_NONE:
        buffer_append(out, key->bytes, (size_t)key->length);
        break;
    }
}
