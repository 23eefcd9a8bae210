//! The list of settings in force: every one with its source, and never a secret.

use std::process::Command;

use roster::kernel::config::Config;
use serde_json::{Value, json};

use crate::harness::site::{ADMIN, INTERNAL_SECRET, PASSWORD, Site, binary};

const SETTINGS: &str = "/admin/settings";

fn setting(answer: &Value, name: &str) -> Value {
    let all = answer["items"].as_array().expect("settings");
    all.iter().find(|setting| setting["name"] == name).unwrap_or_else(|| panic!("no {name}")).clone()
}

#[tokio::test]
async fn every_setting_tells_its_value_its_source_and_what_it_may_be() {
    let site = Site::with("limits.roles = 7\nmail.security = \"starttls\"").await;
    let answer = site.admin().get(SETTINGS).await.data();

    let names: Vec<&str> =
        answer["items"].as_array().expect("settings").iter().filter_map(|one| one["name"].as_str()).collect();
    let known: Vec<&str> = Config::described().iter().map(|setting| setting.name).collect();
    assert_eq!(names, known);
    assert_eq!(
        setting(&answer, "limits.roles"),
        json!({
            "name": "limits.roles", "type": "number", "value": "7", "default": "1000", "source": "file",
            "variable": "ROSTER_LIMITS_ROLES", "minimum": 5, "maximum": 100_000,
            "description": "Most roles of one organization", "restart_required": true,
        })
    );
    let security = setting(&answer, "mail.security");
    assert_eq!(
        (&security["choices"], &security["value"], &security["default"], &security["source"]),
        (&json!(["starttls", "tls", "none"]), &json!("\"starttls\""), &json!("\"starttls\""), &json!("file"))
    );
    let of = |name: &str, field: &str| setting(&answer, name)[field].clone();
    assert_eq!((of("listen", "source"), of("listen", "type")), (json!("command_line"), json!("address")));
    assert_eq!(
        (of("limits.body_bytes", "source"), of("limits.body_bytes", "unit")),
        (json!("default"), json!("bytes"))
    );
    assert_eq!(of("auth.session_ttl_s", "unit"), "seconds");
    assert_eq!(
        (of("log.level", "restart_required"), of("log.format", "restart_required")),
        (json!(false), json!(true))
    );
    // The harness gives the internal secret by its variable.
    let internal = setting(&answer, "internal_secret_file");
    assert_eq!(
        (&internal["secret_is_set"], &internal["source"], &internal["value"]),
        (&json!(true), &json!("environment"), &json!("\"\""))
    );
    assert_eq!(of("mail.password_file", "secret_is_set"), false);
    assert_eq!(setting(&answer, "mail.ca_file").get("secret_is_set"), None);
    assert_eq!(answer["data_directory"], json!(site.path().display().to_string()));
}

#[tokio::test]
async fn a_level_that_was_read_again_is_in_force_and_other_changes_are_not() {
    let site = Site::with("log.level = \"info\"").await;
    let file = site.path().join("roster.toml");
    let before = std::fs::read_to_string(&file).expect("settings");
    std::fs::write(&file, before.replace("\"info\"", "\"debug\"") + "\n[limits]\nroles = 7\n").expect("settings");
    site.signal("HUP");
    site.logged("the settings were read again");
    let answer = site.admin().get(SETTINGS).await.data();
    let level = setting(&answer, "log.level");
    assert_eq!((&level["value"], &level["source"]), (&json!("\"debug\""), &json!("file")));
    assert_eq!(setting(&answer, "limits.roles")["value"], "1000");
    std::fs::write(&file, before).expect("settings");
}

/// A secret for each setting that names the file of one, and the lines that name them.
fn secrets(site: &std::path::Path) -> (Vec<String>, String) {
    let named = [
        ("metrics_token_file", "metrics"),
        ("wordpress.ticket_secret_file", "ticket"),
        ("wordpress.password_file", "wordpress"),
        ("authentik.token_file", "authentik"),
        ("mail.password_file", "mail"),
        ("hooks.sftpgo_key_file", "sftpgo-hook"),
        ("hooks.wordpress_key_file", "wordpress-hook"),
        ("sftpgo.secret_file", "sftpgo"),
    ];
    let mut lines = "wordpress.url = \"http://127.0.0.1:9\"\nwordpress.username = \"kim\"\n\
        authentik.url = \"http://127.0.0.1:9\"\nmail.host = \"127.0.0.1\"\nmail.from = \"roster@example.org\"\n\
        sftpgo.url = \"http://127.0.0.1:9/api/v2\"\n"
        .to_owned();
    let mut secrets = Vec::new();
    let mut keep = |what: &str| {
        let (secret, file) = (format!("hidden-{what}-{}", "7".repeat(32)), site.join(format!("of-{what}")));
        std::fs::write(&file, format!("{secret}\n")).expect("a file");
        secrets.push(secret);
        file
    };
    for (name, what) in named {
        lines += &format!("{name} = {:?}\n", keep(what));
    }
    lines += &format!(
        "[[oidc]]\nname = \"lab\"\nissuer = \"https://id.example.org/\"\nclient_id = \"roster\"\nclient_secret_file = {:?}\n",
        keep("oidc")
    );
    (secrets, lines)
}

#[tokio::test]
async fn no_secret_is_in_the_list_the_command_or_the_pages() {
    let mut site = Site::start().await;
    let mut secrets = secrets(site.path());
    let settings = std::fs::read_to_string(site.path().join("roster.toml")).expect("settings");
    site.between_runs(|data| {
        // Tables come after plain keys.
        let (plain, providers) = secrets.1.split_once("[[oidc]]").expect("providers");
        let lines = format!("{plain}{settings}\n[[oidc]]{providers}");
        std::fs::write(data.join("roster.toml"), lines).expect("settings");
    });
    let key = std::fs::read_to_string(site.path().join("encryption.key")).expect("the key");
    secrets.0.extend([INTERNAL_SECRET.to_owned(), key.trim().to_owned()]);

    let token = site.token(ADMIN, PASSWORD).await;
    let answer = site.bearer(&token).get(SETTINGS).await;
    let list = answer.data();
    let with_secret = list["items"].as_array().expect("settings").iter().filter(|one| one["secret_is_set"] == true);
    assert_eq!(with_secret.count(), 10, "eight files, the internal secret and the encryption key");
    assert_eq!(list["providers"][0]["secret_is_set"], true);
    assert_eq!(list["providers"][0]["client_id"], "roster");

    let mut shown = vec![("the answer".to_owned(), answer.body.to_string())];
    let output = Command::new(binary()).args(["config", "show", "--data"]).arg(site.path()).output().expect("roster");
    shown.push(("the command".into(), String::from_utf8(output.stdout).expect("UTF-8")));
    let browser = site.visitor();
    browser.sign_in(ADMIN, PASSWORD).await;
    for address in ["", "?group=server", "?group=wordpress", "?group=mail", "?name=sftpgo.secret_file", "?q=secret"] {
        let page = browser.get(&format!("/console/site/settings{address}")).await;
        assert_eq!(page.status, 200, "{address}");
        shown.push((address.to_owned(), page.text));
    }
    for (place, text) in shown {
        let found: Vec<&String> = secrets.0.iter().filter(|secret| text.contains(secret.as_str())).collect();
        assert!(found.is_empty(), "{place} has {found:?}");
    }
}

#[tokio::test]
async fn only_administrators_of_the_site_see_the_settings() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let reader = site.platform_member(&["roster.setting.list"]).await;
    reader.caller().get(SETTINGS).await.done();
    assert_eq!(acme.owner().get(SETTINGS).await.is(35_505_000).word(), "forbidden");
    site.nobody().get(SETTINGS).await.is(28_501_000);
    assert_ne!(site.client(&["*"]).await.get(SETTINGS).await.status, 200);
}
