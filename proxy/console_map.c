/* console_map.c: SHOW MAPS and PROXIES: the maps of buckets that are recorded in catalogs, and who follows them. */
#include <string.h>

#include "proxy/console_show.h"

void console_show_maps(struct console_table *table, const struct report *report)
{
    for (int i = 0; i < report->topology->ndatabases; i++) {
        const struct catalog_watch_report *map = &report->maps[i];
        if (!map->watched)
            continue;
        console_text(table, report->topology->databases[i].name);
        console_integer(table, map->epoch);
        console_integer(table, map->hold);
        console_integer(table, map->busy);
        console_integer(table, map->held);
        console_text(table, map->primary[0] ? map->primary : NULL);
        if (map->read_at)
            console_integer(table, (report->now - map->read_at) / 1000);
        else
            console_null(table);
        console_integer(table, map->changes);
    }
}

void console_show_proxies(struct console_table *table, const struct report *report)
{
    for (int i = 0; i < report->topology->ndatabases; i++)
        for (int p = 0; p < report->maps[i].nproxies; p++) {
            const struct catalog_proxy *proxy = &report->maps[i].proxies[p];
            console_text(table, report->topology->databases[i].name);
            console_text(table, proxy->id);
            console_text(table, proxy->host);
            console_integer(table, proxy->pid);
            console_text(table, proxy->version);
            console_bool(table, strcmp(proxy->id, report->maps[i].self) == 0);
            console_integer(table, proxy->epoch);
            console_integer(table, proxy->hold);
            console_integer(table, proxy->busy);
            console_integer(table, proxy->held);
            console_integer(table, (int64_t)(proxy->seen_seconds * 1000));
        }
}
