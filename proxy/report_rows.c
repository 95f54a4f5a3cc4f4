/* report_rows.c: the rows of a report: found or made, summed, sorted; and texts made safe to show. */
#include "proxy/report.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "pgshunt/buffer.h"

struct report *report_new(struct topology *topology, unsigned parts)
{
    struct report *report = mem_alloc(sizeof *report);
    arena_init(&report->arena);
    report->parts = parts;
    report->topology = topology_ref(topology);
    report->closed = arena_array(&report->arena, unsigned char, topology->ndatabases);
    report->maps = arena_array(&report->arena, struct catalog_watch_report, topology->ndatabases);
    return report;
}

void report_free(struct report *report)
{
    struct report_pool *pool, *next;
    HASH_ITER(hh, report->pools, pool, next)
    node_unref(pool->node);
    HASH_CLEAR(hh, report->pools);
    HASH_CLEAR(hh, report->accounts);
    HASH_CLEAR(hh, report->stats);
    HASH_CLEAR(hh, report->prepared);
    topology_unref(report->topology);
    arena_free(&report->arena);
    free(report);
}

/* ---- texts ---- */

/* Length of the UTF-8 character at `p`, 0 if there is none. NUL ends every sequence. */
static int utf8_length(const unsigned char *p)
{
    int more = p[0] < 0x80                    ? 0
               : p[0] >= 0xc2 && p[0] <= 0xdf ? 1
               : (p[0] & 0xf0) == 0xe0        ? 2
               : p[0] >= 0xf0 && p[0] <= 0xf4 ? 3
                                              : -1;
    if (more < 0)
        return 0;
    for (int i = 1; i <= more; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    bool overlong = (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xf0 && p[1] < 0x90);
    bool surrogate = p[0] == 0xed && p[1] > 0x9f;
    bool beyond = p[0] == 0xf4 && p[1] > 0x8f;
    return overlong || surrogate || beyond ? 0 : more + 1;
}

const char *report_text(struct arena *arena, const char *text)
{
    const unsigned char *p = (const unsigned char *)text;
    char *copy = arena_alloc(arena, 4 * strlen(text) + 1), *at = copy;
    while (*p) {
        int length = utf8_length(p);
        if (length) {
            memcpy(at, p, (size_t)length);
            at += length;
            p += length;
        } else {
            at += sprintf(at, "\\x%02x", *p++);
        }
    }
    *at = '\0';
    return copy;
}

const char *report_address(struct arena *arena, const struct sockaddr_storage *address, int *port)
{
    char text[INET6_ADDRSTRLEN] = "";
    *port = 0;
    if (address->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
        inet_ntop(AF_INET, &v4->sin_addr, text, sizeof text);
        *port = ntohs(v4->sin_port);
    } else if (address->ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;
        inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof text);
        *port = ntohs(v6->sin6_port);
    } else if (address->ss_family == AF_UNIX) {
        return "unix";
    }
    return arena_strdup(arena, text);
}

const char *report_unquote(struct arena *arena, const char *value)
{
    /* A leading control byte marks values that are set in another way (guc.c). */
    while (*value == ' ' || (*value > 0 && *value < ' '))
        value++;
    bool escapes = (*value == 'E' || *value == 'e') && value[1] == '\'';
    if (escapes)
        value++;
    if (*value != '\'')
        return report_text(arena, value);
    char *plain = arena_alloc(arena, strlen(value) + 1), *at = plain;
    for (value++; *value; value++) {
        bool doubled = value[0] == '\'' && value[1] == '\'';
        bool escaped = escapes && value[0] == '\\' && value[1];
        if (doubled || escaped)
            value++;
        else if (*value == '\'')
            break;
        *at++ = *value;
    }
    return report_text(arena, plain);
}

/* ---- rows ---- */

/* "database\0user\0": what rows are found by, with the node's number behind it for pools. */
static char *row_key(struct report *report, const char *database, const char *user, int node,
                     size_t *length)
{
    size_t db_size = strlen(database) + 1, user_size = strlen(user) + 1;
    *length = db_size + user_size + sizeof node;
    char *key = arena_alloc(&report->arena, *length);
    memcpy(key, database, db_size);
    memcpy(key + db_size, user, user_size);
    memcpy(key + db_size + user_size, &node, sizeof node);
    return key;
}

struct report_account *report_account(struct report *report, const char *database, const char *user)
{
    size_t length;
    struct report_account *row;
    database = report_text(&report->arena, database);
    user = report_text(&report->arena, user);
    char *key = row_key(report, database, user, 0, &length);
    HASH_FIND(hh, report->accounts, key, length, row);
    if (!row) {
        row = arena_new(&report->arena, struct report_account);
        row->database = database;
        row->user = user;
        HASH_ADD_KEYPTR(hh, report->accounts, key, length, row);
    }
    return row;
}

struct report_pool *report_pool(struct report *report, const char *database, const char *user,
                                struct node *node)
{
    size_t length;
    struct report_pool *row;
    database = report_text(&report->arena, database);
    user = report_text(&report->arena, user);
    char *key = row_key(report, database, user, node->id, &length);
    HASH_FIND(hh, report->pools, key, length, row);
    if (!row) {
        row = arena_new(&report->arena, struct report_pool);
        row->database = database;
        row->user = user;
        row->node = node_ref(node);
        struct report_account *account = report_account(report, database, user);
        row->next = account->pools;
        account->pools = row;
        HASH_ADD_KEYPTR(hh, report->pools, key, length, row);
    }
    return row;
}

struct report_stats *report_stats(struct report *report, const char *database)
{
    struct report_stats *row;
    database = report_text(&report->arena, database);
    HASH_FIND_STR(report->stats, database, row);
    if (!row) {
        row = arena_new(&report->arena, struct report_stats);
        row->database = database;
        HASH_ADD_KEYPTR(hh, report->stats, row->database, strlen(row->database), row);
    }
    return row;
}

struct report_connection *report_connection(struct report *report, struct report_list *list)
{
    struct report_connection *row = arena_new(&report->arena, struct report_connection);
    if (list->last)
        list->last->next = row;
    else
        list->first = row;
    list->last = row;
    list->count++;
    row->user = row->database = row->state = row->address = row->local_address = "";
    row->application_name = "";
    row->pin_reason = "";
    row->tls = "";
    return row;
}

/* struct worker_stats is nothing but counters. */
_Static_assert(sizeof(struct worker_stats) % sizeof(uint64_t) == 0, "counters only");

void report_add_counts(struct worker_stats *to, const struct worker_stats *more)
{
    uint64_t *sum = (uint64_t *)to;
    const uint64_t *part = (const uint64_t *)more;
    for (size_t i = 0; i < sizeof *to / sizeof *sum; i++)
        sum[i] += part[i];
}

/* ---- order ---- */

static int by_two_names(const char *a1, const char *b1, const char *a2, const char *b2)
{
    int order = strcmp(a1, b1);
    return order ? order : strcmp(a2, b2);
}

static int compare_accounts(const struct report_account *a, const struct report_account *b)
{
    return by_two_names(a->database, b->database, a->user, b->user);
}

static int compare_pools(const struct report_pool *a, const struct report_pool *b)
{
    int order = by_two_names(a->database, b->database, a->user, b->user);
    return order ? order : a->node->id - b->node->id;
}

static int compare_stats(const struct report_stats *a, const struct report_stats *b)
{
    return strcmp(a->database, b->database);
}

static int compare_prepared(const struct report_prepared *a, const struct report_prepared *b)
{
    if (a->references != b->references)
        return a->references > b->references ? -1 : 1;
    return strcmp(a->name, b->name);
}

void report_sort(struct report *report)
{
    HASH_SORT(report->accounts, compare_accounts);
    HASH_SORT(report->pools, compare_pools);
    HASH_SORT(report->stats, compare_stats);
    HASH_SORT(report->prepared, compare_prepared);
}

/* ---- sums ---- */

int report_logged_in(const struct report *report)
{
    int sum = 0;
    for (const struct report_account *row = report->accounts; row; row = row->hh.next)
        sum += row->idle + row->active + row->waiting;
    return sum;
}

int report_server_count(const struct report *report)
{
    int sum = 0;
    for (const struct report_pool *row = report->pools; row; row = row->hh.next)
        sum += row->active + row->idle + row->login;
    return sum;
}

const struct shard *report_shard_of(const struct report *report, const char *database,
                                    const struct node *node)
{
    const struct database *found = topology_database(report->topology, database);
    for (int i = 0; found && i < found->nshards; i++)
        for (int j = 0; j < found->shards[i].nnodes; j++)
            if (found->shards[i].nodes[j] == node)
                return &found->shards[i];
    return NULL;
}
