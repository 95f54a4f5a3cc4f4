/* config_help.c: the settings tables as text for --help-config and as the reference page. */
#include "config_internal.h"

#include <stdio.h>
#include <string.h>

static bool is_list(const struct setting_row *row)
{
    return row->kind == SETTING_OBJECTS || row->kind == SETTING_STRINGS;
}

/* Whether values of this kind are written in quotes. */
static bool is_quoted(const struct setting_row *row)
{
    return row->kind != SETTING_INTEGER && row->kind != SETTING_BOOLEAN && !is_list(row);
}

static void default_text(const struct setting_row *row, char *out, size_t size)
{
    const char *mark = is_quoted(row) && !row->inherits ? "\"" : "";
    if (row->required)
        snprintf(out, size, "required");
    else
        snprintf(out, size, "%s%s%s", mark, row->info.initial, mark);
}

/* The tables of the lists below `table`, each after the one that contains it. */
static void each_table(const struct setting_table *table,
                       void (*print)(FILE *out, const struct setting_table *table,
                                     const char *list),
                       FILE *out, const char *path)
{
    char below[200];
    for (int i = 0; i < table->count; i++) {
        const struct setting_row *row = &table->rows[i];
        if (!row->objects)
            continue;
        snprintf(below, sizeof below, "%s%s%s", path, path[0] ? "." : "", row->info.name);
        print(out, row->objects, below);
        each_table(row->objects, print, out, below);
    }
}

/* ---- plain text ---- */

/* `text` broken at spaces into lines of at most 78 columns, indented. */
static void print_wrapped(FILE *out, const char *text)
{
    int column = 6;
    fputs("      ", out);
    while (*text) {
        int length = (int)strcspn(text, " ");
        if (column > 6 && column + 1 + length > 78) {
            fputs("\n      ", out);
            column = 6;
        }
        if (column > 6)
            fputc(' ', out);
        fprintf(out, "%.*s", length, text);
        column += length + (column > 6);
        text += length;
        text += strspn(text, " ");
    }
    fputc('\n', out);
}

static void print_row(FILE *out, const struct setting_row *row, bool single)
{
    char initial[80];
    default_text(row, initial, sizeof initial);
    fprintf(out, "  %s = %s\n", row->info.name, initial);
    fprintf(out, "      %s", row->info.type);
    if (row->info.range[0])
        fprintf(out, ", %s", row->info.range);
    if (single && !row->info.reloadable)
        fputs(", needs a restart", out);
    fputc('\n', out);
    print_wrapped(out, row->info.help);
}

static void print_table(FILE *out, const struct setting_table *table, const char *list)
{
    fprintf(out, "\n%s = ( { ... }, ... )\n", list);
    print_wrapped(out, table->purpose);
    for (int i = 0; i < table->count; i++)
        print_row(out, &table->rows[i], false);
}

void settings_print_help(FILE *out)
{
    fputs("Settings of the configuration file (libconfig syntax), as name = default.\n"
          "\"listen.port\" is written listen = { port = 6432; };\n",
          out);
    fprintf(out, "Durations: a number and %s, in quotes: \"250ms\". ",
            config_unit_names(SETTING_DURATION));
    fprintf(out, "Sizes: %s: \"64MB\".\n\n", config_unit_names(SETTING_SIZE));
    for (int i = 0; i < settings_main.count; i++)
        print_row(out, &settings_main.rows[i], true);
    each_table(&settings_main, print_table, out, "");
    fputs("\nThe users file:\n", out);
    each_table(&settings_users, print_table, out, "");
}

/* ---- markdown ---- */

/* A table cell: | would end it. */
static void print_cell(FILE *out, const char *text)
{
    for (const char *p = text; *p; p++) {
        if (*p == '|')
            fputc('\\', out);
        fputc(*p, out);
    }
}

static void print_markdown_row(FILE *out, const struct setting_row *row, bool single)
{
    char initial[80];
    default_text(row, initial, sizeof initial);
    fprintf(out, "| `%s` | ", row->info.name);
    print_cell(out, row->info.type);
    if (row->required || is_list(row))
        fprintf(out, " | %s | ", initial);
    else
        fprintf(out, " | `%s` | ", initial);
    print_cell(out, row->info.range);
    if (single)
        fprintf(out, " | %s", row->info.reloadable ? "reload" : "restart");
    fputs(" | ", out);
    print_cell(out, row->info.help);
    fputs(" |\n", out);
}

static void print_markdown_table(FILE *out, const struct setting_table *table, const char *list)
{
    fprintf(out, "\n### %s\n\n%s\n\n", list, table->purpose);
    fputs("| name | type | default | range | meaning |\n|---|---|---|---|---|\n", out);
    for (int i = 0; i < table->count; i++)
        print_markdown_row(out, &table->rows[i], false);
}

/* The part of a name before the dot. */
static int group_length(const char *name)
{
    const char *dot = strchr(name, '.');
    return dot ? (int)(dot - name) : 0;
}

static void print_markdown_settings(FILE *out)
{
    const char *group = NULL;
    int previous = 0;
    for (int i = 0; i < settings_main.count; i++) {
        const struct setting_row *row = &settings_main.rows[i];
        int length = group_length(row->info.name);
        bool same =
            group && previous == length && strncmp(group, row->info.name, (size_t)length) == 0;
        if (!same) {
            if (length)
                fprintf(out, "\n### %.*s\n\n", length, row->info.name);
            else
                fprintf(out, "\n### Outside of a group\n\n");
            fputs("| name | type | default | range | change takes | meaning |\n"
                  "|---|---|---|---|---|---|\n",
                  out);
        }
        group = row->info.name;
        previous = length;
        print_markdown_row(out, row, true);
    }
}

void settings_print_markdown(FILE *out)
{
    fputs(
        "# Settings\n\n"
        "<!-- Written by `pgshunt --help-config=markdown` from common/settings.c. Do not edit. "
        "-->\n\n"
        "The configuration is one file in [libconfig](https://hyperrealm.github.io/libconfig/)\n"
        "syntax; `etc/pgshunt.conf` is a commented example. `listen.port` below is written\n"
        "`listen = { port = 6432; };`. `@include \"file\"` at the start of a line puts another "
        "file "
        "in its\nplace. `pgshunt --check-config` says whether a file is good without starting.\n\n",
        out);
    fprintf(out, "Durations take a unit (%s) and quotes: `\"250ms\"`, `\"10min\"`.\n",
            config_unit_names(SETTING_DURATION));
    fprintf(out, "Sizes take a unit (%s; 1kB is 1024B) and quotes: `\"64MB\"`.\n\n",
            config_unit_names(SETTING_SIZE));
    fputs("*reload*: a change takes effect on SIGHUP. *restart*: at the next start; a reload says "
          "so in\n"
          "the log. A file with an error never stops a running proxy: it keeps the old settings "
          "and logs\n"
          "what is wrong, with file and line.\n\n## Single settings\n",
          out);
    print_markdown_settings(out);
    fputs("\n## Lists of groups\n\nAll of them can be changed by a reload.\n", out);
    each_table(&settings_main, print_markdown_table, out, "");
    fputs("\n## The users file\n\nThe file that `auth.users_file` names, in the same syntax. Only "
          "its "
          "owner should be able to read it.\n",
          out);
    each_table(&settings_users, print_markdown_table, out, "");
}
