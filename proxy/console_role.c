/* console_role.c: who may do what on the console. */
#include "proxy/console_role.h"

enum console_role console_role(const struct config *config, const char *user)
{
    const struct user_config *known = config_user(config, user);
    if (!known)
        return config->auth_method == AUTH_TRUST && !config->nusers ? CONSOLE_ADMIN
                                                                    : CONSOLE_NOBODY;
    if (known->admin)
        return CONSOLE_ADMIN;
    return known->stats ? CONSOLE_READER : CONSOLE_NOBODY;
}

/* A list of what is allowed: a new action is an admin's until somebody adds it here. */
bool console_role_may(enum console_role role, enum console_action action)
{
    static const enum console_action harmless[] = {
        CONSOLE_EMPTY,      CONSOLE_SHOW,           CONSOLE_VALUE,  CONSOLE_ACCEPT,
        CONSOLE_SET_NAME,   CONSOLE_BEGIN,          CONSOLE_COMMIT, CONSOLE_ROLLBACK,
        CONSOLE_DEALLOCATE, CONSOLE_DEALLOCATE_ALL, CONSOLE_REFUSE};
    if (role != CONSOLE_READER)
        return role == CONSOLE_ADMIN;
    for (size_t i = 0; i < sizeof harmless / sizeof harmless[0]; i++)
        if (harmless[i] == action)
            return true;
    return false;
}
