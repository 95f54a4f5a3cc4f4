/*
 * auth_query_host.c: whose address a client's is, in libuv's thread pool: the name that belongs to the address,
 * if that name also has this address (else anybody with a name server of his own could be anyone).
 */
#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "proxy/auth_query_internal.h"
#include "proxy/peer.h"

/* The pool has four threads, which the names of nodes need, too: addresses whose name servers do not answer must
 * not take them all. */
#define AT_ONCE 2

struct host_look_up {
    union {
        uv_getnameinfo_t name;
        uv_getaddrinfo_t address;
    } request;
    struct auth_query *query;
    struct entry *entry;
    struct sockaddr_storage address;
    char name[NI_MAXHOST];
};

static void start(struct auth_query *query, struct entry *entry);

static void finish(struct host_look_up *look_up, enum look_up outcome)
{
    struct auth_query *query = look_up->query;
    struct entry *next = query->stopped ? NULL : query->hosts;
    query->hosts_running--;
    if (!query->stopped)
        auth_query_answer(query, look_up->entry, outcome,
                          outcome == LOOK_UP_FOUND ? look_up->name : NULL,
                          query->topology->config->dns_ttl * 1000);
    free(look_up);
    if (!next)
        return;
    query->hosts = next->next;
    start(query, next);
}

static bool same_address(const struct sockaddr *one, const struct sockaddr *other)
{
    if (one->sa_family != other->sa_family)
        return false;
    if (one->sa_family == AF_INET)
        return memcmp(&((const struct sockaddr_in *)one)->sin_addr,
                      &((const struct sockaddr_in *)other)->sin_addr, 4) == 0;
    return one->sa_family == AF_INET6 &&
           memcmp(&((const struct sockaddr_in6 *)one)->sin6_addr,
                  &((const struct sockaddr_in6 *)other)->sin6_addr, 16) == 0;
}

static void on_addresses(uv_getaddrinfo_t *request, int status, struct addrinfo *list)
{
    struct host_look_up *look_up = request->data;
    const struct sockaddr *client = (const struct sockaddr *)&look_up->address;
    enum look_up outcome = LOOK_UP_ABSENT;
    for (const struct addrinfo *one = status == 0 ? list : NULL; one; one = one->ai_next)
        if (same_address(one->ai_addr, client))
            outcome = LOOK_UP_FOUND;
    uv_freeaddrinfo(list);
    finish(look_up, outcome);
}

static void on_name(uv_getnameinfo_t *request, int status, const char *name, const char *service)
{
    struct host_look_up *look_up = request->data;
    uv_loop_t *loop = request->loop;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    (void)service;
    if (status == 0)
        snprintf(look_up->name, sizeof look_up->name, "%s", name);
    look_up->request.address.data = look_up;
    if (status != 0 || uv_getaddrinfo(loop, &look_up->request.address, on_addresses, look_up->name,
                                      NULL, &hints) != 0)
        finish(look_up, LOOK_UP_ABSENT);
}

/* An IPv4 address in IPv6 clothes has its name as one of IPv4. */
static bool parse_address(const char *text, struct sockaddr_storage *address)
{
    if (strncmp(text, "::ffff:", 7) == 0 && strchr(text, '.'))
        text += 7;
    return uv_ip4_addr(text, 0, (struct sockaddr_in *)address) == 0 ||
           uv_ip6_addr(text, 0, (struct sockaddr_in6 *)address) == 0;
}

static void start(struct auth_query *query, struct entry *entry)
{
    struct host_look_up *look_up = mem_alloc(sizeof *look_up);
    query->hosts_running++;
    look_up->query = query;
    look_up->entry = entry;
    look_up->request.name.data = look_up;
    if (!parse_address(entry->user, &look_up->address) ||
        uv_getnameinfo(&query->loop, &look_up->request.name, on_name,
                       (const struct sockaddr *)&look_up->address, NI_NAMEREQD) != 0)
        finish(look_up, LOOK_UP_ABSENT);
}

void auth_query_find_host(struct auth_query *query, struct entry *entry)
{
    if (query->hosts_running < AT_ONCE) {
        start(query, entry);
        return;
    }
    struct entry **last = &query->hosts;
    while (*last)
        last = &(*last)->next;
    *last = entry;
}
