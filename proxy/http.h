/*
 * http.h: what operators' tools ask over HTTP: /metrics, /healthz, /readyz, /api/status.
 *
 * One thread of its own; it never touches what belongs to a worker but asks them for a report and waits
 * for it, two seconds at most.
 */
#ifndef PGSHUNT_PROXY_HTTP_H
#define PGSHUNT_PROXY_HTTP_H

#include <stddef.h>

struct daemon;
struct http;

/* Listens on address ("*": all) and port. NULL: could not; `error` says why. */
struct http *http_start(struct daemon *daemon, const char *address, int port, char *error,
                        size_t size);
/* Ends the answers under way, joins and frees. */
void http_stop(struct http *http);

#endif
