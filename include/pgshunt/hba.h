/*
 * hba.h: a pg_hba.conf: who may connect from where to what, and by which method. The syntax is
 * PostgreSQL's ("The pg_hba.conf File" in its documentation); what pgshunt cannot do is refused when
 * the file is read, with file and line, never ignored.
 *
 * Not taken: the methods that need a directory's help, ident over the
 * network, and options but clientcert and map. "replication" stands for physical replication.
 * samehost and samenet are the addresses this machine has when the file is read.
 */
#ifndef PGSHUNT_HBA_H
#define PGSHUNT_HBA_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#include "pgshunt/arena.h"
#include "pgshunt/error.h"
#include "pgshunt/ident.h"

enum hba_method { HBA_REJECT, HBA_TRUST, HBA_PASSWORD, HBA_MD5, HBA_SCRAM, HBA_CERT, HBA_PEER };

/* The option clientcert: what a client's certificate must prove besides. */
enum hba_clientcert { HBA_CLIENTCERT_NO, HBA_CLIENTCERT_VERIFY_CA, HBA_CLIENTCERT_VERIFY_FULL };

struct hba;

/* A connection that wants to come in. */
struct hba_visitor {
    const char *user;
    const char *database;
    const struct sockaddr *address; /* AF_UNIX: local */
    bool tls;
    bool replication; /* physical: no database */
    const char *
        roles; /* those it is a member of, itself among them: ",HEX,HEX,", each name's bytes in lower
                        * case, "" if the user does not exist; NULL: not known yet */
    const char *
        host; /* the name of its address, which has this address, too; "": none; NULL: not known yet */
};

struct hba_rule {
    enum hba_method method;
    enum hba_clientcert clientcert;
    const char *map; /* CERT, PEER: of pg_ident.conf; NULL: the names have to be the same */
    const char *file;
    int line;
};

/* Everything is in the arena. NULL: `error` has "file:line: what was found; what is allowed". */
struct hba *hba_load(struct arena *arena, const char *path, char *error, size_t size);
/* The same from memory, as if it stood in `path`. */
struct hba *hba_parse(struct arena *arena, const char *path, const char *text, size_t length,
                      char *error, size_t size);
/* Why nobody knows whether a rule fits. */
enum hba_doubt {
    HBA_SURE,
    HBA_TOO_LONG,    /* a regular expression takes too long with these names: that means no */
    HBA_NEEDS_ROLES, /* visitor.roles is NULL, and a rule has +role or samerole */
    HBA_NEEDS_HOST,  /* visitor.host is NULL, and a rule has a host's name */
};

/* The first rule that fits; NULL: none does, which means no. Unless `doubt` is HBA_SURE, the rule that the
 * doubt is about. */
const struct hba_rule *hba_match(const struct hba *hba, const struct hba_visitor *visitor,
                                 enum hba_doubt *doubt);
/* The first rule that asks for a client's certificate, NULL if none does. */
const struct hba_rule *hba_wants_certificates(const struct hba *hba);
/* The first rule that speaks of members of roles, NULL if none does. */
const struct hba_rule *hba_wants_roles(const struct hba *hba);
/* The first rule with a map that has no line in `ident` (NULL: there is no such file), NULL if none does. */
const struct hba_rule *hba_without_map(const struct hba *hba, const struct ident *ident);
/* The first rule with a map that speaks of members of roles, NULL if none does. */
const struct hba_rule *hba_with_roles_in_map(const struct hba *hba, const struct ident *ident);
const char *hba_method_name(enum hba_method method);

#endif
