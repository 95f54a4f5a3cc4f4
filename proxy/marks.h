/*
 * marks.h: the prepared statements a server connection has, as far as we know; the latest used first.
 *
 *   (none) --ParseComplete--> HELD --Close sent--> CLOSING --CloseComplete--> (none)
 *                               ^                     |
 *                               '-- Close skipped ----'   (an error stood in front of it)
 *
 * A mark costs under 100 bytes, and their number is bounded: before one more statement is prepared the
 * least recently used are closed in the same write. Postgres' portals keep the plan they were bound
 * with, so closing a statement takes nothing from a portal that is open.
 *
 * `generation` is that of struct prepared when the server parsed it. When a server finds that a
 * statement's result has changed its shape, the generation moves on and every older mark is stale:
 * before its next use the statement is closed and parsed anew. The same for one parsed under another
 * search_path: it may mean other tables, and Postgres would have to analyse it again anyway.
 */
#ifndef PGSHUNT_PROXY_MARKS_H
#define PGSHUNT_PROXY_MARKS_H

#include <stdbool.h>
#include <uthash.h>

#include "proxy/list.h"
#include "proxy/prepared.h"

struct mark {
    struct prepared_key key;
    unsigned generation;
    uint32_t path; /* hash of the search_path it was parsed under; 0: the server's own */
    bool closing;
    struct list_node order;
    UT_hash_handle hh;
};

struct marks {
    struct mark *entries;
    struct list_node order; /* not closing; latest used first */
    int count;              /* not closing */
};

enum marked { MARK_NONE, MARK_STALE, MARK_HELD };

void marks_init(struct marks *marks);
void marks_clear(struct marks *marks);
enum marked marks_look(const struct marks *marks, const struct prepared *prepared, uint32_t path);
/* Puts it in front, as the latest used. */
void marks_use(struct marks *marks, const struct prepared *prepared);
/* The server has parsed it. */
void marks_add(struct marks *marks, const struct prepared *prepared, uint32_t path);
/* The one to go when there are more than `limit`; NULL: none has to, or none can. */
struct mark *marks_surplus(struct marks *marks, int limit);
/* A Close for it was sent; was carried out; was skipped. */
void marks_closing(struct marks *marks, const struct prepared_key *key);
void marks_closed(struct marks *marks, const struct prepared_key *key);
void marks_kept(struct marks *marks, const struct prepared_key *key);

#endif
