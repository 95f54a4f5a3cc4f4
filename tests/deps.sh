#!/bin/bash
# Installs the Debian packages that building and testing need and that are missing, and nothing else.
#
#   tests/deps.sh [GROUP...]     build, test, drivers, bench, lint, patroni; default: build test
#
# Quick and silent when nothing is missing. No service is started and no cluster created by what it
# installs. On a system without dpkg it only says what is needed.
set -euo pipefail
export LC_ALL=C

declare -A groups=(
    [build]="gcc make pkg-config libc6-dev libpg-query-dev postgresql-server-dev-15 libpq-dev libuv1-dev
             libxxhash-dev libconfig-dev libmicrohttpd-dev libjansson-dev uthash-dev libgmp-dev
             libidn-dev libssl-dev libpcre2-dev libzstd-dev"
    [test]="clang clang-format llvm libclang-rt-14-dev libcmocka-dev postgresql-15 postgresql-client-15
            postgresql-15-partman
            python3 python3-pytest python3-pytest-xdist python3-psycopg python3-psycopg2 python3-asyncpg
            libpostgresql-jdbc-java procps libnss-wrapper util-linux zstd"
    [drivers]="python3-sqlalchemy python3-django ruby-pg php-cli php-pgsql libdbd-pg-perl
               pgcli prometheus prometheus-pgbouncer-exporter"
    [bench]="postgresql-15 postgresql-client-15 pgbouncer python3 python3-psycopg python3-psycopg2"
    [lint]="clang clang-tidy"
    [patroni]="postgresql-15 patroni etcd-server python3-etcd python3-psycopg2 python3-pytest"
)

[ $# -gt 0 ] || set -- build test
wanted=()
for group; do
    if [ -z "${groups[$group]:-}" ]; then
        echo "deps: there is no group \"$group\"; allowed: ${!groups[*]}" >&2
        exit 2
    fi
    # shellcheck disable=SC2206
    wanted+=(${groups[$group]})
    # Compilers and runtimes may come from elsewhere (Debian's npm brings hundreds of packages).
    if [ "$group" = test ]; then
        command -v node >/dev/null || wanted+=(nodejs)
        command -v npm >/dev/null || wanted+=(npm ca-certificates)
        command -v javac >/dev/null || wanted+=(default-jdk-headless)
    fi
    if [ "$group" = drivers ]; then
        command -v go >/dev/null || wanted+=(golang-go ca-certificates)
    fi
done

if ! command -v dpkg-query >/dev/null; then
    echo "deps: this is not a Debian system; make sure that it has what these packages give:" >&2
    printf '  %s\n' "${wanted[@]}" >&2
    exit 0
fi

# A package counts as there when it, or one that provides it, is installed.
is_installed() {
    dpkg-query -W -f='${db:Status-Status} ${Package} ${Provides}\n' 2>/dev/null |
        awk '$1 == "installed" { gsub(/\([^)]*\)|,/, ""); for (i = 2; i <= NF; i++) print $i }'
}
missing=$(comm -23 <(printf '%s\n' "${wanted[@]}" | sort -u) <(is_installed | sort -u))
[ -n "$missing" ] || exit 0
# shellcheck disable=SC2086
set -- $missing

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || {
        echo "deps: these packages are missing and neither root nor sudo is here to install them: $*" >&2
        exit 1
    }
    as_root=(sudo)
fi

# Debian's postgresql-15 makes and starts a cluster "main" of its own unless told not to; other packages
# start their service. Tests bring their own servers, so neither may happen.
no_cluster=/etc/postgresql-common/createcluster.d/pgshunt-deps.conf
had_dir=no
[ ! -d /etc/postgresql-common/createcluster.d ] || had_dir=yes
forget_no_cluster() {
    "${as_root[@]}" rm -f "$no_cluster"
    [ "$had_dir" = yes ] || "${as_root[@]}" rmdir --ignore-fail-on-non-empty \
        /etc/postgresql-common/createcluster.d 2>/dev/null || true
}
trap forget_no_cluster EXIT
"${as_root[@]}" mkdir -p "${no_cluster%/*}"
echo "create_main_cluster = false" | "${as_root[@]}" tee "$no_cluster" >/dev/null

echo "deps: installing $*"
apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 NEEDRESTART_SUSPEND=1 apt-get -q -o DPkg::Lock::Timeout=300)
"${apt[@]}" update
"${apt[@]}" install -y --no-install-recommends "$@"

# Under systemd the run level does not keep a service from starting: stop the one that came just now.
if [ -d /run/systemd/system ]; then
    for service in pgbouncer patroni etcd prometheus prometheus-pgbouncer-exporter; do
        [[ " $* " != *" $service "* ]] || "${as_root[@]}" systemctl disable --now "$service.service"
    done
fi
