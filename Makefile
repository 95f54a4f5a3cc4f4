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
# libpq's headers have a folder of their own on Debian.
PQ_INCLUDE := $(shell pg_config --includedir 2>/dev/null || echo /usr/include/postgresql)
CPPFLAGS += -isystem $(PQ_INCLUDE)
CFLAGS   += -std=gnu11 $(OPTIMIZE) $(WARNINGS) -fno-common -pthread
LDLIBS_COMMON := -lconfig -lssl -lcrypto -lidn -lxxhash -ljansson -lpcre2-8 -lzstd
LDLIBS_ROUTER := $(PG_QUERY_LIBS) -lgmp -lm
LDLIBS_PROXY  := -luv -lmicrohttpd -lpq
LDLIBS_ALL    := $(LDLIBS_ROUTER) $(LDLIBS_COMMON) $(LDLIBS_PROXY) -lpthread -ldl

LIB_SOURCES   := $(wildcard common/*.c) $(wildcard router/*.c) $(wildcard resharder/*.c) $(wildcard partition/*.c) \
                 $(wildcard failover/*.c) $(wildcard fleet/*.c)
PROXY_SOURCES := $(filter-out proxy/main.c,$(wildcard proxy/*.c))
# What every statement passes through: these files are optimized across each other when the daemon is linked,
# which takes some seconds more. LTO=0 leaves that out. Tests are linked without it in any case.
LTO ?= 1
HOT_SOURCES   := $(patsubst %,proxy/%.c,session simple batch batch_prepare extended extended_bind extended_run pipeline \
                   names marks prepared relay reported pins statement attach balance freshness pool client conn \
                   server worker poller outbox guc own_settings sequences sql_prepare topology schema_wait control hold) \
                 $(patsubst %,common/%.c,wire buffer arena shardkey shardmap schema) \
                 $(patsubst %,router/%.c,keyfind plan_template shape session_functions)
HOT_OBJECTS   := $(patsubst %.c,$(OUT)/obj/%.o,$(wildcard $(HOT_SOURCES)))
ifeq ($(MODE)$(LTO)$(findstring clang,$(CC)),release1)
  LTO_COMPILE := -flto -ffat-lto-objects
  LTO_LINK    := -flto=auto -Wno-error # the compiler has said what it had to say, file by file
  NO_LTO_LINK := -fno-lto
endif
LIB_OBJECTS   := $(LIB_SOURCES:%.c=$(OUT)/obj/%.o)
CTL_OBJECTS   := $(patsubst %.c,$(OUT)/obj/%.o,$(wildcard ctl/*.c))
PROXY_OBJECTS := $(PROXY_SOURCES:%.c=$(OUT)/obj/%.o)
UNIT_TESTS    := $(patsubst tests/unit/%.c,$(OUT)/tests/unit/%,$(wildcard tests/unit/test_*.c))
TEST_TOOLS    := $(patsubst tests/tools/%.c,$(OUT)/tests/tools/%,$(wildcard tests/tools/*.c))
FUZZERS       := $(patsubst tests/fuzz/%.c,$(OUT)/tests/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))

Q := $(if $(filter 0,$(V)),@,)
say = $(if $(filter 0,$(V)),@printf '  %-6s %s\n' $(1) $(2),@:)

.PHONY: all
all: $(OUT)/pgshunt $(OUT)/pgshuntctl $(OUT)/relay $(OUT)/hop $(OUT)/jitter.so $(TEST_TOOLS) ## build the daemon (build/pgshunt), build/pgshuntctl, what the benches put between, and the tests' tools; what plain `make` does

.PHONY: unit-tests fuzzers
unit-tests: $(UNIT_TESTS)
fuzzers: $(FUZZERS)

# ---- what people type ----

SOURCES := $(shell git ls-files --cached --others --exclude-standard '*.c' '*.h' 2>/dev/null)
SOURCES := $(or $(SOURCES),$(wildcard */*.[ch] include/pgshunt/*.h tests/*/*.[ch]))
# Where `make bench` and `make fuzz` may be given more time.
FUZZ_SECONDS ?= 10
BENCH_FLAGS  ?=
# Left out is what cannot follow reference counts, uthash and out-parameters, and reports only noise here; the
# sanitizers look for the same at run time. Tests are compiled with warnings as errors, but not analyzed.
TIDY_CHECKS  := -*,clang-analyzer-core.*,clang-analyzer-unix.*,clang-analyzer-deadcode.*,$\
-clang-analyzer-unix.Malloc,-clang-analyzer-core.NullDereference,-clang-analyzer-core.NonNullParamChecker,$\
-clang-analyzer-core.CallAndMessage,-clang-analyzer-core.uninitialized.*,$\
-clang-analyzer-core.UndefinedBinaryOperatorResult,bugprone-infinite-loop,$\
bugprone-suspicious-memset-usage,bugprone-suspicious-string-compare,$\
bugprone-posix-return,bugprone-signed-char-misuse,bugprone-terminating-continue,misc-redundant-expression

.PHONY: demo check sql-support check-drivers check-patroni check-versions check-reshard check-jitter bench bench-quick bench-sharding bench-partitions bench-reshard asan tsan fuzz format format-check lint install clean deps help

demo: deps ## show everything at once: 2 shards with replicas, data through the proxy, queries (Ctrl-C ends it)
	$(Q)$(MAKE) --no-print-directory all
	$(Q)PGSHUNT=$(abspath $(OUT)/pgshunt) $(PYTHON) tests/demo/demo.py

check: deps ## build everything and run all tests (unit, fuzz, integration, drivers); ends with "N passed, N failed"
	$(Q)$(PYTHON) tests/run $(CHECK)

sql-support: deps all ## write the shapes and examples of docs/reference/sql-support.md: what the tests' statements are answered
	$(Q)PGSHUNT_WRITE_PAGE=1 PGSHUNT=$(abspath $(OUT)/pgshunt) $(PYTHON) -m pytest -q tests/integration/test_differential.py -k table_of_the_page

check-drivers: deps-drivers all ## run every driver, ORM and tool against pgshunt (installs them first)
	$(Q)$(PYTHON) tests/run all-drivers

check-patroni: deps-patroni all ## a switchover and the death of a primary under Patroni and etcd (installs them first)
	$(Q)$(PYTHON) tests/run patroni

check-versions: deps all ## run the core against Postgres 13 to 18 (installs the servers into build/versions)
	$(Q)$(PYTHON) tests/run versions

check-reshard: deps ## kill everything that takes part in a resharding, at every step of it (an hour, more on a busy machine)
	$(Q)$(PYTHON) tests/run reshard

check-jitter: deps ## run the core with delays and cuts in everything the daemon sends, receives and waits for (SEED=N)
	$(Q)$(PYTHON) tests/run $(if $(SEED),--seed $(SEED)) jitter

bench: deps-bench all ## measure pgshunt against direct, a bare relay and PgBouncer: a table and a JSON file
	$(Q)$(PYTHON) tests/bench/bench.py $(BENCH_FLAGS)

bench-quick: deps-bench all ## the same in about a minute, to see that it works
	$(Q)$(PYTHON) tests/bench/bench.py --quick $(BENCH_FLAGS)

bench-sharding: deps-bench all ## measure four shards beside one Postgres: point queries, merges, groups, COPY, two-phase commits
	$(Q)$(PYTHON) tests/bench/sharding.py $(BENCH_FLAGS)

bench-partitions: deps-bench all ## measure partitions: a run with nothing to do, 10,000 made beside psql, what clients wait for us; about ten minutes
	$(Q)$(PYTHON) tests/bench/partitions.py $(BENCH_FLAGS)

bench-reshard: deps-bench all ## measure resharding: the copy, the stream beside a subscription, the pause of a switch, what applications keep meanwhile
	$(Q)$(PYTHON) tests/bench/reshard_copy.py $(BENCH_FLAGS)
	$(Q)$(PYTHON) tests/bench/reshard_apply.py $(BENCH_FLAGS)
	$(Q)$(PYTHON) tests/bench/reshard_switch.py $(BENCH_FLAGS)
	$(Q)$(PYTHON) tests/bench/reshard_foreground.py $(BENCH_FLAGS)

asan: ## build with AddressSanitizer and UBSan into build/asan/
	$(Q)$(MAKE) --no-print-directory MODE=asan all unit-tests

tsan: ## build with ThreadSanitizer into build/tsan/
	$(Q)$(MAKE) --no-print-directory MODE=tsan all unit-tests

fuzz: deps ## build and run every fuzz target for FUZZ_SECONDS (10) each
	$(Q)$(PYTHON) tests/run --fuzz-seconds $(FUZZ_SECONDS) fuzz

format: ## rewrite the C sources in the project's format
	$(Q)clang-format -i $(SOURCES)

format-check: ## say which C sources are not in the project's format
	$(Q)clang-format --dry-run -Werror $(SOURCES)

lint: deps-lint ## build with clang's warnings as errors and run clang-tidy
	$(Q)$(MAKE) --no-print-directory CC=clang BUILD=$(BUILD)/clang all unit-tests
	$(Q)printf '%s\n' $(filter-out tests/%,$(filter %.c,$(SOURCES))) | xargs -n 4 -P 2 sh -c 'for file; do \
	  clang-tidy --quiet --checks="$(TIDY_CHECKS)" --warnings-as-errors="*" "$$file" -- \
	    $(subst '"$(VERSION)"',\"$(VERSION)\",$(CPPFLAGS)) $(PG_QUERY_CFLAGS) -std=gnu11 2>/dev/null || bad=1; done; exit $${bad:-0}' sh

install: all ## install the programs, sample configuration, docs and licence under PREFIX (/usr/local), below DESTDIR
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/doc/pgshunt $(DESTDIR)$(PREFIX)/share/pgshunt
	install -m 755 $(OUT)/pgshunt $(OUT)/pgshuntctl $(DESTDIR)$(PREFIX)/bin/
	cp -R --no-preserve=ownership etc/. $(DESTDIR)$(PREFIX)/share/pgshunt/
	install -m 644 $(wildcard LICENSE README.md CHANGELOG.md CONTRIBUTING.md) $(DESTDIR)$(PREFIX)/share/doc/pgshunt/
	cp -R --no-preserve=ownership docs/. $(DESTDIR)$(PREFIX)/share/doc/pgshunt/

clean: ## remove everything that was built
	rm -rf $(BUILD)

deps: ## install the Debian packages that building and testing need and that are missing
	$(Q)tests/deps.sh build test

.PHONY: deps-bench deps-lint deps-drivers deps-patroni
deps-bench:
	$(Q)tests/deps.sh build bench
deps-drivers:
	$(Q)tests/deps.sh build test drivers
deps-patroni:
	$(Q)tests/deps.sh build test patroni
deps-lint:
	$(Q)tests/deps.sh build test lint

help: ## this list
	@echo "make [TARGET] [VARIABLE=VALUE...]"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "Variables: CC=gcc|clang  MODE=release|debug|asan|tsan|fuzz  BUILD=build  V=1 (show commands)"
	@echo "  PREFIX=/usr/local  LTO=0: links in no time, but the daemon is slower  DESTDIR=  FUZZ_SECONDS=10  CHECK=\"unit integration\" (suites of make check)"
	@echo "  PG_QUERY_DIR=DIR: build against a libpg_query source tree (15, 16 or 17) instead of Debian's"

# ---- build rules ----

$(OUT)/libpgshunt.a: $(LIB_OBJECTS)
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar rcs $@ $^

$(OUT)/libproxy.a: $(PROXY_OBJECTS)
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar rcs $@ $^

$(OUT)/pgshunt: $(OUT)/obj/proxy/main.o $(OUT)/libproxy.a $(OUT)/libpgshunt.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) $(LTO_LINK) $(LDFLAGS) -o $@ $^ $(LDLIBS_ALL)

$(OUT)/pgshuntctl: $(CTL_OBJECTS) $(OUT)/libpgshunt.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) $(NO_LTO_LINK) $(LDFLAGS) -o $@ $^ $(LDLIBS_ROUTER) $(LDLIBS_COMMON) -lpq -lpthread -ldl

$(OUT)/tests/tools/%: $(OUT)/obj/tests/tools/%.o $(OUT)/libpgshunt.a
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(NO_LTO_LINK) $(LDFLAGS) -o $@ $^ $(LDLIBS_ROUTER) $(LDLIBS_COMMON) -lpq -lpthread -ldl

$(OUT)/relay: $(OUT)/obj/tests/bench/relay.o
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ -luv

# Preloaded into the daemon by tests; nothing of the sanitizers' may be in it.
$(OUT)/jitter.so: tests/jitter/jitter.c Makefile
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) -std=gnu11 -O2 -g $(WARNINGS) -fPIC -shared -pthread $(LDFLAGS) -o $@ $< -ldl

$(OUT)/hop: $(OUT)/obj/tests/bench/hop.o
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^

# The only files that may see Postgres' own headers (parse.o and parse_*.o: % is never empty).
$(OUT)/obj/router/parse%o $(OUT)/obj/router/rewrite%o: CPPFLAGS += $(PG_QUERY_CFLAGS)

$(HOT_OBJECTS): CFLAGS += $(LTO_COMPILE)

$(OUT)/obj/%.o: %.c Makefile VERSION
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(OUT)/tests/unit/%: $(OUT)/obj/tests/unit/%.o $(OUT)/libproxy.a $(OUT)/libpgshunt.a
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(NO_LTO_LINK) $(LDFLAGS) -o $@ $^ -lcmocka $(LDLIBS_ALL)

$(OUT)/tests/fuzz/%: $(OUT)/obj/tests/fuzz/%.o $(OUT)/libproxy.a $(OUT)/libpgshunt.a
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(NO_LTO_LINK) -fsanitize=fuzzer $(LDFLAGS) -o $@ $^ $(LDLIBS_ALL)

.PRECIOUS: $(OUT)/obj/%.o
-include $(shell find $(OUT)/obj -name '*.d' 2>/dev/null)
