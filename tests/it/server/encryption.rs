//! Secrets at rest: none is stored in clear, only the key file decrypts them, and the key can be rotated or introduced
//! by an upgrade, even when the process is killed at any moment.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use roster::kernel::encryption::{Encryption, SecretLocation};
use roster::kernel::ids::MemberId;
use rusqlite::Connection;
use serde_json::json;
use totp_rs::Secret;

use crate::credentials::keys::hex;
use crate::harness::site::{PASSWORD, Site, binary};
use crate::rules::schema::make_former;
use crate::sessions::second_factor::{Authenticator, answer, challenge};

fn key_file(data: &Path) -> PathBuf {
    data.join("encryption.key")
}

fn next_file(data: &Path) -> PathBuf {
    data.join("encryption.key.new")
}

fn write_key(file: &Path, text: &str) {
    std::fs::write(file, text).expect("written");
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).expect("made private");
}

fn rows(data: &Path) -> Connection {
    Connection::open(data.join("roster.db")).expect("the file")
}

/// The stored secrets: for each one its place and the statement that reads it.
fn stored(data: &Path) -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let all = [
        ("server_key", "select x'01', server_key from site"),
        ("private_key", "select cast(id as blob), private_key from signing_keys"),
        ("secret", "select member_id, secret from second_factors"),
    ];
    let rows = rows(data);
    let mut found = Vec::new();
    for (name, sql) in all {
        let mut statement = rows.prepare(sql).expect("a statement");
        let listed = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("rows");
        found.extend(listed.map(|row| row.expect("a row")).map(|(row, stored)| (name, row, stored)));
    }
    found
}

fn encryption_place<'a>(name: &str, row: &'a [u8]) -> SecretLocation<'a> {
    match name {
        "server_key" => SecretLocation::new("site", "server_key", row),
        "private_key" => SecretLocation::new("signing_keys", "private_key", row),
        _ => SecretLocation::new("second_factors", "secret", row),
    }
}

/// All secrets of a directory, decrypted.
fn decrypted_secrets(data: &Path) -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let encryption = Encryption::open(&key_file(data)).expect("the key");
    let read = |(name, row, stored): (&'static str, Vec<u8>, Vec<u8>)| {
        let clear = encryption.decrypt(encryption_place(name, &row), &stored).expect("decrypted");
        (name, row, clear)
    };
    stored(data).into_iter().map(read).collect()
}

/// Whether one of the database's files contains these bytes, as they are or as text.
fn is_in_files(data: &Path, secret: &[u8]) -> bool {
    let forms = [secret.to_vec(), hex(secret).into_bytes(), hex(secret).to_uppercase().into_bytes()];
    let forms = forms.into_iter().chain([STANDARD.encode(secret).trim_end_matches('=').as_bytes().to_vec()]);
    let forms: Vec<Vec<u8>> = forms.collect();
    ["roster.db", "roster.db-wal", "roster.db-shm"].iter().any(|name| {
        let bytes = std::fs::read(data.join(name)).unwrap_or_default();
        forms.iter().any(|form| bytes.windows(form.len()).any(|part| part == form))
    })
}

/// The part of a secret that the files must not contain: of a PKCS #8 document only the key itself is secret.
fn secret_part(name: &str, clear: &[u8]) -> Vec<u8> {
    match name {
        // 16 bytes precede the 32-byte seed (RFC 8410).
        "private_key" => clear[16..48].to_vec(),
        _ => clear.to_vec(),
    }
}

/// Runs a command that fails and returns its message.
fn failing(data: &Path) -> String {
    let output = Command::new(binary()).args(["signing-key", "list", "--data"]).arg(data).output().expect("roster");
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a command and kills it after this time, wherever it is by then.
fn killed_after(pause_ms: u64, data: &Path, arguments: &[&str]) {
    let mut child = Command::new(binary())
        .args(arguments)
        .arg("--data")
        .arg(data)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("roster");
    std::thread::sleep(Duration::from_millis(pause_ms));
    let _ = child.kill();
    child.wait().expect("status");
}

fn succeeding(data: &Path, arguments: &[&str]) {
    let output = Command::new(binary()).args(arguments).arg("--data").arg(data).output().expect("roster");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A member with a second factor: its name, its authenticator, and the secret.
async fn with_factor(site: &Site) -> (String, Authenticator, Vec<u8>) {
    let member = site.member().await;
    let begun = member.caller().post("/me/second-factor", json!({"password": PASSWORD})).await.data();
    let secret = Secret::try_from_base32(begun["secret"].as_str().expect("a secret")).expect("base32");
    let mut app = Authenticator::of(&begun);
    let code = app.code();
    member.caller().post("/me/second-factor/confirm", json!({"code": code})).await.done();
    (member.username, app, secret.as_ref().to_vec())
}

/// Whether the signing keys, the server's key and the second factors work.
async fn assert_keys_work(site: &Site, (name, app): (&str, &mut Authenticator), refresh: &serde_json::Value) {
    site.admin().get("/me").await.done();
    let waiting = challenge(site, name).await;
    answer(site, &waiting, &app.code()).await.done();
    // The successor of a refresh token is derived from the server's key: the same token gives the same successor.
    let again = site.nobody().post("/auth/refresh", refresh.clone()).await;
    again.done();
}

async fn session(site: &Site) -> serde_json::Value {
    let member = site.member().await;
    let login = json!({"login": member.username, "password": PASSWORD});
    let tokens = site.nobody().post("/auth/login", login).await.data();
    json!({"refresh_token": tokens["refresh_token"], "session_id": tokens["session_id"]})
}

// ── at rest ──

#[tokio::test]
async fn no_secret_is_stored_in_clear() {
    let mut site = Site::start().await;
    site.command(&["signing-key", "rotate"]);
    let (_, _, totp) = with_factor(&site).await;
    // A secret that waits for its first code counts too, and so does one that was replaced.
    let member = site.member().await;
    for _ in 0..2 {
        member.caller().post("/me/second-factor", json!({"password": PASSWORD})).await.done();
    }

    for round in 0..2 {
        let secrets = decrypted_secrets(site.path());
        assert_eq!(secrets.iter().filter(|(name, ..)| *name == "private_key").count(), 2);
        assert_eq!(secrets.iter().filter(|(name, ..)| *name == "secret").count(), 2);
        assert!(secrets.iter().any(|(_, _, clear)| *clear == totp));
        for (name, _, clear) in &secrets {
            assert!(!is_in_files(site.path(), &secret_part(name, clear)), "{name} {round}");
        }
        let key = std::fs::read_to_string(key_file(site.path())).expect("the key");
        assert!(!is_in_files(site.path(), key.trim().as_bytes()) && !site.log().contains(key.trim()));
        // The secrets are in the write-ahead log first, and in the database file after a restart.
        site.restart().await;
    }
}

/// Every column of bytes must be listed here, either as not secret or as encrypted.
#[test]
fn every_column_of_bytes_is_an_id_a_digest_or_encrypted() {
    const ENCRYPTED: [(&str, &str); 3] =
        [("site", "server_key"), ("signing_keys", "private_key"), ("second_factors", "secret")];
    const PUBLIC: [(&str, &str); 2] = [("signing_keys", "public_key"), ("plugin_components", "component")];
    let memory = Connection::open_in_memory().expect("memory");
    memory.execute_batch(roster::kernel::db::schema::SCHEMA).expect("schema.sql");
    let sql = "select t.name, c.name from pragma_table_list t join pragma_table_info(t.name) c
               where t.schema = 'main' and t.type = 'table' and c.type = 'BLOB'";
    let mut statement = memory.prepare(sql).expect("a statement");
    let columns = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("rows");
    let columns: Vec<(String, String)> = columns.map(|row| row.expect("a row")).collect();
    let is_plain = |name: &str| {
        ["id", "hash", "sha256", "fingerprint", "size_by"].contains(&name)
            || ["_id", "_hash"].iter().any(|ending| name.ends_with(ending))
    };
    for (table, column) in &columns {
        let named = (table.as_str(), column.as_str());
        assert!(
            is_plain(column) || ENCRYPTED.contains(&named) || PUBLIC.contains(&named),
            "{table}.{column}: is it a secret? Then it is encrypted, rotated and named here"
        );
    }
    assert!(ENCRYPTED.iter().all(|(table, column)| columns.contains(&((*table).into(), (*column).into()))));
}

#[tokio::test]
async fn a_missing_wrong_or_readable_key_file_is_reported_and_not_replaced() {
    let mut site = Site::start().await;
    let refresh = session(&site).await;
    let (name, mut app, _) = with_factor(&site).await;
    site.between_runs(|data| {
        let (file, good) = (key_file(data), std::fs::read_to_string(key_file(data)).expect("the key"));
        let before = stored(data);

        std::fs::remove_file(&file).expect("removed");
        let said = failing(data);
        assert!(said.contains("encryption.key is missing") && said.contains("encryption_key_file"), "{said}");
        assert!(!file.exists());

        for (text, word) in [
            ("0".repeat(64), "contains another key"),
            ("0".repeat(63), "64 hexadecimal"),
            (String::new(), "64 hexadecimal"),
        ] {
            write_key(&file, &text);
            let said = failing(data);
            assert!(said.contains(word), "{said}");
            assert_eq!(std::fs::read_to_string(&file).expect("the key"), text);
        }

        write_key(&file, &good);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("opened");
        assert!(failing(data).contains("chmod 600"));

        write_key(&file, &good);
        assert_eq!(stored(data), before);
    });
    assert_keys_work(&site, (&name, &mut app), &refresh).await;
}

#[tokio::test]
async fn the_key_file_may_be_in_another_folder() {
    // Outlives the site, which reads its data once more when it is dropped.
    let elsewhere = tempfile::tempdir().expect("a folder");
    let mut site = Site::start().await;
    let (name, mut app, _) = with_factor(&site).await;
    let refresh = session(&site).await;
    let file = elsewhere.path().join("roster.key");
    site.between_runs(|data| {
        std::fs::rename(key_file(data), &file).expect("moved");
        let settings = std::fs::read_to_string(data.join("roster.toml")).expect("settings");
        std::fs::write(data.join("roster.toml"), format!("encryption_key_file = {file:?}\n{settings}"))
            .expect("written");
    });
    assert_keys_work(&site, (&name, &mut app), &refresh).await;
    let former = std::fs::read_to_string(&file).expect("the key");

    site.command(&["encryption-key", "rotate"]);

    assert_ne!(std::fs::read_to_string(&file).expect("the key"), former);
    assert!(!key_file(site.path()).exists());
}

#[tokio::test]
async fn a_secret_is_valid_in_its_own_row_only() {
    let site = Site::start().await;
    let (one, mut app_of_one, _) = with_factor(&site).await;
    let (_, _, _) = with_factor(&site).await;
    let swap = "update second_factors set secret = (select secret from second_factors f where f.member_id <> second_factors.member_id)";
    site.write_rows(|rows| rows.execute(swap, []));

    let waiting = challenge(&site, &one).await;
    let reply = answer(&site, &waiting, &app_of_one.code()).await;

    assert_eq!(reply.status, 500);
    assert!(site.log().contains("cannot be decrypted"));
}

// ── rotation ──

#[tokio::test]
async fn a_rotation_re_encrypts_every_secret_and_changes_nothing_else() {
    let mut site = Site::start().await;
    let (name, mut app, _) = with_factor(&site).await;
    let refresh = session(&site).await;
    let (mut before, mut known) = (stored(site.path()), decrypted_secrets(site.path()));
    known.sort();
    let mut former = std::fs::read_to_string(key_file(site.path())).expect("the key");

    for is_running in [true, false] {
        let answered = match is_running {
            true => site.command(&["encryption-key", "rotate"]),
            false => site.command_while_stopped(&["encryption-key", "rotate"]),
        };
        assert_eq!(answered["id"].as_str().map(str::len), Some(16));

        let now = std::fs::read_to_string(key_file(site.path())).expect("the key");
        assert_ne!(now, former);
        assert_eq!(std::fs::metadata(key_file(site.path())).expect("the key").permissions().mode() & 0o777, 0o600);
        assert!(!next_file(site.path()).exists());
        let after = stored(site.path());
        assert!(after.iter().all(|secret| !before.contains(secret)));
        let mut same = decrypted_secrets(site.path());
        same.sort();
        assert_eq!(same, known);
        assert_eq!(site.last_audit_entry().await["action"], "encryption_key.rotate");
        for key in [&now, &former] {
            assert!(!site.log().contains(key.trim()));
        }
        former = now;
        // Secrets created from now on are encrypted with the new key, in this run and in the next.
        with_factor(&site).await;
        known = decrypted_secrets(site.path());
        before = stored(site.path());
        known.sort();
    }
    site.restart().await;
    assert_keys_work(&site, (&name, &mut app), &refresh).await;
    assert_eq!(decrypted_secrets(site.path()).len(), known.len());
}

#[tokio::test]
async fn only_the_platform_s_administrators_rotate() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let former = std::fs::read_to_string(key_file(site.path())).expect("the key");

    acme.owner().post("/admin/encryption-key/rotate", json!({})).await.is(28_505_000);

    assert_eq!(std::fs::read_to_string(key_file(site.path())).expect("the key"), former);
    assert!(!next_file(site.path()).exists());
    site.admin().post("/admin/encryption-key/rotate", json!({})).await.done();
}

#[tokio::test]
async fn a_rotation_that_is_killed_anywhere_leaves_a_site_that_starts() {
    let mut site = Site::start().await;
    let (name, mut app, _) = with_factor(&site).await;
    let refresh = session(&site).await;
    let mut known = decrypted_secrets(site.path());
    known.sort();
    let is_whole = |data: &Path| {
        succeeding(data, &["signing-key", "list"]);
        assert!(!next_file(data).exists() && !data.join("encryption.key.part").exists());
        let mut now = decrypted_secrets(data);
        now.sort();
        assert_eq!(now, known);
    };
    site.between_runs(|data| {
        let former = std::fs::read_to_string(key_file(data)).expect("the key");
        // Killed while the new key is written.
        write_key(&data.join("encryption.key.new.part"), "abc");
        succeeding(data, &["encryption-key", "rotate"]);
        is_whole(data);
        // Killed before the rows are rewritten.
        let first = std::fs::read_to_string(key_file(data)).expect("the key");
        assert_ne!(first, former);
        write_key(&next_file(data), &"7".repeat(64));
        is_whole(data);
        assert_eq!(std::fs::read_to_string(key_file(data)).expect("the key"), first);
        // Killed after the rows are rewritten and before the key file is replaced.
        succeeding(data, &["encryption-key", "rotate"]);
        let second = std::fs::read_to_string(key_file(data)).expect("the key");
        write_key(&next_file(data), &second);
        write_key(&key_file(data), &first);
        is_whole(data);
        assert_eq!(std::fs::read_to_string(key_file(data)).expect("the key"), second);
        // The same, and the next command is a rotation.
        write_key(&next_file(data), &second);
        write_key(&key_file(data), &first);
        succeeding(data, &["encryption-key", "rotate"]);
        is_whole(data);
        // Killed after a delay, at any point.
        for pause_ms in [0, 5, 15, 30, 50, 80, 120, 200] {
            killed_after(pause_ms, data, &["encryption-key", "rotate"]);
            is_whole(data);
        }
    });
    assert_keys_work(&site, (&name, &mut app), &refresh).await;
}

// ── upgrade ──

/// Turns a directory into one that a Roster of schema 5 would have left: the same rows, with all secrets in clear.
fn downgrade_to_schema_5(data: &Path) {
    let secrets = decrypted_secrets(data);
    let (file, newer) = (data.join("roster.db"), data.join("newer.db"));
    std::fs::rename(&file, &newer).expect("renamed");
    let old = make_former(&file, 5);
    old.execute_batch("pragma journal_mode = wal; pragma foreign_keys = off").expect("settings");
    old.execute("attach ?1 as newer", [newer.to_str().expect("a path")]).expect("attached");
    let names = |sql: &str, table: &str| -> Vec<String> {
        let mut listed = old.prepare(sql).expect("a list");
        listed.query_map([table], |row| row.get(0)).expect("rows").map(|row| row.expect("row")).collect()
    };
    let tables = names("select name from main.sqlite_schema where type = 'table' and name not like ?1", "sqlite_%");
    for table in &tables {
        if table == "site" {
            // In schema 5 the server's key has another length.
            let (_, _, key) = secrets.iter().find(|(name, ..)| *name == "server_key").expect("the key");
            let sql =
                "insert into main.site (only, epoch, created_at, server_key, setup_hash, setup_expires_at, videos)
                       select s.only, epoch, created_at, ?1, setup_hash, setup_expires_at, videos
                       from newer.site s, newer.site_usage";
            old.execute(sql, [key]).expect("the site");
            continue;
        }
        let columns = names("select name from pragma_table_info(?1, 'main')", table);
        let columns = columns.join(", ");
        old.execute_batch(&format!("insert into main.{table} ({columns}) select {columns} from newer.{table}"))
            .expect("copied");
    }
    for (name, row, clear) in &secrets {
        let sql = match *name {
            "private_key" => "update signing_keys set private_key = ?1 where id = cast(?2 as text)",
            "secret" => "update second_factors set secret = ?1 where member_id = ?2",
            _ => continue,
        };
        assert_eq!(old.execute(sql, (clear, row)).expect("in clear"), 1);
    }
    old.execute_batch("detach newer").expect("detached");
    drop(old);
    std::fs::remove_file(newer).expect("removed");
    std::fs::remove_file(key_file(data)).expect("removed");
}

#[tokio::test]
async fn an_upgrade_encrypts_all_secrets_and_leaves_no_clear_copy() {
    let mut site = Site::start().await;
    let (name, mut app, _) = with_factor(&site).await;
    let refresh = session(&site).await;
    let mut known = decrypted_secrets(site.path());
    known.sort();
    let check = |data: &Path| {
        let mut now = decrypted_secrets(data);
        now.sort();
        assert_eq!(now, known);
        for (name, _, clear) in &known {
            assert!(!is_in_files(data, &secret_part(name, clear)), "{name}");
        }
    };
    site.between_runs(|data| {
        downgrade_to_schema_5(data);
        let found =
            |data: &Path| known.iter().filter(|(name, _, clear)| is_in_files(data, &secret_part(name, clear))).count();
        assert_eq!(found(data), known.len());

        succeeding(data, &["signing-key", "list"]);

        check(data);
        let key = std::fs::read_to_string(key_file(data)).expect("the key");
        // Killed after the key was created and before any row was encrypted: the same key is used.
        downgrade_to_schema_5(data);
        write_key(&key_file(data), &key);
        succeeding(data, &["signing-key", "list"]);
        check(data);
        assert_eq!(std::fs::read_to_string(key_file(data)).expect("the key"), key);
        // Killed after all rows were encrypted, with clear copies left in free pages.
        let forget = "update site set encryption_key_id = null";
        assert_eq!(rows(data).execute(forget, []).expect("forgotten"), 1);
        rows(data)
            .execute_batch("create table traces (bytes blob) strict; pragma secure_delete = off;")
            .expect("a table");
        for (name, _, clear) in &known {
            let needle = secret_part(name, clear);
            rows(data).execute("insert into traces (bytes) values (?1)", [needle]).expect("a trace");
        }
        rows(data).execute_batch("drop table traces").expect("dropped");
        assert_eq!(found(data), known.len());
        succeeding(data, &["signing-key", "list"]);
        check(data);
        // Then no new key is created.
        assert_eq!(rows(data).execute(forget, []).expect("forgotten"), 1);
        std::fs::remove_file(key_file(data)).expect("removed");
        assert!(failing(data).contains("encryption.key is missing"));
        assert!(!key_file(data).exists());
        write_key(&key_file(data), &key);
        succeeding(data, &["signing-key", "list"]);
        check(data);
    });
    assert_keys_work(&site, (&name, &mut app), &refresh).await;
}

#[tokio::test]
async fn an_upgrade_that_is_killed_anywhere_is_resumed() {
    let mut site = Site::start().await;
    let (name, mut app, _) = with_factor(&site).await;
    let refresh = session(&site).await;
    let mut known = decrypted_secrets(site.path());
    known.sort();
    site.between_runs(|data| {
        for pause_ms in [5, 15, 30, 50, 80, 120] {
            downgrade_to_schema_5(data);
            killed_after(pause_ms, data, &["signing-key", "list"]);
            succeeding(data, &["signing-key", "list"]);
            let mut now = decrypted_secrets(data);
            now.sort();
            assert_eq!(now, known, "{pause_ms}");
            assert!(known.iter().all(|(name, _, clear)| !is_in_files(data, &secret_part(name, clear))), "{pause_ms}");
        }
    });
    assert_keys_work(&site, (&name, &mut app), &refresh).await;
}

#[test]
fn a_second_factor_secret_is_bound_to_its_member() {
    let folder = tempfile::tempdir().expect("a folder");
    let encryption = Encryption::open_or_generate(&key_file(folder.path())).expect("a key");
    let id = encryption.key_id().expect("an id");
    let (one, other) = (MemberId::new(), MemberId::new());
    let stored = encryption.encrypt(id, SecretLocation::second_factor(&one), b"secret").expect("encrypted");
    assert!(encryption.decrypt(encryption_place("secret", one.0.as_bytes()), &stored).is_ok());
    assert!(encryption.decrypt(SecretLocation::second_factor(&other), &stored).is_err());
    assert!(encryption.decrypt(SecretLocation::server_key(), &stored).is_err());
}
