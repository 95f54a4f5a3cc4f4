/*
 * shardkey_vectors.h: key values with their canonical bytes, bucket and place in Postgres' own hash partitions.
 *
 * One table for every path a key can take (literal, text parameter, binary parameter, COPY field,
 * replication tuple): each must give these numbers. The buckets are the upper 14 bits of XXH64 (libxxhash,
 * seed 0) over the canonical bytes; the remainders were read from PostgreSQL 15: tables PARTITION BY
 * HASH with 7 and with 16 partitions, one row a value, and the partition each row was found in. int2
 * and int4 columns were checked there to agree with bigint.
 */
#ifndef PGSHUNT_SHARDKEY_VECTORS_H
#define PGSHUNT_SHARDKEY_VECTORS_H

#include <stddef.h>

#include "pgshunt/shardkey.h"

struct shardkey_vector {
    enum key_type type;
    const char *text;      /* Postgres' output form */
    const char *canonical; /* in hex */
    unsigned bucket;
    unsigned pg_mod_7;
    unsigned pg_mod_16;
};

/* clang-format off */
static const struct shardkey_vector shardkey_vectors[] = {
    {KEY_BIGINT, "0", "0000000000000000", 3378, 4, 0},
    {KEY_BIGINT, "1", "0000000000000001", 10183, 5, 8},
    {KEY_BIGINT, "-1", "ffffffffffffffff", 8564, 0, 5},
    {KEY_BIGINT, "2", "0000000000000002", 13902, 6, 10},
    {KEY_BIGINT, "7", "0000000000000007", 11365, 6, 7},
    {KEY_BIGINT, "42", "000000000000002a", 10416, 0, 2},
    {KEY_BIGINT, "-42", "ffffffffffffffd6", 9663, 4, 2},
    {KEY_BIGINT, "100", "0000000000000064", 6244, 4, 9},
    {KEY_BIGINT, "127", "000000000000007f", 12352, 5, 3},
    {KEY_BIGINT, "128", "0000000000000080", 4048, 3, 2},
    {KEY_BIGINT, "255", "00000000000000ff", 4971, 6, 10},
    {KEY_BIGINT, "256", "0000000000000100", 6409, 5, 14},
    {KEY_BIGINT, "-128", "ffffffffffffff80", 12381, 6, 3},
    {KEY_BIGINT, "-129", "ffffffffffffff7f", 16348, 2, 10},
    {KEY_BIGINT, "32767", "0000000000007fff", 6778, 5, 14},
    {KEY_BIGINT, "-32768", "ffffffffffff8000", 397, 0, 13},
    {KEY_BIGINT, "32768", "0000000000008000", 645, 4, 2},
    {KEY_BIGINT, "65535", "000000000000ffff", 6245, 2, 14},
    {KEY_BIGINT, "65536", "0000000000010000", 10319, 0, 4},
    {KEY_BIGINT, "123456789", "00000000075bcd15", 6053, 4, 13},
    {KEY_BIGINT, "2147483647", "000000007fffffff", 10789, 0, 15},
    {KEY_BIGINT, "-2147483648", "ffffffff80000000", 8843, 3, 6},
    {KEY_BIGINT, "2147483648", "0000000080000000", 8496, 3, 6},
    {KEY_BIGINT, "-2147483649", "ffffffff7fffffff", 10465, 0, 15},
    {KEY_BIGINT, "4294967295", "00000000ffffffff", 8692, 0, 5},
    {KEY_BIGINT, "4294967296", "0000000100000000", 4586, 5, 8},
    {KEY_BIGINT, "9999999999", "00000002540be3ff", 8486, 2, 10},
    {KEY_BIGINT, "1234567890123456789", "112210f47de98115", 221, 6, 0},
    {KEY_BIGINT, "9223372036854775807", "7fffffffffffffff", 271, 3, 6},
    {KEY_BIGINT, "-9223372036854775808", "8000000000000000", 10698, 0, 15},
    {KEY_UUID, "00000000-0000-0000-0000-000000000000", "00000000000000000000000000000000", 11202, 2, 5},
    {KEY_UUID, "ffffffff-ffff-ffff-ffff-ffffffffffff", "ffffffffffffffffffffffffffffffff", 10696, 0, 1},
    {KEY_UUID, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc999c0b4ef8bb6d6bb9bd380a11", 2808, 6, 0},
    {KEY_UUID, "01890a5d-ac96-774b-bcce-b302099a8057", "01890a5dac96774bbcceb302099a8057", 13809, 1, 0},
    {KEY_UUID, "123e4567-e89b-12d3-a456-426614174000", "123e4567e89b12d3a456426614174000", 4670, 5, 5},
    {KEY_UUID, "00000000-0000-0000-0000-000000000001", "00000000000000000000000000000001", 15479, 1, 13},
    {KEY_TEXT, "", "", 15313, 1, 6},
    {KEY_TEXT, "a", "61", 13459, 3, 14},
    {KEY_TEXT, "A", "41", 1218, 1, 11},
    {KEY_TEXT, "ab", "6162", 6525, 6, 0},
    {KEY_TEXT, "abc", "616263", 4399, 3, 5},
    {KEY_TEXT, "abcd", "61626364", 14208, 5, 1},
    {KEY_TEXT, "abcdefg", "61626364656667", 1560, 4, 1},
    {KEY_TEXT, "abcdefgh", "6162636465666768", 3764, 5, 5},
    {KEY_TEXT, "abcdefghi", "616263646566676869", 2556, 1, 3},
    {KEY_TEXT, "abcdefghijk", "6162636465666768696a6b", 8275, 3, 11},
    {KEY_TEXT, "abcdefghijkl", "6162636465666768696a6b6c", 4802, 3, 9},
    {KEY_TEXT, "abcdefghijklm", "6162636465666768696a6b6c6d", 9426, 0, 6},
    {KEY_TEXT, "user@example.com", "75736572406578616d706c652e636f6d", 14922, 1, 15},
    {KEY_TEXT, "  leading", "20206c656164696e67", 11873, 2, 15},
    {KEY_TEXT, "trailing  ", "747261696c696e672020", 15505, 1, 4},
    {KEY_TEXT, "Z\xc3\xbcrich", "5ac3bc72696368", 8572, 4, 6},
    {KEY_TEXT, "\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e", "e697a5e69cace8aa9e", 7262, 6, 14},
    {KEY_TEXT, "na\xc3\xafve \xf0\x9f\x90\x98 elephant", "6e61c3af766520f09f909820656c657068616e74", 1646, 0, 11},
    {KEY_TEXT, "xxxxxxxxxxxxxxxxxxxxxxx", "7878787878787878787878787878787878787878787878", 5602, 3, 6},
    {KEY_TEXT, "xxxxxxxxxxxxxxxxxxxxxxxx", "787878787878787878787878787878787878787878787878", 7207, 4, 11},
    {KEY_TEXT, "xxxxxxxxxxxxxxxxxxxxxxxxx", "78787878787878787878787878787878787878787878787878", 12330, 3, 11},
    {KEY_TEXT, "The quick brown fox jumps over the lazy dog", "54686520717569636b2062726f776e20666f78206a756d7073206f76657220746865206c617a7920646f67", 713, 1, 9},
    {KEY_TEXT, "customer_a", "637573746f6d65725f61", 12187, 5, 7},
    {KEY_TEXT, "42", "3432", 7033, 2, 11},
    {KEY_TEXT, "it's", "69742773", 11791, 2, 1},
};
/* clang-format on */

#define SHARDKEY_NVECTORS (sizeof shardkey_vectors / sizeof shardkey_vectors[0])

#endif
