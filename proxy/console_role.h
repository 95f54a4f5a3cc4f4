/* console_role.h: who may do what on the console. */
#ifndef PGSHUNT_PROXY_CONSOLE_ROLE_H
#define PGSHUNT_PROXY_CONSOLE_ROLE_H

#include "proxy/console_command.h"

enum console_role {
    CONSOLE_NOBODY, /* does not get in */
    CONSOLE_READER, /* stats = true: looks at everything, changes nothing */
    CONSOLE_ADMIN,  /* admin = true */
};

/* By the users file as it is now. With method trust and no users at all everybody is an admin. */
enum console_role console_role(const struct config *config, const char *user);
/* What is not known to be harmless is for admins. */
bool console_role_may(enum console_role role, enum console_action action);

#endif
