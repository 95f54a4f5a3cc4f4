/*
 * lookup.h: where the rows with a value of a lookup's column are: statements wait until the shards have said.
 *
 *   plan wants values --> lookup_wait() --> in the cache?  --> its shard is asked, then, if that does not have
 *                                                              it any more, all are
 *                                     else                 --> all shards are asked at once
 *                     <-- planned anew, with the answers
 *
 * The cache only says whom to ask first: nothing is believed that no shard has said since the statement came.
 * It holds values of unique lookups, where one shard's yes answers for all. A read alone whose rows show that
 * they have the value is its own question: it goes to the remembered shard at once (a guess), and where it finds
 * nothing there all is asked as above. Where a shard cannot be asked, the statement is carried out as if there
 * were no lookup. See docs/internals/lookup.md.
 */
#ifndef PGSHUNT_PROXY_LOOKUP_H
#define PGSHUNT_PROXY_LOOKUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pgshunt/error.h"
#include "pgshunt/plan.h"

struct client;
struct report;
struct worker;

typedef void lookup_replan(struct client *client, void *arg);

/* The request's plan wants to know more. True: the client waits (state WAITING), and its session goes on by
 * itself; false: the plan stands. `alone`: nothing but this statement is asked, and its answer can be taken back:
 * then it may be a guess, and was planned anew for that with `replan`. */
bool lookup_wait(struct client *client, bool alone, lookup_replan *replan, void *arg);
/* The statement was sent by a guess and has found nothing: it is to be asked again, with certainty. */
void lookup_guess_failed(struct client *client);
void lookup_cancel(struct client *client); /* also when it does not wait */
COLD void
lookup_drop(struct client *client); /* at the end of a request that has looked something up */
/* What is known for the request; NULL: no lookup is to be used. In the request's arena. */
const struct lookup_answers *lookup_answers(const struct client *client);
/* While it is off, plans are as wide as without lookups. */
void lookup_off(struct client *client, bool off);

/* Worker upkeep: connections to servers that are no primaries any more are closed. */
void lookup_tick(struct worker *worker);
void lookup_stop(struct worker *worker);

/* The lookups of all databases, as rows of a report. */
void report_list_lookups(struct report *report, const struct worker *worker);

#endif
