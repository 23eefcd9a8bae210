//! Hashes of passwords: imported ones, rehashing, and that their work reveals nothing.

use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version};
use serde_json::json;

use super::{OTHER, login};
use crate::harness::site::{PASSWORD, Site};

fn stored_hash(site: &Site, uid: &str) -> String {
    let id = uuid::Uuid::parse_str(uid).expect("an id").into_bytes().to_vec();
    site.rows().query_row("select password_hash from members where id = ?", [id], |row| row.get(0)).expect("a hash")
}

#[tokio::test]
async fn a_password_is_rehashed_at_sign_in_when_the_settings_require_more() {
    let mut site = Site::start().await;
    let (uid, username, token) = {
        let member = site.member().await;
        (member.uid, member.username, member.token)
    };
    let former = stored_hash(&site, &uid);
    assert!(former.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{former}");
    let settings = "[password]\nmemory_kib = 64\niterations = 2\n";
    std::fs::write(site.path().join("roster.toml"), settings).expect("settings");
    site.restart().await;

    login(&site.nobody(), &username, OTHER).await.is(28_501_000);
    assert_eq!(stored_hash(&site, &uid), former);
    site.token(&username, PASSWORD).await;

    let renewed = stored_hash(&site, &uid);
    assert!(renewed.starts_with("$argon2id$v=19$m=64,t=2,p=1$"), "{renewed}");
    site.bearer(&token).get("/me").await.done();
    site.token(&username, PASSWORD).await;
    assert_eq!(stored_hash(&site, &uid), renewed);
}

/// From the tests of bcrypt in crypt_blowfish: the password is `U*U`.
const BCRYPT_TAIL: &str = "$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";

fn argon2_of_work(work: Params, password: &str) -> String {
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, work);
    let hash: argon2::password_hash::phc::PasswordHash =
        argon2.hash_password_with_salt(password.as_bytes(), b"somesalt").expect("a hash");
    hash.to_string()
}

fn argon2_of(algorithm: Algorithm, password: &str) -> String {
    let argon2 = Argon2::new(algorithm, Version::V0x13, Params::new(64, 1, 1, None).expect("parameters"));
    let hash: argon2::password_hash::phc::PasswordHash =
        argon2.hash_password_with_salt(password.as_bytes(), b"somesalt").expect("a hash");
    hash.to_string()
}

#[tokio::test]
async fn an_imported_hash_signs_in_and_becomes_argon2id_at_once() {
    let site = Site::start().await;

    for (n, (hash, password)) in [
        (format!("$2a{BCRYPT_TAIL}"), "U*U"),
        (format!("$2b{BCRYPT_TAIL}"), "U*U"),
        (format!("$2y{BCRYPT_TAIL}"), "U*U"),
        (argon2_of(Algorithm::Argon2i, PASSWORD), PASSWORD),
        (argon2_of(Algorithm::Argon2d, PASSWORD), PASSWORD),
    ]
    .into_iter()
    .enumerate()
    {
        let username = format!("kim{n}");
        let new = json!({"username": username, "password_hash": hash});
        let made = site.admin().post("/admin/members", new).await.data();
        let uid = made["uid"].as_str().expect("uid");
        assert_eq!(stored_hash(&site, uid), hash);

        login(&site.nobody(), &username, "U*V").await.is(28_501_000);
        assert_eq!(stored_hash(&site, uid), hash);
        site.token(&username, password).await;

        assert!(stored_hash(&site, uid).starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{hash}");
        site.token(&username, password).await;
    }
}

#[tokio::test]
async fn hashes_of_wordpress_django_and_crypt_sign_in_and_become_argon2id_at_once() {
    const PASSWORD: &str = "Winter-Tide-42";
    let site = Site::start().await;
    for (n, (hash, stored)) in [
        ("$P$BsaltsaltyvayDBu39pLoTeW858tf7.", None),
        ("$wp$2y$04$aVR9NlBb6NJSs/gsntOU0umMUTUTDEztSVX0BqTQ2IPLb3FDRvkHm", None),
        ("pbkdf2_sha256$1000$seasalt$A/qYSI/6VPY8l4w9zxxJg7lAt8AkAAf+wTv/TnJR+wo=", None),
        ("bcrypt_sha256$$2b$04$dAqiswnMInZFIIiFV9Tmj.DXGaHzjWDvtPZ2QhOAxvjfHb04Z31ZW", None),
        (
            "bcrypt$$2y$04$uoFwTBVRokjNqthd8OggbepPMvyGksC7BJQ5ZQcX6GGU1y1K5vcnS",
            Some("$2y$04$uoFwTBVRokjNqthd8OggbepPMvyGksC7BJQ5ZQcX6GGU1y1K5vcnS"),
        ),
        (
            "{CRYPT}$5$rounds=1000$saltstring$N30lMTMheT6.vyG4hUQCYfJf5NuUkIyv.6dbNwBqpp3",
            Some("$5$rounds=1000$saltstring$N30lMTMheT6.vyG4hUQCYfJf5NuUkIyv.6dbNwBqpp3"),
        ),
        (
            "$6$rounds=1000$saltstring$amH9lQzdtrh2ZI0inOQf2M5iSHHvrc/3..GVEjT3s6DWgxci7rasoqBgVeacE7b9kGmbdhIcCEXXOXrt9TcWj1",
            None,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let username = format!("kim{n}");
        let body = json!({"username": username, "password_hash": hash});
        let made = site.admin().post("/admin/members", body).await.data();
        let uid = made["uid"].as_str().expect("uid");
        assert_eq!(stored_hash(&site, uid), stored.unwrap_or(hash));

        login(&site.nobody(), &username, "Winter-Tide-43").await.is(28_501_000);
        site.token(&username, PASSWORD).await;

        assert!(stored_hash(&site, uid).starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{hash}");
        site.token(&username, PASSWORD).await;
    }
}

#[tokio::test]
async fn a_password_longer_than_bcrypt_reads_is_not_rehashed() {
    // Of 100 bytes, made by PHP.
    const HASH: &str = "$2y$04$m3aAjtnP1MVa8hT.CW0q7OgtoniJYWD2f9OPeX8FNSIfUUX2tqJzu";
    let right = &"Long-Tail-9".repeat(10)[..100];
    let site = Site::start().await;
    let made = site.admin().post("/admin/members", json!({"username": "kim", "password_hash": HASH})).await.data();
    let uid = made["uid"].as_str().expect("uid");
    let other_tail = format!("{}-another-tail", &right[..72]);

    for password in [other_tail.as_str(), &right[..72], right] {
        site.token("kim", password).await;
        assert_eq!(stored_hash(&site, uid), HASH);
    }
    login(&site.nobody(), "kim", &right[..71]).await.is(28_501_000);
    // A new password is hashed as a whole.
    let caller = site.bearer(&site.token("kim", right).await);
    let body = json!({"old_password": right, "new_password": "Another-horse-8"});
    caller.post("/me/password", body).await.done();
    assert!(stored_hash(&site, uid).starts_with("$argon2id$"));
}

/// The processor time of several sign-ins with a wrong password, in clock ticks. Unlike the time on the clock, it does
/// not depend on what else the machine does.
async fn work_of_refusals(site: &Site, name: &str) -> f64 {
    let before = site.processor_ticks();
    for _ in 0..5 {
        login(&site.nobody(), name, "Wrong-horse-9").await.is(28_501_000);
    }
    (site.processor_ticks() - before).max(1) as f64
}

#[tokio::test]
async fn the_work_of_a_refusal_reveals_nothing_of_the_hash() {
    // Compares the order of magnitude only; unit tests of the planning compare the exact work.
    const RATIO_MAX: f64 = 3.0;
    let mut site = Site::start().await;
    let plain = site.member().await.username;
    let quick = work_of_refusals(&site, "nobody-1").await;
    let costly = argon2_of_work(Params::new(32_768, 2, 1, None).expect("parameters"), PASSWORD);
    for (name, hash) in [("bcrypt", format!("$2b{BCRYPT_TAIL}").replace("$05$", "$09$")), ("argon", costly)] {
        let made = site.admin().post("/admin/members", json!({"username": name, "password_hash": hash})).await;
        made.done();
    }
    let same = async |site: &Site, round: u8| {
        let mut times = Vec::new();
        for name in [&format!("nobody-{round}"), "bcrypt", "argon", plain.as_str()] {
            times.push(work_of_refusals(site, name).await);
        }
        let (least, most) = (times.iter().copied().fold(f64::MAX, f64::min), times.iter().copied().fold(0.0, f64::max));
        assert!(most / least < RATIO_MAX, "{times:?}");
        assert!(least > 3.0 * quick, "{times:?} {quick:?}");
    };
    same(&site, 2).await;
    // After a restart the stored kinds of hashes are read again, and a kind counts no more after its last hash is gone.
    site.restart().await;
    same(&site, 3).await;
    for name in ["bcrypt", "argon"] {
        site.while_stopped("update members set password_hash = null where username = ?1", [name]);
    }
    assert!(work_of_refusals(&site, "nobody-4").await < 3.0 * quick);
}

#[tokio::test]
async fn a_refused_hash_import_does_not_slow_down_sign_ins() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let quick = work_of_refusals(&site, "nobody-1").await;
    let hash = format!("$2b{BCRYPT_TAIL}").replace("$05$", "$12$");
    let new = json!({"username": "new", "password_hash": hash});

    acme.owner().post("/admin/members", new.clone()).await.is(29_505_000);
    site.client(&["members:write"]).await.post("/admin/members", new).await.is(29_505_000);
    // A hash in a request that fails for another reason has no effect either.
    let taken = json!({"username": acme.member().await.username, "password_hash": hash});
    assert_eq!(site.admin().post("/admin/members", taken.clone()).await.word(), "username_exists");
    let renamed = format!("/admin/members/{}", acme.member().await.uid);
    assert_eq!(site.admin().patch(&renamed, taken).await.word(), "username_exists");

    assert!(work_of_refusals(&site, "nobody-2").await < 20.0 * quick);
}

#[tokio::test]
async fn a_hash_set_later_replaces_the_password_and_ends_all_sessions() {
    let site = Site::start().await;
    let member = site.member().await;

    let body = json!({"password_hash": format!("$2b{BCRYPT_TAIL}")});
    site.admin().patch(&format!("/admin/members/{}", member.uid), body).await.done();

    member.caller().get("/me").await.is(28_501_000);
    login(&site.nobody(), &member.username, PASSWORD).await.is(28_501_000);
    site.token(&member.username, "U*U").await;
}

#[tokio::test]
async fn only_the_platform_imports_hashes_and_only_valid_ones() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let member = acme.member().await;
    let at = format!("/admin/members/{}", member.uid);
    let hash = format!("$2b{BCRYPT_TAIL}");
    let new = |hash: &str| json!({"username": "new", "password_hash": hash});

    acme.owner().post("/admin/members", new(&hash)).await.is(29_505_000);
    acme.owner().patch(&at, json!({"password_hash": hash})).await.is(29_505_000);
    let client = site.client(&["*"]).await;
    for program in [client.clone(), client.with("x-tenant-id", "acme")] {
        program.post("/admin/members", new(&hash)).await.is(29_505_000);
        program.patch(&at, json!({"password_hash": hash})).await.is(29_505_000);
    }
    for bad in [
        "5f4dcc3b5aa765d61d8327deb882cf99".to_owned(),
        hash.replace("$05$", "$03$"),
        hash.replace("$05$", "$13$"),
        hash[..59].to_owned(),
        "$argon2id$v=19$m=262145,t=1,p=1$c29tZXNhbHQ$RdescudvJCsgt3ub+b4dWRWJTmaaJObG".to_owned(),
    ] {
        assert_eq!(
            site.admin().post("/admin/members", new(&bad)).await.is(10_101_000).fields(),
            ["body.password_hash"]
        );
    }
    let both = json!({"username": "new", "password": PASSWORD, "password_hash": hash});
    assert_eq!(site.admin().post("/admin/members", both).await.is(10_101_000).fields(), ["body.password_hash"]);
    site.admin().post("/admin/members", new(&hash)).await.done();
}
