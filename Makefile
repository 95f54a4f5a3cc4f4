# pgshunt: build, check, demo and bench. `make help` explains the targets.

BUILD   ?= build
CC      ?= gcc
MODE    ?= release
PREFIX  ?= /usr/local
DESTDIR ?=
V       ?= 0
PYTHON  ?= /usr/bin/python3
# A libpg_query source tree (built with `make` there) to use instead of Debian's libpg-query-dev.
PG_QUERY_DIR ?=

VERSION := $(shell cat VERSION)

WARNINGS := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
            -Wformat=2 -Wundef -Wswitch-enum -Wvla -Werror

ifeq ($(MODE),release)
  OPTIMIZE := -O2 -g -DNDEBUG
else ifeq ($(MODE),debug)
  OPTIMIZE := -O0 -g3
else ifeq ($(MODE),asan)
  OPTIMIZE := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
else ifeq ($(MODE),tsan)
  OPTIMIZE := -O1 -g -fsanitize=thread
else ifeq ($(MODE),fuzz)
  CC := clang
  OPTIMIZE := -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
else
  $(error MODE is release, debug, asan, tsan or fuzz, not "$(MODE)")
endif

# Each mode and compiler has a folder of its own; plain `make` builds into build/ itself.
ifeq ($(MODE),release)
  OUT := $(BUILD)
else
  OUT := $(BUILD)/$(MODE)
endif

ifneq ($(PG_QUERY_DIR),)
  PG_QUERY_CFLAGS := -isystem $(PG_QUERY_DIR) -isystem $(PG_QUERY_DIR)/src -isystem $(PG_QUERY_DIR)/src/postgres/include -isystem $(PG_QUERY_DIR)/src/include
  PG_QUERY_LIBS := $(PG_QUERY_DIR)/libpg_query.a
else
  PG_QUERY_CFLAGS := -isystem /usr/include/postgresql/15/server
  PG_QUERY_LIBS := $(firstword $(wildcard /usr/lib/*/libpg_query.a) -lpg_query)
endif

CPPFLAGS += -D_GNU_SOURCE -DPGSHUNT_VERSION='"$(VERSION)"' -Iinclude -I. -I$(OUT)/generated
CFLAGS   += -std=gnu11 $(OPTIMIZE) $(WARNINGS) -fno-common -pthread
LDLIBS_COMMON := -lconfig -lssl -lcrypto -lidn -lxxhash -ljansson
LDLIBS_ROUTER := $(PG_QUERY_LIBS) -lgmp -lm
LDLIBS_PROXY  := -luv -lmicrohttpd -lpq
LDLIBS_ALL    := $(LDLIBS_ROUTER) $(LDLIBS_COMMON) $(LDLIBS_PROXY) -lpthread -ldl

LIB_SOURCES   := $(wildcard common/*.c) $(wildcard router/*.c) $(wildcard resharder/*.c) $(wildcard partition/*.c)
PROXY_SOURCES := $(filter-out proxy/main.c,$(wildcard proxy/*.c))
LIB_OBJECTS   := $(LIB_SOURCES:%.c=$(OUT)/obj/%.o)
PROXY_OBJECTS := $(PROXY_SOURCES:%.c=$(OUT)/obj/%.o)
UNIT_TESTS    := $(patsubst tests/unit/%.c,$(OUT)/tests/unit/%,$(wildcard tests/unit/test_*.c))
FUZZERS       := $(patsubst tests/fuzz/%.c,$(OUT)/tests/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))

Q := $(if $(filter 0,$(V)),@,)
say = $(if $(filter 0,$(V)),@printf '  %-6s %s\n' $(1) $(2),@:)

.PHONY: all
all: $(OUT)/pgshunt $(OUT)/relay

-include Makefile.targets

$(OUT)/libpgshunt.a: $(LIB_OBJECTS)
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar rcs $@ $^

$(OUT)/libproxy.a: $(PROXY_OBJECTS)
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar rcs $@ $^

$(OUT)/pgshunt: $(OUT)/obj/proxy/main.o $(OUT)/libproxy.a $(OUT)/libpgshunt.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS_ALL)

$(OUT)/relay: $(OUT)/obj/tests/bench/relay.o
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ -luv

# The only files that may see Postgres' own headers.
$(OUT)/obj/router/parse%.o $(OUT)/obj/router/rewrite%.o: CPPFLAGS += $(PG_QUERY_CFLAGS)

$(OUT)/obj/%.o: %.c Makefile VERSION
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(OUT)/tests/unit/%: $(OUT)/obj/tests/unit/%.o $(OUT)/libproxy.a $(OUT)/libpgshunt.a
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ -lcmocka $(LDLIBS_ALL)

$(OUT)/tests/fuzz/%: $(OUT)/obj/tests/fuzz/%.o $(OUT)/libproxy.a $(OUT)/libpgshunt.a
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) -fsanitize=fuzzer $(LDFLAGS) -o $@ $^ $(LDLIBS_ALL)

.PRECIOUS: $(OUT)/obj/%.o
-include $(shell find $(OUT)/obj -name '*.d' 2>/dev/null)
