/*
 * failpoint.h: places where a test may have the process die or stop: debug and sanitizer builds only.
 *
 * PGSHUNT_CRASH_AT=name: it is killed there. PGSHUNT_STOP_AT=name: it is stopped there, once, until somebody
 * sends SIGCONT.
 */
#ifndef PGSHUNT_FAILPOINT_H
#define PGSHUNT_FAILPOINT_H

#ifdef NDEBUG
#define failpoint(name) ((void)0)
#else
void failpoint(const char *name);
#endif

#endif
