/* welcome.c: remembers how clients of a kind are greeted. */
#include "proxy/welcome.h"

#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "pgshunt/wire.h"
#include "proxy/reported.h"

#define WELCOMES_MAX 1000 /* kinds kept; hostile variety of settings must not fill memory */

struct welcome {
    char *key;
    struct buffer messages;
    struct guc_set *heard; /* what they tell */
    UT_hash_handle hh;
};

static void add_line(struct buffer *key, const char *text)
{
    buffer_append(key, text, strlen(text));
    buffer_append(key, "\n", 1);
}

static char *welcome_key(const struct client *client, struct buffer *key)
{
    add_line(key, client->database_name);
    add_line(key, client->user);
    for (int i = 0; i < guc_set_count(client->startup); i++) {
        add_line(key, client->startup->items[i].name);
        add_line(key, client->startup->items[i].value);
    }
    buffer_append(key, "", 1);
    return buffer_head(key);
}

const struct buffer *welcome_find(struct worker *worker, struct client *client)
{
    struct buffer key = {0};
    struct welcome *welcome;
    HASH_FIND_STR(worker->welcomes, welcome_key(client, &key), welcome);
    buffer_release(&key);
    if (welcome)
        guc_set_assign(&client->heard, welcome->heard);
    return welcome ? &welcome->messages : NULL;
}

const struct buffer *welcome_learn(struct worker *worker, struct client *client,
                                   struct server *server)
{
    if (HASH_COUNT(worker->welcomes) >= WELCOMES_MAX)
        welcomes_forget(worker);
    struct buffer key = {0};
    struct welcome *welcome = mem_alloc(sizeof *welcome);
    welcome->key = mem_strdup(welcome_key(client, &key));
    buffer_release(&key);
    guc_set_release(&client->heard); /* it has heard nothing yet */
    reported_tell(client, server, &welcome->messages);
    guc_set_assign(&welcome->heard, client->heard);
    HASH_ADD_KEYPTR(hh, worker->welcomes, welcome->key, strlen(welcome->key), welcome);
    return &welcome->messages;
}

void welcomes_forget(struct worker *worker)
{
    struct welcome *welcome, *next;
    HASH_ITER(hh, worker->welcomes, welcome, next)
    {
        HASH_DEL(worker->welcomes, welcome);
        free(welcome->key);
        buffer_release(&welcome->messages);
        guc_set_release(&welcome->heard);
        free(welcome);
    }
}
