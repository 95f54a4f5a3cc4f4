/* shardkey.c: key values in text or binary form to canonical bytes, and from these to a bucket. */
#include "pgshunt/shardkey.h"

#include <endian.h>
#include <stdio.h>
#include <string.h>

#define XXH_INLINE_ALL /* bigint keys are of a fixed length: a handful of instructions then */
#include <xxhash.h>

#include "pgshunt/arena.h"
#include "pgshunt/pgtypes.h"

/*
 * Text keys are hashed as they are. char(n) is the exception Postgres makes: its trailing blanks do
 * not count, and turning it into text drops them. So a value declared as bpchar loses them here;
 * whoever reads a char(n) key column in text form (COPY, replication) has to drop them as well.
 */

#define UUID_BYTES 16

/* Seed and constants of Postgres' hash partitioning: on-disk format there, so they never change. */
#define PG_PARTITION_SEED 0x7A5B22367996DCFDULL
#define PG_COMBINE_CONSTANT 0x49a0f4dd15e5a8e3ULL
#define PG_HASH_INITIAL (0x9e3779b9U + 3923095U)

void shardkey_of_bigint(int64_t value, struct shardkey *key)
{
    uint64_t bits = htobe64((uint64_t)value);
    memcpy(key->small, &bits, sizeof bits);
    key->bytes = key->small;
    key->length = sizeof bits;
}

/* Big-endian two's complement of `length` bytes (at most 8). */
static int64_t get_integer(const unsigned char *bytes, size_t length)
{
    uint64_t bits = bytes[0] & 0x80 ? UINT64_MAX : 0;
    for (size_t i = 0; i < length; i++)
        bits = bits << 8 | bytes[i];
    return (int64_t)bits;
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

#define SAFE_DIGITS 18 /* so many make no number that is too large */

/* Digits and nothing else, few enough. */
static bool parse_digits(const char *at, size_t length, int64_t *value)
{
    int64_t sum = 0;
    if (length == 0 || length > SAFE_DIGITS)
        return false;
    for (const char *end = at + length; at < end; at++) {
        unsigned digit = (unsigned)*at - '0';
        if (digit > 9)
            return false;
        sum = sum * 10 + digit;
    }
    *value = sum;
    return true;
}

/* What int8in takes: blanks around, one sign, decimal digits. Counts downwards, as there is one more
 * negative number than there are positive ones. */
static bool parse_bigint(const char *at, size_t length, int64_t *value)
{
    const char *end = at + length;
    while (at < end && is_space(*at))
        at++;
    bool negative = at < end && *at == '-';
    if (at < end && (*at == '-' || *at == '+'))
        at++;
    if (at == end || !is_digit(*at))
        return false;
    int64_t sum = 0;
    for (; at < end && is_digit(*at); at++)
        if (__builtin_mul_overflow(sum, 10, &sum) || __builtin_sub_overflow(sum, *at - '0', &sum))
            return false;
    while (at < end && is_space(*at))
        at++;
    if (at != end || (!negative && sum == INT64_MIN))
        return false;
    *value = negative ? sum : -sum;
    return true;
}

static int hex_digit(char c)
{
    if (is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* What uuid_in takes: 32 hex digits, a hyphen after any group of four, braces around or not. */
static bool parse_uuid(const char *at, size_t length, unsigned char *out)
{
    const char *end = at + length;
    bool braces = at < end && *at == '{';
    at += braces;
    for (int i = 0; i < UUID_BYTES; i++) {
        if (end - at < 2)
            return false;
        int high = hex_digit(at[0]), low = hex_digit(at[1]);
        if (high < 0 || low < 0)
            return false;
        out[i] = (unsigned char)(high << 4 | low);
        at += 2;
        if (at < end && *at == '-' && i % 2 == 1 && i < UUID_BYTES - 1)
            at++;
    }
    if (braces && (at == end || *at++ != '}'))
        return false;
    return at == end;
}

static bool put_text(struct shardkey *key, const char *text, size_t length)
{
    /* Postgres' text never holds a zero byte: the server refuses such a value. */
    if (length && memchr(text, '\0', length))
        return false;
    key->bytes = (const unsigned char *)text;
    key->length = length;
    return true;
}

bool shardkey_from_text(enum key_type type, const char *text, size_t length, struct shardkey *key)
{
    int64_t value;
    switch (type) {
    case KEY_BIGINT:
        if (!parse_digits(text, length, &value) && !parse_bigint(text, length, &value))
            return false;
        shardkey_of_bigint(value, key);
        return true;
    case KEY_UUID:
        key->bytes = key->small;
        key->length = UUID_BYTES;
        return parse_uuid(text, length, key->small);
    case KEY_TEXT:
        return put_text(key, text, length);
    }
    return false;
}

static bool binary_bigint(uint32_t type_oid, const unsigned char *bytes, size_t length,
                          struct shardkey *key)
{
    size_t width = type_oid == OID_INT8   ? 8
                   : type_oid == OID_INT4 ? 4
                   : type_oid == OID_INT2 ? 2
                   : type_oid == 0        ? length
                                          : 0;
    if (width != length || (width != 2 && width != 4 && width != 8))
        return false;
    shardkey_of_bigint(get_integer(bytes, length), key);
    return true;
}

static bool binary_uuid(uint32_t type_oid, const unsigned char *bytes, size_t length,
                        struct shardkey *key)
{
    if ((type_oid != 0 && type_oid != OID_UUID) || length != UUID_BYTES)
        return false;
    memcpy(key->small, bytes, UUID_BYTES);
    key->bytes = key->small;
    key->length = UUID_BYTES;
    return true;
}

static bool binary_text(uint32_t type_oid, const char *bytes, size_t length, struct shardkey *key)
{
    switch (type_oid) {
    case OID_BPCHAR:
        while (length && bytes[length - 1] == ' ')
            length--;
        return put_text(key, bytes, length);
    case 0:
    case OID_TEXT:
    case OID_VARCHAR:
    case OID_UNKNOWN:
        return put_text(key, bytes, length);
    default:
        return false;
    }
}

bool shardkey_from_binary(enum key_type type, uint32_t type_oid, const void *bytes, size_t length,
                          struct shardkey *key)
{
    switch (type) {
    case KEY_BIGINT:
        return binary_bigint(type_oid, bytes, length, key);
    case KEY_UUID:
        return binary_uuid(type_oid, bytes, length, key);
    case KEY_TEXT:
        return binary_text(type_oid, bytes, length, key);
    }
    return false;
}

static uint64_t rotate_64(uint64_t x, int bits)
{
    return x << bits | x >> (64 - bits);
}

/* XXH64 with seed 0 of 8 bytes: what the library makes of every bigint key in many more steps. */
static uint64_t xxh64_of_8(const unsigned char *bytes)
{
    const uint64_t prime1 = 0x9E3779B185EBCA87ULL, prime2 = 0xC2B2AE3D27D4EB4FULL,
                   prime3 = 0x165667B19E3779F9ULL, prime4 = 0x85EBCA77C2B2AE63ULL,
                   prime5 = 0x27D4EB2F165667C5ULL;
    uint64_t lane, hash = prime5 + 8;
    memcpy(&lane, bytes, sizeof lane);
    hash ^= rotate_64(le64toh(lane) * prime2, 31) * prime1;
    hash = rotate_64(hash, 27) * prime1 + prime4;
    hash = (hash ^ hash >> 33) * prime2;
    hash = (hash ^ hash >> 29) * prime3;
    return hash ^ hash >> 32;
}

unsigned shardkey_bucket(const struct shardkey *key)
{
    uint64_t hash = key->length == 8 ? xxh64_of_8(key->bytes) : XXH64(key->bytes, key->length, 0);
    return (unsigned)(hash >> (64 - SHARDKEY_BUCKET_BITS));
}

/*
 * Postgres' hash functions: Bob Jenkins' lookup3 mixing over 12-byte blocks read as little-endian
 * words. Two things differ from the published hashlittle2(): a 64-bit seed is mixed in first, and in
 * the last block the lowest byte of c stays free (it once held the length).
 */
struct jenkins {
    uint32_t a, b, c;
};

static uint32_t rotate(uint32_t x, int bits)
{
    return x << bits | x >> (32 - bits);
}

static void jenkins_mix(struct jenkins *s)
{
    uint32_t a = s->a, b = s->b, c = s->c;
    a -= c, a ^= rotate(c, 4), c += b;
    b -= a, b ^= rotate(a, 6), a += c;
    c -= b, c ^= rotate(b, 8), b += a;
    a -= c, a ^= rotate(c, 16), c += b;
    b -= a, b ^= rotate(a, 19), a += c;
    c -= b, c ^= rotate(b, 4), b += a;
    *s = (struct jenkins){a, b, c};
}

static uint64_t jenkins_final(const struct jenkins *s)
{
    uint32_t a = s->a, b = s->b, c = s->c;
    c ^= b, c -= rotate(b, 14);
    a ^= c, a -= rotate(c, 11);
    b ^= a, b -= rotate(a, 25);
    c ^= b, c -= rotate(b, 16);
    a ^= c, a -= rotate(c, 4);
    b ^= a, b -= rotate(a, 14);
    c ^= b, c -= rotate(b, 24);
    return (uint64_t)b << 32 | c;
}

static struct jenkins jenkins_start(size_t length)
{
    uint32_t initial = PG_HASH_INITIAL + (uint32_t)length;
    struct jenkins s = {initial, initial, initial};
    s.a += (uint32_t)(PG_PARTITION_SEED >> 32);
    s.b += (uint32_t)PG_PARTITION_SEED;
    jenkins_mix(&s);
    return s;
}

static uint32_t little_endian(const unsigned char *p)
{
    return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}

static uint64_t pg_hash_bytes(const unsigned char *at, size_t length)
{
    struct jenkins s = jenkins_start(length);
    for (; length >= 12; at += 12, length -= 12) {
        s.a += little_endian(at);
        s.b += little_endian(at + 4);
        s.c += little_endian(at + 8);
        jenkins_mix(&s);
    }
    unsigned char rest[12] = {0};
    if (length > 8)
        memcpy(rest + 9, at + 8, length - 8);
    memcpy(rest, at, length > 8 ? 8 : length);
    s.a += little_endian(rest);
    s.b += little_endian(rest + 4);
    s.c += little_endian(rest + 8);
    return jenkins_final(&s);
}

/* The halves are folded so that a value hashes alike as int2, int4 and int8. */
static uint64_t pg_hash_bigint(const unsigned char *bytes)
{
    int64_t value = get_integer(bytes, 8);
    uint32_t low = (uint32_t)value, high = (uint32_t)((uint64_t)value >> 32);
    struct jenkins s = jenkins_start(sizeof low);
    s.a += low ^ (value >= 0 ? high : ~high);
    return jenkins_final(&s);
}

static uint64_t pg_hash(enum key_type type, const struct shardkey *key)
{
    return type == KEY_BIGINT ? pg_hash_bigint(key->bytes) : pg_hash_bytes(key->bytes, key->length);
}

/* hash_combine64(). */
static uint64_t pg_combine(uint64_t row, uint64_t hash)
{
    return row ^ (hash + PG_COMBINE_CONSTANT + (row << 54) + (row >> 7));
}

unsigned shardkey_postgres_remainder(enum key_type type, const struct shardkey *key,
                                     unsigned modulus)
{
    return (unsigned)(pg_combine(0, pg_hash(type, key)) % modulus);
}

unsigned shardkey_parts_postgres_remainder(const enum key_type *types, const struct shardkey *parts,
                                           unsigned count, unsigned modulus)
{
    uint64_t row = 0;
    for (unsigned i = 0; i < count; i++)
        row = pg_combine(row, pg_hash(types[i], &parts[i]));
    return (unsigned)(row % modulus);
}

#define PARTS_ROOM 128

/* The parts in a row, where none is a text and there is room: that hashes several times as quick as
 * piece by piece. 0: it is not so. */
static size_t fixed_parts(const enum key_type *types, const struct shardkey *parts, unsigned count,
                          unsigned char *row)
{
    size_t length = 0;
    for (unsigned i = 0; i < count; i++) {
        if (types[i] == KEY_TEXT || length + parts[i].length > PARTS_ROOM)
            return 0;
        memcpy(row + length, parts[i].bytes, parts[i].length);
        length += parts[i].length;
    }
    return length;
}

unsigned shardkey_parts_bucket(const enum key_type *types, const struct shardkey *parts,
                               unsigned count)
{
    unsigned char row[PARTS_ROOM];
    size_t fixed = fixed_parts(types, parts, count, row);
    if (fixed)
        return (unsigned)(XXH64(row, fixed, 0) >> (64 - SHARDKEY_BUCKET_BITS));
    XXH64_state_t state; /* never fails: the state is ours */
    XXH64_reset(&state, 0);
    for (unsigned i = 0; i < count; i++) {
        unsigned char length[4];
        for (int b = 0; b < 4; b++)
            length[b] = (unsigned char)(parts[i].length >> (24 - 8 * b));
        if (types[i] == KEY_TEXT)
            XXH64_update(&state, length, sizeof length);
        XXH64_update(&state, parts[i].bytes, parts[i].length);
    }
    return (unsigned)(XXH64_digest(&state) >> (64 - SHARDKEY_BUCKET_BITS));
}

const char *shardkey_text(enum key_type type, const unsigned char *bytes, size_t length,
                          struct arena *arena)
{
    if (type == KEY_BIGINT)
        return arena_printf(arena, "%lld", (long long)get_integer(bytes, 8));
    if (type == KEY_TEXT)
        return arena_strndup(arena, (const char *)bytes, length);
    char text[37], *at = text;
    for (size_t i = 0; i < 16; i++)
        at += sprintf(at, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", bytes[i]);
    return arena_strndup(arena, text, sizeof text - 1);
}
