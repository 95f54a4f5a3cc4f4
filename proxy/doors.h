/* doors.h: the listening sockets that a worker serves, and how it accepts clients there. */
#ifndef PGSHUNT_PROXY_DOORS_H
#define PGSHUNT_PROXY_DOORS_H

struct worker;

/* Opens this worker's share of the daemon's listeners. */
void doors_open(struct worker *worker);
/* Every 100 ms: tries again where there was no room for clients. */
void doors_tick(struct worker *worker);
/* Closes this worker's descriptors; a successor of the process may have others of the same sockets. */
void doors_close(struct worker *worker);

#endif
