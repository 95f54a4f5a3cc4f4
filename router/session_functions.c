/* session_functions.c: which functions read or leave state in a session. */
#include "pgshunt/session_function.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/statement.h"
#include "router/builtin_functions.h"

struct entry {
    const char *name;
    enum session_function function;
};

/* Sorted by name. */
static const struct entry entries[] = {
    {"currval", SESSION_CURRVAL},
    {"dblink_connect", SESSION_DBLINK},
    {"dblink_connect_u", SESSION_DBLINK},
    {"lastval", SESSION_CURRVAL},
    {"nextval", SESSION_SEQUENCE},
    {"pg_advisory_lock", SESSION_LOCK},
    {"pg_advisory_lock_shared", SESSION_LOCK},
    {"pg_advisory_unlock", SESSION_UNLOCK},
    {"pg_advisory_unlock_all", SESSION_UNLOCK_ALL},
    {"pg_advisory_unlock_shared", SESSION_UNLOCK},
    {"pg_listening_channels", SESSION_LISTENING},
    {"pg_replication_origin_session_setup", SESSION_ORIGIN},
    {"pg_try_advisory_lock", SESSION_LOCK},
    {"pg_try_advisory_lock_shared", SESSION_LOCK},
    {"set_config", SESSION_SET_CONFIG},
    {"setseed", SESSION_SEED},
    {"setval", SESSION_SEQUENCE},
};

static int compare(const void *name, const void *entry)
{
    return strcmp(name, ((const struct entry *)entry)->name);
}

enum session_function session_function(const char *name)
{
    const struct entry *found =
        bsearch(name, entries, sizeof entries / sizeof entries[0], sizeof entries[0], compare);
    return found ? found->function : SESSION_NOTHING;
}

static bool may_use_it(const struct function_ref *function)
{
    enum session_function kind = session_function(function->name);
    return kind == SESSION_SEQUENCE || kind == SESSION_CURRVAL ||
           builtin_function(function->name) == BUILTIN_UNKNOWN;
}

bool statement_may_use_sequence_state(const struct statement *statement)
{
    if (statement->kind == STMT_DO || statement->kind == STMT_CALL ||
        statement->kind == STMT_EXECUTE || statement->kind == STMT_OTHER)
        return true;
    for (int i = 0; i < statement->nfunctions; i++)
        if (may_use_it(&statement->functions[i]))
            return true;
    return false;
}
