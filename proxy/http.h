/*
 * http.h: what operators' tools ask over HTTP: /metrics, /healthz, /readyz, /api/status.
 *
 * Threads of its own, one for each address; they never touch what belongs to a worker but ask them for a report and wait
 * for it, two seconds at most.
 */
#ifndef PGSHUNT_PROXY_HTTP_H
#define PGSHUNT_PROXY_HTTP_H

#include <stddef.h>

struct daemon;
struct http;

/* Each has a thread of its own. */
#define HTTP_POINTS_MAX 8

/* Listening sockets that are taken over from another process. */
struct http_sockets {
    int fds[HTTP_POINTS_MAX];
    int count;
};

/*
 * Listens on the addresses and names (with commas between; "*": all) and the port. `inherited` are used where
 * they are wanted, else closed. NULL: could not; `error` says why.
 */
struct http *http_start(struct daemon *daemon, const char *addresses, int port,
                        struct http_sockets *inherited, char *error, size_t size);
void http_sockets_close(struct http_sockets *sockets);
/* The listening sockets, which stay ours. Returns their number. */
int http_listeners(const struct http *http, int fds[HTTP_POINTS_MAX]);
/* No new connections: closes our descriptors of the listening sockets, which others may go on with. */
void http_quiesce(struct http *http);
/* Ends the answers under way, joins and frees. */
void http_stop(struct http *http);

#endif
