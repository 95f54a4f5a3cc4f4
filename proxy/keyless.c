/* keyless.c: fan-outs without a key that require_key warns of or refuses: counted, told, logged. */
#include "proxy/keyless.h"

#include "pgshunt/log.h"
#include "pgshunt/plan.h"
#include "pgshunt/wire.h"
#include "proxy/session.h"
#include "proxy/worker.h"

#define TEXT_MAX 1000     /* bytes of a statement in the log */
#define LOG_EVERY 1000000 /* us between lines of one worker: an application may make nothing else */

static void log_statement(const struct client *client, const struct plan *plan,
                          const struct statement *statement)
{
    static _Thread_local int64_t told_at;
    int64_t now = worker_now(client->worker);
    char sql[TEXT_MAX + 1];
    if (told_at && now - told_at < LOG_EVERY)
        return;
    told_at = now;
    snprintf(sql, sizeof sql, "%s", statement ? statement->text : "");
    log_event(LOG_WARNING, plan->keyless->message, LOG_S("database", client->database_name),
              LOG_S("user", client->user), LOG_S("statement", sql));
}

void keyless_planned(struct client *client, const struct plan *plan,
                     const struct statement *statement)
{
    bool explains = statement && statement->kind == STMT_EXPLAIN && !statement->explain_analyze;
    if (!plan->keyless || explains)
        return;
    client->stats->keyless++;
    log_statement(client, plan, statement);
    if (plan->kind == PLAN_REFUSE)
        return;
    struct buffer out = {0};
    wire_put_notice(&out, plan->keyless);
    client_send_buffer(client, &out);
}
