/* unixpath.c: names of unix sockets, as libpq makes them. */
#include "pgshunt/unixpath.h"

#include <stdio.h>

bool unix_path(char out[UNIX_PATH_SIZE], const char *directory, int port)
{
    int length = snprintf(out, UNIX_PATH_SIZE, "%s/.s.PGSQL.%d", directory, port);
    return length > 0 && length < UNIX_PATH_SIZE;
}
