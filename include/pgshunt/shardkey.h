/*
 * shardkey.h: from a key's value, in whatever form it came, to its bucket.
 *
 *   value --> canonical bytes --> XXH64 (seed 0) --> top 14 bits = bucket 0..16383
 *
 * Canonical bytes: bigint (and every narrower integer): 8 bytes big-endian two's complement;
 * uuid: 16 bytes; text: its UTF-8 bytes. The same value lands in the same bucket whether it came as a
 * literal, a text parameter, a binary parameter, a COPY field or a replication tuple: everything goes
 * through the two functions here, and tests/unit/shardkey_vectors.h proves it.
 */
#ifndef PGSHUNT_SHARDKEY_H
#define PGSHUNT_SHARDKEY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pgshunt/error.h"

#define SHARDKEY_BUCKETS 16384
#define SHARDKEY_BUCKET_BITS 14

enum key_type { KEY_BIGINT, KEY_UUID, KEY_TEXT };
enum key_hash { HASH_XXH64, HASH_POSTGRES };
enum key_map { MAP_HASH, MAP_LIST, MAP_RANGE }; /* see shardmap.h */

/* Canonical form of a key value. Integers and uuids live in `small`; text points into the input. */
struct shardkey {
    const unsigned char *bytes; /* points into small, or into the caller's memory (KEY_TEXT) */
    size_t length;
    unsigned char small[16];
};

/*
 * `text` is a value in Postgres' text form: an integer literal ("42", "+7", " 42 "), a uuid in any
 * form Postgres takes, or text. False: not a value of this type; the server would refuse it too.
 */
MUST_CHECK bool shardkey_from_text(enum key_type type, const char *text, size_t length,
                                   struct shardkey *key);
/*
 * `bytes` is a value in binary form. `type_oid` is the parameter's declared type, 0 if the client left
 * it open: then an integer's width tells (2, 4 or 8 bytes), a uuid is 16 bytes, text is itself.
 * text/varchar keys also take unknown (705); a bigint key given as numeric is not understood: false.
 */
MUST_CHECK bool shardkey_from_binary(enum key_type type, uint32_t type_oid, const void *bytes,
                                     size_t length, struct shardkey *key);
/* The same, of an integer that was read already. */
void shardkey_of_bigint(int64_t value, struct shardkey *key);
struct arena;
/* A canonical value as Postgres writes it, in `arena`. */
const char *shardkey_text(enum key_type type, const unsigned char *bytes, size_t length,
                          struct arena *arena);
/* The bucket, 0 .. SHARDKEY_BUCKETS - 1, for HASH_XXH64. */
unsigned shardkey_bucket(const struct shardkey *key);
/* Of a key of several columns, of any types; XXH64 over all canonical bytes, texts with their length. */
unsigned shardkey_parts_bucket(const enum key_type *types, const struct shardkey *parts,
                               unsigned count);
unsigned shardkey_parts_postgres_remainder(const enum key_type *types, const struct shardkey *parts,
                                           unsigned count, unsigned modulus);
/* Postgres' own hash partitioning (satisfies_hash_partition with `modulus`): the remainder. */
unsigned shardkey_postgres_remainder(enum key_type type, const struct shardkey *key,
                                     unsigned modulus);

#endif
