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

/*
 * Listens on address ("*": all) and port. `inherited`: a listening socket that is taken over (used if it
 * is the one that is wanted, else closed), or -1. NULL: could not; `error` says why.
 */
struct http *http_start(struct daemon *daemon, const char *address, int port, int inherited,
                        char *error, size_t size);
/* The listening socket, which stays ours; -1: none. */
int http_listener(const struct http *http);
/* No new connections: closes our descriptor of the listening socket, which others may go on with. */
void http_quiesce(struct http *http);
/* Ends the answers under way, joins and frees. */
void http_stop(struct http *http);

#endif
