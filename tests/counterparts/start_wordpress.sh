#!/usr/bin/env bash
# A real WordPress on loopback, with our plugins, in a private database, under a temporary folder.
#
#   start_wordpress.sh [PORT]        0, the default, takes a free one
#
# Prints one line of JSON (see seed_wordpress.php) and runs until its standard input closes or it gets a signal; then it
# removes the database, the web server and the folder. ROSTER_TICKET_SECRET, ROSTER_RETURN_URLS and ROSTER_EVENTS_KEY,
# from the environment, are constants of the plugins. ROSTER_EVENTS_URL is read from the file `events_url` in the site's
# folder at the start of each request, so that each test can receive the events. WORDPRESS_SOURCE is the folder with the
# files of WordPress.
set -euo pipefail
PATH=$PATH:/usr/sbin:/usr/local/sbin # mariadbd lies where only root looks.

here=$(cd "$(dirname "$0")" && pwd)
source=${WORDPRESS_SOURCE:-/usr/share/wordpress}
export ROSTER_TICKET_SECRET=${ROSTER_TICKET_SECRET-a-ticket-secret-of-32-characters-or-more}
export ROSTER_EVENTS_KEY=${ROSTER_EVENTS_KEY-a-key-for-hints-of-32-characters-or-more}
export ROSTER_RETURN_URLS=${ROSTER_RETURN_URLS-http://127.0.0.1:9/return}
# A short path, independent of TMPDIR: the path of a socket is limited to about 100 characters.
folder=$(mktemp -d /tmp/roster-wordpress.XXXXXX)
mkdir "$folder/database" "$folder/www"

jobs_started=()
stop() {
  trap - EXIT INT TERM HUP
  exec 2>/dev/null # The shell would tell of every job that it lost.
  # Each job is a process group, because PHP's workers do not end with their parent.
  for job in "${jobs_started[@]}"; do kill -KILL -- "-$job" || true; done
  wait
  rm -rf "$folder"
}
trap stop EXIT
trap 'exit 0' INT TERM HUP
fail() {
  echo "start_wordpress.sh: $*" >&2
  tail -n 20 "$folder"/*.log >&2 || true
  exit 1
}
in_background() { # LOG COMMAND...
  local log=$folder/$1.log
  shift
  set -m
  "$@" </dev/null >"$log" 2>&1 &
  jobs_started+=($!)
  set +m
}
wait_until() { # COMMAND...: for 20 seconds at most
  local try
  for ((try = 0; try < 400; try++)); do
    "$@" >/dev/null 2>&1 && return 0
    sleep 0.05
  done
  fail "waited too long: $*"
}

# The web server starts first, because it finds a free port, and the site must know its own URL.
cat >"$folder/router.php" <<'PHP'
<?php // For `php -S`: files as they are, everything else by WordPress.
$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
if (is_dir($_SERVER['DOCUMENT_ROOT'] . $path)) $path = rtrim($path, '/') . '/index.php';
if (!is_file($_SERVER['DOCUMENT_ROOT'] . $path)) $path = '/index.php';
if (substr($path, -4) !== '.php') return false;
$_SERVER['SCRIPT_NAME'] = $_SERVER['PHP_SELF'] = $path;
chdir(dirname($_SERVER['DOCUMENT_ROOT'] . $path));
require $_SERVER['DOCUMENT_ROOT'] . $path;
PHP
PHP_CLI_SERVER_WORKERS=3 in_background php php -S "127.0.0.1:${1:-0}" -t "$folder/www" "$folder/router.php"
url_of_log() { grep -om1 'http://127.0.0.1:[0-9]*' "$folder/php.log"; }

# A database on a socket only. Nothing in it is needed after a crash.
user=$(id -un)
socket=$folder/socket
mariadb-install-db --no-defaults --user="$user" --datadir="$folder/database" --skip-test-db \
  --auth-root-authentication-method=normal >"$folder/install-db.log" 2>&1 || fail mariadb-install-db
in_background mariadbd mariadbd --no-defaults --user="$user" --datadir="$folder/database" --socket="$socket" \
  --skip-networking --innodb-buffer-pool-size=64M --innodb-flush-log-at-trx-commit=0
sql() { mariadb --no-defaults --user=root --socket="$socket" --execute="$1"; }
wait_until sql 'select 1'
sql 'create database wordpress character set utf8mb4'

# Copies the targets of symbolic links, because many lead to other packages. Some are dangling: they lead to a
# configuration that does not exist.
cp -RL "$source/." "$folder/www/" 2>/dev/null || true
mkdir -p "$folder/www/wp-content/mu-plugins"
cp "$here"/../../packaging/wordpress/roster-*.php "$folder/www/wp-content/mu-plugins/"
wait_until url_of_log
printf '<?php const SITE_URL = "%s";\n' "$(url_of_log)" >"$folder/www/site.php"
cat >"$folder/www/wp-config.php" <<PHP
<?php
require_once __DIR__ . '/site.php';
define('DB_NAME', 'wordpress');
define('DB_USER', 'root');
define('DB_PASSWORD', '');
define('DB_HOST', 'localhost:$socket');
define('DB_CHARSET', 'utf8mb4');
define('DB_COLLATE', '');
foreach (['AUTH', 'SECURE_AUTH', 'LOGGED_IN', 'NONCE'] as \$name) {
    define("{\$name}_KEY", "a key for tests, \$name");
    define("{\$name}_SALT", "a salt for tests, \$name");
}
define('WP_HOME', SITE_URL);
define('WP_SITEURL', SITE_URL);
define('WP_ENVIRONMENT_TYPE', 'local'); // Application passwords without TLS.
define('WP_HTTP_BLOCK_EXTERNAL', true);
define('WP_ACCESSIBLE_HOSTS', '127.0.0.1,localhost');
define('AUTOMATIC_UPDATER_DISABLED', true);
define('DISABLE_WP_CRON', true);
// From the environment, so that no value has to be quoted here.
define('ROSTER_TICKET_SECRET', (string) getenv('ROSTER_TICKET_SECRET'));
define('ROSTER_RETURN_URLS', (string) getenv('ROSTER_RETURN_URLS'));
define('ROSTER_EVENTS_URL', trim((string) @file_get_contents(__DIR__ . '/events_url')));
define('ROSTER_EVENTS_KEY', (string) getenv('ROSTER_EVENTS_KEY'));
define('ROSTER_EVENTS_RETRY_SECONDS', 1);
\$table_prefix = 'wp_';
defined('ABSPATH') || define('ABSPATH', __DIR__ . '/');
require_once ABSPATH . 'wp-settings.php';
PHP

php -d display_errors=stderr "$here/seed_wordpress.php" "$folder/www" >"$folder/seeded" 2>"$folder/seed.log" || fail seed
wait_until curl --noproxy '*' -fsS -o /dev/null "$(url_of_log)/wp-json/"
cat "$folder/seeded"
# Waits until the process that started it is gone. `read` is a builtin, because a signal trap waits for an external
# program to end.
while read -r; do :; done
