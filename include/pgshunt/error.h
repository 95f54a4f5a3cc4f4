/*
 * error.h: an error as Postgres reports it, as a value.
 *
 * Functions that can refuse return false (or a negative number) and fill a `struct pg_error`; whoever
 * owns the client writes it out. Strings live in an arena of the caller's or are constants; nothing
 * here is freed. SQLSTATEs: PostgreSQL documentation, appendix A.
 */
#ifndef PGSHUNT_ERROR_H
#define PGSHUNT_ERROR_H

struct pg_error {
    const char *severity; /* "ERROR", "FATAL"; NULL means "ERROR" */
    const char *sqlstate; /* five characters */
    const char *message;
    const char *detail; /* may be NULL */
    const char *hint;   /* may be NULL, but what we refuse always has one */
    const char *where;  /* CONTEXT; may be NULL */
    const char *schema, *table, *column, *datatype, *constraint; /* what it is about; may be NULL */
    const char *routine; /* of the server's that reported it; may be NULL */
    int position;        /* 1-based character in the statement, 0: none */
};

#define MUST_CHECK __attribute__((warn_unused_result))
/* For what happens rarely: the compiler lays out the ways to it, and its code, apart from what every
 * statement runs through, whose code then fits into the CPU's first cache beside the kernel's. */
#define COLD __attribute__((cold))

#endif
