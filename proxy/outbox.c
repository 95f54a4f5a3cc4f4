/* outbox.c: what the events of one turn send, collected until its end. */
#include "proxy/outbox.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "proxy/conn.h"

#define POSTS_MAX 32     /* then they go out: nobody's first message waits for everybody's last */
#define POST_SIZE 2048   /* what is longer costs more to copy than it gains */
#define BYTES_MAX 16384u /* of all of them */

struct post {
    struct conn *conn; /* NULL: delivered already */
    uint32_t at, len;
};

struct outbox {
    bool open;
    int count;
    uint32_t used;
    struct post posts[POSTS_MAX];
    char bytes[BYTES_MAX];
};

struct outbox *outbox_new(void)
{
    return mem_alloc(sizeof(struct outbox));
}

void outbox_free(struct outbox *outbox)
{
    free(outbox);
}

static void deliver(struct outbox *outbox, struct post *post)
{
    struct conn *conn = post->conn;
    post->conn = NULL;
    if (conn)
        conn_send_posted(conn, outbox->bytes + post->at, post->len);
}

static void deliver_all(struct outbox *outbox)
{
    for (int i = 0; i < outbox->count; i++)
        deliver(outbox, &outbox->posts[i]);
    outbox->count = 0;
    outbox->used = 0;
}

void outbox_open(struct outbox *outbox)
{
    outbox->open = true;
}

void outbox_close(struct outbox *outbox)
{
    outbox->open = false;
    deliver_all(outbox);
}

bool outbox_post(struct outbox *outbox, struct conn *conn, const void *bytes, size_t len)
{
    if (!outbox->open || len > POST_SIZE)
        return false;
    if (outbox->count == POSTS_MAX || BYTES_MAX - outbox->used < len)
        deliver_all(outbox);
    outbox->posts[outbox->count++] = (struct post){conn, outbox->used, (uint32_t)len};
    memcpy(outbox->bytes + outbox->used, bytes, len);
    outbox->used += (uint32_t)len;
    return true;
}

void outbox_deliver(struct outbox *outbox, struct conn *conn)
{
    for (int i = 0; i < outbox->count; i++)
        if (outbox->posts[i].conn == conn)
            deliver(outbox, &outbox->posts[i]);
}
