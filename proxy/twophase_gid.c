/* twophase_gid.c: makes and reads names of prepared transactions. */
#include "proxy/twophase_gid.h"

#include <assert.h>
#include <inttypes.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#define PLAIN "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-"
#define DECISION ":d"

static uint64_t proxy_id; /* of this process */
static pthread_once_t proxy_id_once = PTHREAD_ONCE_INIT;

static void make_proxy_id(void)
{
    RAND_bytes((unsigned char *)&proxy_id, sizeof proxy_id);
}

void gid_name(const char *name, char out[GID_NAME_SIZE])
{
    size_t len = strlen(name);
    if (len && len < GID_NAME_SIZE && strspn(name, PLAIN) == len)
        memcpy(out, name, len + 1);
    else
        snprintf(out, GID_NAME_SIZE, "x%016" PRIx64, (uint64_t)XXH64(name, len, 0));
}

void gid_make(const char *database, const char *shard, char out[GID_SIZE])
{
    static atomic_ullong number;
    char database_name[GID_NAME_SIZE], shard_name[GID_NAME_SIZE];
    uint64_t noise = 0;
    pthread_once(&proxy_id_once, make_proxy_id);
    RAND_bytes((unsigned char *)&noise, sizeof noise);
    gid_name(database, database_name);
    gid_name(shard, shard_name);
    snprintf(out, GID_SIZE, GID_PREFIX "%08" PRIx32 ":%s:%s:%llu:%016" PRIx64 DECISION,
             (uint32_t)proxy_id, database_name, shard_name,
             (unsigned long long)atomic_fetch_add(&number, 1) + 1, noise);
}

void gid_part(const char *decision, int part, char out[GID_SIZE])
{
    int len = (int)(strlen(decision) - strlen(DECISION));
    assert(len > 0 && strcmp(decision + len, DECISION) == 0);
    snprintf(out, GID_SIZE, "%.*s:%d", len, decision, part);
}

/* One part and the colon behind it. NULL: there is none, or it is none of ours. */
static const char *read_part(const char *at, char *out)
{
    size_t len = strspn(at, PLAIN);
    if (!len || len >= GID_NAME_SIZE || at[len] != ':')
        return NULL;
    memcpy(out, at, len);
    out[len] = '\0';
    return at + len + 1;
}

bool gid_read(const char *gid, struct gid_parts *parts)
{
    char proxy[GID_NAME_SIZE], number[GID_NAME_SIZE];
    const char *at = gid;
    if (strncmp(gid, GID_PREFIX, strlen(GID_PREFIX)) != 0 || strlen(gid) >= GID_SIZE)
        return false;
    at = read_part(at + strlen(GID_PREFIX), proxy);
    at = at ? read_part(at, parts->database) : NULL;
    at = at ? read_part(at, parts->shard) : NULL;
    at = at ? read_part(at, number) : NULL;
    size_t random = at ? strspn(at, PLAIN) : 0;
    if (!random)
        return false;
    const char *part = at + random;
    int base = (int)(part - gid);
    if (*part && strcmp(part, DECISION) != 0 &&
        (*part != ':' || !part[1] || part[1 + strspn(part + 1, "0123456789")]))
        return false;
    snprintf(parts->decision, GID_SIZE, "%.*s%s", base, gid, *part ? DECISION : "");
    return true;
}
