/* console_show.h: the answers of the console's SHOW commands, made from a report. Pure. */
#ifndef PGSHUNT_PROXY_CONSOLE_SHOW_H
#define PGSHUNT_PROXY_CONSOLE_SHOW_H

#include "proxy/console_table.h"
#include "proxy/report.h"

#define CONSOLE_VERSION "pgshunt " PGSHUNT_VERSION

/* console_show.c: who is connected, to what */
void console_show_pools(struct console_table *table, const struct report *report);
void console_show_clients(struct console_table *table, const struct report *report);
void console_show_servers(struct console_table *table, const struct report *report);
void console_show_databases(struct console_table *table, const struct report *report);
void console_show_users(struct console_table *table, const struct report *report);
void console_show_prepared(struct console_table *table, const struct report *report);
void console_show_lookups(struct console_table *table, const struct report *report);
void console_show_lists(struct console_table *table, const struct report *report);

/* console_stats.c: counters */
void console_show_stats(struct console_table *table, const struct report *report);
void console_show_totals(struct console_table *table, const struct report *report);
void console_show_averages(struct console_table *table, const struct report *report);
void console_show_sums(struct console_table *table, const struct report *report);

/* console_state.c: the process and the cluster */
void console_show_nodes(struct console_table *table, const struct report *report);
void console_show_maps(struct console_table *table, const struct report *report);
void console_show_proxies(struct console_table *table, const struct report *report);
void console_show_shards(struct console_table *table, const struct report *report);
void console_show_config(struct console_table *table, const struct report *report);
void console_show_state(struct console_table *table, const struct report *report);
void console_show_mem(struct console_table *table, const struct report *report);
void console_show_version(struct console_table *table, const struct report *report);
void console_show_help(struct console_table *table, const struct report *report);

/* Rows the commands have, for SHOW LISTS. */
int console_count_databases(const struct report *report);
int console_count_users(const struct report *report);
const char *console_pool_mode(enum pool_mode mode);

#endif
