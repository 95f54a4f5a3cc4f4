/*
 * scatter_copy.h: the rows of a COPY over several shards; a part of scatter.c's work.
 *
 *   FROM STDIN:  OPENING --every shard is ready for rows--> STREAMING --CopyDone--> ENDED
 *                   '------------------- anything fails -------'-----------------> ENDED
 *
 *   OPENING    each shard has got the COPY; the client is told to send when all of them are ready
 *   STREAMING  the client's bytes are split and passed on; it is read as fast as the slowest shard takes
 *   ENDED      each shard was told that there is no more (CopyDone), or that all is for nothing (CopyFail)
 *
 *   TO STDOUT:   rows pass as they come, whole, from any shard; header and trailer once
 */
#ifndef PGSHUNT_PROXY_SCATTER_COPY_H
#define PGSHUNT_PROXY_SCATTER_COPY_H

#include "proxy/session.h"

struct scatter_copy;

/* `plan` has copy rows, and outlives it. */
struct scatter_copy *scatter_copy_new(struct client *client, const struct plan *plan);
void scatter_copy_free(struct scatter_copy *copy);

/* ---- FROM STDIN ---- */

/* A shard is ready for rows. True: all are, and the client's CopyInResponse is in `out`. */
bool scatter_copy_opened(struct scatter_copy *copy, const char *body, size_t len,
                         struct buffer *out);
bool scatter_copy_streams(const struct scatter_copy *copy);
/* Bytes of rows. False: *error. */
MUST_CHECK bool scatter_copy_rows(struct scatter_copy *copy, const char *bytes, size_t len,
                                  const struct pg_error **error);
/* The client has sent all. False: *error. */
MUST_CHECK bool scatter_copy_done(struct scatter_copy *copy, const struct pg_error **error);
/* Sends what is collected for the shards, if it is worth it. */
void scatter_copy_send(struct scatter_copy *copy);
/* The CONTEXT of a shard's error, which counts lines of its own part, with the line of the client's stream. */
const char *scatter_copy_where(const struct scatter_copy *copy, int index, const char *where,
                               struct arena *arena);
/* It is all for nothing: nothing more is taken from the client. */
void scatter_copy_stop(struct scatter_copy *copy);
/* ... and `server`, which may still wait for rows, is told so. */
void scatter_copy_give_up(struct scatter_copy *copy, struct server *server);

/* ---- TO STDOUT ---- */

bool scatter_copy_is_out(const struct scatter_copy *copy);
/* 'H' or 'd' of the part `index`, for the client: appends what it is to see of it. */
void scatter_copy_out(struct scatter_copy *copy, int index, char type, const char *body, size_t len,
                      struct buffer *out);
/* Rows are among what was appended. */
bool scatter_copy_has_rows(const struct scatter_copy *copy);
/* All rows are out. */
void scatter_copy_out_end(const struct scatter_copy *copy, struct buffer *out);

#endif
