/*
 * old_work.h: what is still at work under an older map than its worker has.
 *
 * A map is exchanged between a client's transactions; so what has begun goes on by the old one, and who changes the map may have to
 * wait for the last of them: it does not leave out rows that later ones know of.
 */
#ifndef PGSHUNT_PROXY_OLD_WORK_H
#define PGSHUNT_PROXY_OLD_WORK_H

#include <stdbool.h>
#include <stdint.h>

struct client;
struct worker;

/* A statement is under way, or a transaction that has servers, and is not only to be rolled back. Whoever is not takes the
 * newest map with the next statement. */
bool old_work_is_at_work(const struct client *client);

struct old_work {
    int64_t epoch; /* of the oldest map that is worked under, or as it was before the call */
    char who[200]; /* the client's that does, for people; "": nobody's under an older one */
};
/* Of this worker's clients of the database: oldest->epoch only falls. */
void old_work_oldest(struct worker *worker, const char *database, struct old_work *oldest);

#endif
