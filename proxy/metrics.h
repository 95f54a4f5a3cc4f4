/* metrics.h: what the files that write metrics share; metrics_write() itself is in report.h. */
#ifndef PGSHUNT_PROXY_METRICS_H
#define PGSHUNT_PROXY_METRICS_H

#include "pgshunt/buffer.h"
#include "proxy/report.h"

struct metric_label {
    const char *name;
    const char *value;
};

/* HELP and TYPE of pgshunt_`name`; its samples follow. */
void metrics_family(struct buffer *out, const char *name, const char *type, const char *help);
void metrics_sample(struct buffer *out, const char *name, const struct metric_label *labels,
                    int count, double value);

/* metrics_rows.c */
#define METRICS_ACCOUNTS_MAX 500
void metrics_write_accounts(const struct report *report, struct buffer *out);
void metrics_write_pools(const struct report *report, struct buffer *out);
void metrics_write_nodes(const struct report *report, struct buffer *out);

#endif
