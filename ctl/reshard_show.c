/* reshard_show.c: events of resharding as lines, as a live block, or as JSON. */
#include "ctl/reshard_show.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "pgshunt/arena.h"
#include "pgshunt/db.h"

#define DRAW_EVERY_MS 200
#define LINE_EVERY_MS 5000 /* where it is no terminal */

/* One table or stream at work. */
struct item {
    char *name; /* "users  s0 -> s1" */
    enum reshard_phase phase;
    int64_t rows, bytes, bytes_expected, lag_bytes;
    double rows_expected, lag_seconds;
    int64_t since, first_bytes, first_rows; /* of this run, for the rate */
    int64_t told_at;
    bool done;
};

struct reshard_shown {
    const struct ctl *ctl;
    bool live;
    struct item *items;
    int count, room;
    int drawn; /* lines of the block on the screen */
    int64_t drawn_at;
};

static const char *const kinds[] = {
    [RESHARD_FACT] = "fact",       [RESHARD_PROBLEM] = "problem", [RESHARD_NOTE] = "note",
    [RESHARD_PLANNED] = "planned", [RESHARD_STEP] = "step",       [RESHARD_PROGRESS] = "progress",
    [RESHARD_FAILED] = "failed",
};

static const char *const phases[] = {
    [RESHARD_PHASE_COPY] = "copy",     [RESHARD_PHASE_INDEX] = "index",
    [RESHARD_PHASE_STREAM] = "stream", [RESHARD_PHASE_VERIFY] = "verify",
    [RESHARD_PHASE_CLEAN] = "clean",
};

struct reshard_shown *reshard_shown_new(const struct ctl *ctl)
{
    struct reshard_shown *shown = mem_alloc(sizeof *shown);
    shown->ctl = ctl;
    shown->live = !ctl->json && isatty(STDOUT_FILENO);
    return shown;
}

void reshard_shown_free(struct reshard_shown *shown)
{
    for (int i = 0; i < shown->count; i++)
        free(shown->items[i].name);
    free(shown->items);
    free(shown);
}

/* ---- JSON ---- */

static void put(json_t *object, const char *name, const char *text)
{
    if (text)
        json_object_set_new(object, name, json_string(text));
}

static void put_number(json_t *object, const char *name, int64_t number)
{
    json_object_set_new(object, name, number < 0 ? json_null() : json_integer(number));
}

static void put_real(json_t *object, const char *name, double number)
{
    json_object_set_new(object, name, number < 0 ? json_null() : json_real(number));
}

static void put_progress(json_t *object, const struct reshard_progress *progress)
{
    put(object, "phase", phases[progress->phase]);
    put(object, "table", progress->table);
    put(object, "source", progress->source);
    put(object, "target", progress->target);
    put_number(object, "rows", progress->rows);
    put_number(object, "bytes", progress->bytes);
    put_real(object, "rows_expected", progress->rows_expected);
    put_number(object, "bytes_expected", progress->bytes_expected);
    if (progress->phase == RESHARD_PHASE_STREAM) {
        put_number(object, "lag_bytes", progress->lag_bytes);
        put_real(object, "lag_seconds", progress->lag_seconds);
    }
    json_object_set_new(object, "done", json_boolean(progress->done));
}

static void print_object(json_t *object)
{
    json_dumpf(object, stdout, JSON_COMPACT);
    putchar('\n');
    fflush(stdout); /* whoever reads a pipe wants to see it now */
    json_decref(object);
}

static void print_event(const struct reshard_event *event)
{
    json_t *object = json_object();
    put(object, "kind", kinds[event->kind]);
    put(object, "shard", event->shard);
    put(object, "object", event->object);
    put(object, "text", event->text);
    put(object, "mend", event->mend);
    if (event->progress)
        put_progress(object, event->progress);
    print_object(object);
}

/* ---- words ---- */

static const char *size_words(double bytes, char *out, size_t room)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    int unit = 0;
    for (; bytes >= 1000 && unit < 4; unit++)
        bytes /= 1000;
    snprintf(out, room, unit && bytes < 10 ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
    return out;
}

static const char *time_words(double seconds, char *out, size_t room)
{
    if (seconds < 90)
        snprintf(out, room, "%.0f s", seconds);
    else if (seconds < 5400)
        snprintf(out, room, "%.0f min", seconds / 60);
    else
        snprintf(out, room, "%.1f h", seconds / 3600);
    return out;
}

/* What is known of when it ends: "" where nothing is. */
static const char *eta_words(const struct item *item, double rate, char *out, size_t room)
{
    char time[32];
    double left = (double)(item->bytes_expected - item->bytes);
    out[0] = '\0';
    if (item->bytes_expected > 0 && rate > 0 && left > 0)
        snprintf(out, room, ", %s left", time_words(left / rate, time, sizeof time));
    return out;
}

static void describe_stream(const struct item *item, char *out, size_t room)
{
    char bytes[32];
    if (item->lag_bytes < 0)
        snprintf(out, room, "lag not known yet");
    else if (item->lag_seconds < 0)
        snprintf(out, room, "%s behind", size_words((double)item->lag_bytes, bytes, sizeof bytes));
    else
        snprintf(out, room, "%s, %.1f s behind, %lld rows",
                 size_words((double)item->lag_bytes, bytes, sizeof bytes), item->lag_seconds,
                 (long long)item->rows);
}

static void describe_work(const struct item *item, int64_t now, char *out, size_t room)
{
    char done[32], per_second[32], eta[48], share[16] = "";
    double seconds = (double)(now - item->since) / 1000;
    double rate = seconds > 0.5 ? (double)(item->bytes - item->first_bytes) / seconds : 0;
    if (item->bytes_expected > 0) {
        double part = (double)item->bytes * 100 / (double)item->bytes_expected;
        snprintf(share, sizeof share, "%3.0f %%, ", item->done ? 100 : part > 99 ? 99 : part);
    }
    snprintf(out, room, "%s%lld rows, %s, %s/s%s", share, (long long)item->rows,
             size_words((double)item->bytes, done, sizeof done),
             size_words(rate, per_second, sizeof per_second),
             item->done ? ", done" : eta_words(item, rate, eta, sizeof eta));
}

static void describe(const struct item *item, int64_t now, char *out, size_t room)
{
    char words[160];
    if (item->phase == RESHARD_PHASE_STREAM)
        describe_stream(item, words, sizeof words);
    else
        describe_work(item, now, words, sizeof words);
    snprintf(out, room, "  %-6s  %-32s  %s", phases[item->phase], item->name, words);
}

/* ---- the live block ---- */

static int screen_lines(void)
{
    struct winsize size;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 4)
        return size.ws_row - 2;
    return 20;
}

static int screen_columns(void)
{
    struct winsize size;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 20)
        return size.ws_col;
    return 120;
}

static void wipe(struct reshard_shown *shown)
{
    if (shown->drawn)
        printf("\033[%dA\033[J", shown->drawn);
    shown->drawn = 0;
}

static void draw(struct reshard_shown *shown, int64_t now)
{
    char line[300];
    int most = screen_lines(), columns = screen_columns();
    wipe(shown);
    for (int i = 0; i < shown->count && shown->drawn < most; i++) {
        if (shown->items[i].done)
            continue;
        describe(&shown->items[i], now, line, sizeof line);
        printf("%.*s\n", columns - 1, line);
        shown->drawn++;
    }
    fflush(stdout);
    shown->drawn_at = now;
}

static struct item *item_of(struct reshard_shown *shown, const struct reshard_progress *progress)
{
    char name[300];
    snprintf(name, sizeof name, "%s%s%s%s%s", progress->table ? progress->table : "",
             progress->table && progress->source ? "  " : "",
             progress->source ? progress->source : "", progress->target ? " -> " : "",
             progress->target ? progress->target : "");
    for (int i = 0; i < shown->count; i++)
        if (shown->items[i].phase == progress->phase && strcmp(shown->items[i].name, name) == 0)
            return &shown->items[i];
    if (shown->count == shown->room) {
        shown->room = shown->room ? shown->room * 2 : 32;
        shown->items = mem_realloc(shown->items, sizeof *shown->items * (size_t)shown->room);
    }
    struct item *item = &shown->items[shown->count++];
    *item = (struct item){.name = mem_strdup(name),
                          .phase = progress->phase,
                          .since = db_clock_ms(),
                          .first_bytes = progress->bytes,
                          .first_rows = progress->rows};
    return item;
}

static void take_progress(struct reshard_shown *shown, const struct reshard_progress *progress)
{
    char line[300];
    struct item *item = item_of(shown, progress);
    bool ends = progress->done && !item->done;
    int64_t now = db_clock_ms();
    item->rows = progress->rows;
    item->bytes = progress->bytes;
    item->rows_expected = progress->rows_expected;
    item->bytes_expected = progress->bytes_expected;
    item->lag_bytes = progress->lag_bytes;
    item->lag_seconds = progress->lag_seconds;
    item->done = progress->done;
    if (ends || (!shown->live && !item->done && now - item->told_at >= LINE_EVERY_MS)) {
        wipe(shown);
        describe(item, now, line, sizeof line);
        puts(line);
        fflush(stdout);
        item->told_at = now;
    }
    if (shown->live && (ends || now - shown->drawn_at >= DRAW_EVERY_MS))
        draw(shown, now);
}

/* ---- lines ---- */

static void print_line(const struct reshard_event *event)
{
    static const char *const heads[] = {
        [RESHARD_FACT] = "",       [RESHARD_PROBLEM] = "PROBLEM  ",
        [RESHARD_NOTE] = "note: ", [RESHARD_PLANNED] = "would be done: ",
        [RESHARD_STEP] = "  ",     [RESHARD_FAILED] = "FAILED  ",
    };
    char *line = NULL;
    if (asprintf(&line, "%s%s%s%s%s%s", heads[event->kind], event->shard ? event->shard : "",
                 event->shard ? ": " : "", event->object ? event->object : "",
                 event->object ? ": " : "", event->text) < 0)
        abort();
    ctl_line("", line);
    free(line);
    if (event->mend)
        ctl_line("  -> ", event->mend);
}

void reshard_shown_tell(void *arg, const struct reshard_event *event)
{
    struct reshard_shown *shown = arg;
    if (shown->ctl->json) {
        print_event(event);
    } else if (event->kind == RESHARD_PROGRESS) {
        take_progress(shown, event->progress);
    } else {
        wipe(shown);
        print_line(event);
        if (shown->live)
            draw(shown, db_clock_ms());
    }
}

int reshard_shown_finish(struct reshard_shown *shown, enum reshard_outcome outcome,
                         const char *done)
{
    static const struct {
        const char *name;
        int status;
        const char *text;
    } ends[] = {
        [RESHARD_DONE] = {"done", CTL_DONE, NULL},
        [RESHARD_DIFFERENT] = {"different", CTL_DIFFERENT, "Not as it should be: see above."},
        [RESHARD_REFUSED] = {"refused", CTL_REFUSED, "Refused: nothing was changed."},
        [RESHARD_GAVE_UP] = {"gave up", CTL_REFUSED, "Gave up: all is as it was before."},
        [RESHARD_STOPPED] = {"stopped", CTL_INTERRUPTED, "Stopped. Run it again to go on."},
        [RESHARD_UNFINISHED] = {"unfinished", CTL_UNFINISHED,
                                "Not finished: run it again when the cause is gone."},
    };
    wipe(shown);
    if (shown->ctl->json) {
        json_t *object = json_object();
        put(object, "outcome", ends[outcome].name);
        json_object_set_new(object, "dry_run", json_boolean(shown->ctl->dry_run));
        print_object(object);
    } else {
        ctl_line("", ends[outcome].text ? ends[outcome].text : done);
    }
    return ends[outcome].status;
}
