/* console_control.h: upkeep of console commands that wait for something to end (PAUSE, WAIT_CLOSE, ...). */
#ifndef PGSHUNT_PROXY_CONSOLE_CONTROL_H
#define PGSHUNT_PROXY_CONSOLE_CONTROL_H

struct worker;

/* Each tick: looks again whether what they wait for has come. */
void console_control_tick(struct worker *worker);
/* The worker ends: its consoles are gone. */
void console_control_stop(struct worker *worker);

#endif
