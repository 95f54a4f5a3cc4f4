/*
 * draw.h: values that the defaults of an INSERT's columns give, asked for ahead of it (plan.h: SCATTER_DRAW).
 *
 *   plan: SCATTER_DRAW --scatter.c asks one server--> values kept with the request --planned anew--> the INSERT
 *
 * An Execute comes again when they are there, a Query is planned again; what is then sent has them in its text.
 */
#ifndef PGSHUNT_PROXY_DRAW_H
#define PGSHUNT_PROXY_DRAW_H

#include <stdbool.h>
#include <stddef.h>

#include "pgshunt/error.h"

struct client;
struct drawn_values;

/* A DataRow that has some. False: it is not what it should be. */
bool draw_take_row(struct client *client, const char *body, size_t len);
/* All are there: what they are for goes on. `extended`: as an Execute of a batch. */
void draw_done(struct client *client, bool extended);
/* What is there; NULL: nothing. */
const struct drawn_values *draw_values(const struct client *client);
/* They were used, or are of no use any more. */
COLD void draw_drop(struct client *client);

#endif
