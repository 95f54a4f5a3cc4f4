/* failpoint.c: dies or stops where a test wants it. */
#include "pgshunt/failpoint.h"

#ifndef NDEBUG

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int is_at(const char *variable, const char *name)
{
    const char *wanted = getenv(variable);
    return wanted && strcmp(wanted, name) == 0;
}

void failpoint(const char *name)
{
    static atomic_bool stopped;
    if (is_at("PGSHUNT_CRASH_AT", name))
        kill(getpid(), SIGKILL);
    if (is_at("PGSHUNT_STOP_AT", name) && !atomic_exchange(&stopped, 1))
        raise(SIGSTOP); /* this thread goes no further; kill() would let it */
}

#else
typedef int failpoint_is_off; /* a file has to have something */
#endif
