/*
 * builtin_functions.h: what is known of Postgres' own functions without asking a server.
 */
#ifndef PGSHUNT_BUILTIN_FUNCTIONS_H
#define PGSHUNT_BUILTIN_FUNCTIONS_H

enum builtin_class {
    BUILTIN_UNKNOWN,  /* no function of Postgres 15, or one that nobody calls by name */
    BUILTIN_STABLE,   /* immutable or stable: as far as it knows, it only reads */
    BUILTIN_HARMLESS, /* volatile, yet it changes nothing and runs on a standby (random, pg_sleep) */
    BUILTIN_VOLATILE,
    BUILTIN_PRIMARY, /* not volatile, yet it fails on a standby or looks at the session there */
};

/* The class of pg_catalog.name. */
enum builtin_class builtin_function(const char *name);

#endif
