/* unixpath.h: the name of the socket that Postgres and its clients meet at in a directory. */
#ifndef PGSHUNT_UNIXPATH_H
#define PGSHUNT_UNIXPATH_H

#include <stdbool.h>
#include <stddef.h>

/* What the kernel takes: 107 bytes, and a zero. */
#define UNIX_PATH_SIZE 108

/* "/run/postgresql/.s.PGSQL.5432". False: it is too long for a socket. */
bool unix_path(char out[UNIX_PATH_SIZE], const char *directory, int port);

#endif
