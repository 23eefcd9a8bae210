//! Import of members with their quotas and external names.

use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::callers::Reply;
use crate::harness::site::{Site, binary};
use crate::harness::waiting::eventually;

const IMPORT: &str = "/api/v1/admin/users/import";

const FILE: &str = "\u{feff}username,email,display_name,wordpress_id,quota_size,sftpgo_username,org_code\r\n\
    kim,kim@example.org,\"Kim, \"\"K\"\"\",17,5,,acme\r\n\
    lee,lee@example.org,,,,lee-videos,\r\n";

async fn import(site: &Site, query: &str, file: &str) -> Reply {
    site.admin().send_raw(Method::POST, &format!("{IMPORT}{query}"), "text/csv; charset=utf-8", file.into()).await
}

/// The numbers of created, changed, unchanged and failed rows.
fn counts(difference: &Value) -> [u64; 4] {
    let length = |kind: &str| difference[kind].as_array().expect("a list").len() as u64;
    [length("created"), length("changed"), difference["unchanged"].as_u64().expect("a number"), length("failed")]
}

async fn user(site: &Site, username: &str) -> Value {
    site.admin().get(&format!("/admin/users?keyword={username}")).await.data()["items"][0].clone()
}

#[tokio::test]
async fn a_second_import_changes_nothing() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;

    let first = import(&site, "", FILE).await.data();
    assert_eq!(counts(&first), [2, 0, 0, 0]);
    let kim = user(&site, "kim").await;
    assert_eq!(first["created"][0], json!({"row": 1, "username": "kim", "id": kim["id"], "fields": []}));
    for (name, value) in [
        ("email", json!("kim@example.org")),
        ("display_name", json!("Kim, \"K\"")),
        ("wordpress_id", json!(17)),
        ("quota_size", json!(5)),
        ("sftpgo_username", json!("kim")),
        ("organization_id", json!(acme.id)),
    ] {
        assert_eq!(kim[name], value, "{name}");
    }
    assert_eq!(user(&site, "lee").await["sftpgo_username"], "lee-videos");
    let audit = site.last_audit_entry().await["id"].clone();
    assert_eq!(counts(&import(&site, "", FILE).await.data()), [0, 0, 2, 0]);
    assert_eq!(site.last_audit_entry().await["id"], audit);
}

#[tokio::test]
async fn changed_fields_are_reported_and_an_empty_cell_changes_nothing() {
    let site = Site::start().await;
    site.organization("acme").await;
    import(&site, "", FILE).await.done();

    let file = "username,email,quota_size,org_code\nkim,new@example.org,6,\nlee,,,acme\n";
    let foreseen = import(&site, "?dry_run=true", file).await.data();
    assert_eq!(foreseen["changed"][0]["fields"], json!(["email", "quota_size"]));
    assert_eq!(foreseen["changed"][1]["fields"], json!(["org_code"]));
    assert_eq!(user(&site, "kim").await["quota_size"], 5);
    let done = import(&site, "", file).await.data();
    assert_eq!(done["changed"], foreseen["changed"]);
    let kim = user(&site, "kim").await;
    assert_eq!(
        (&kim["email"], &kim["quota_size"], &kim["wordpress_id"]),
        (&json!("new@example.org"), &json!(6), &json!(17))
    );
    assert_eq!(counts(&import(&site, "", file).await.data()), [0, 0, 2, 0]);
}

#[tokio::test]
async fn a_dry_run_reports_the_changes_and_makes_none() {
    let site = Site::start().await;
    site.organization("acme").await;
    let audit = site.last_audit_entry().await["id"].clone();
    let foreseen = import(&site, "?dry_run=true", FILE).await.data();
    assert_eq!((counts(&foreseen), &foreseen["dry_run"]), ([2, 0, 0, 0], &json!(true)));
    assert_eq!(foreseen["created"][0]["id"], Value::Null);
    assert_eq!(site.last_audit_entry().await["id"], audit);
}

#[tokio::test]
async fn all_bad_rows_are_reported_and_the_others_are_imported() {
    let site = Site::start().await;
    site.admin().post("/admin/members", json!({"username": "max", "email": "max@example.org"})).await.done();
    let file = "username,email,wordpress_id,quota_size,sftpgo_username,org_code\n\
        kim,kim@example.org,1,,,\n\
        ,nobody@example.org,,,,\n\
        joe,not an e-mail,zero,-1,Joe,nowhere\n\
        ann,max@example.org,,,,\n\
        tom,tom@example.org,1,,,\n\
        kim,other@example.org,,,,\n\
        new,,,,,\n\
        Xy,xy@example.org,,,,\n\
        sue,sue@example.org\n\
        lee,lee@example.org,,99999999999999999999,,\n\
        mia,mia@example.org,,,,\n";
    let done = import(&site, "", file).await.data();
    assert_eq!(counts(&done), [2, 0, 0, 9]);
    let failed: Vec<(u64, Vec<&str>)> = done["failed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let fields = row["fields"].as_array().unwrap().iter().map(|fault| fault["field"].as_str().unwrap());
            (row["row"].as_u64().unwrap(), fields.collect())
        })
        .collect();
    let expected = [
        (2, vec!["username"]),
        (3, vec!["email", "sftpgo_username", "wordpress_id", "quota_size", "org_code"]),
        (4, vec!["email"]),
        (5, vec!["wordpress_id"]),
        (6, vec!["username", "sftpgo_username"]),
        (7, vec!["email"]),
        (8, vec!["sftpgo_username"]),
        (9, vec!["row"]),
        (10, vec!["quota_size"]),
    ];
    assert_eq!(failed, expected);
    assert_eq!(done["failed"][3]["fields"][0]["message"], "is in line 2 already");
    // The failed rows come back as they were, to be corrected.
    let rows: Vec<&str> = file.lines().collect();
    let refused: Vec<&str> = done["failed_csv"].as_str().expect("rows").lines().collect();
    assert_eq!(refused[..3], [rows[0], rows[2], rows[3]]);
    assert_eq!(refused.len(), 1 + 9);
    assert_eq!(import(&site, "", "username,email\nmia,mia@example.org\n").await.data()["failed_csv"], Value::Null);
    assert_eq!(user(&site, "mia").await["sftpgo_username"], "mia");
}

#[tokio::test]
async fn a_folder_is_never_renamed_and_a_member_with_more_rights_is_not_changed() {
    let site = Site::start().await;
    import(&site, "", "username,email\nkim,kim@example.org\n").await.done();
    let renamed = import(&site, "", "username,sftpgo_username\nkim,other\n").await.data();
    assert_eq!(renamed["failed"][0]["fields"][0]["field"], "sftpgo_username");
    site.admin().post("/admin/members", json!({"username": "boss", "email": "boss@example.org"})).await.done();
    let boss = user(&site, "boss").await["id"].as_str().unwrap().to_owned();
    let platform = site.admin().get("/admin/organizations?keyword=platform").await.data()["items"][0]["id"].clone();
    let link = format!("/admin/members/{boss}/organizations/{}", platform.as_str().unwrap());
    site.admin().post(&link, json!({})).await.done();
    let admin = site.admin().with("x-tenant-id", "platform");
    let roles = admin.get("/api/v1/permissions/roles").await.data();
    let role = roles["roles"].as_array().unwrap().iter().find(|role| role["key"] == "platform_admin").unwrap().clone();
    let assign = format!("/api/v1/permissions/users/{boss}/roles");
    admin.post(&assign, json!({"role_id": role["id"]})).await.done();
    let office = site.client(&["members:write"]).await;
    let file = "username,email\nboss,mine@example.org\n";
    let tried = office.send_raw(Method::POST, IMPORT, "text/csv", file.into()).await.data();
    assert_eq!(counts(&tried), [0, 0, 0, 1]);
    assert_eq!(user(&site, "boss").await["email"], "boss@example.org");
    let denied = site.last_audit_entry().await;
    assert_eq!((&denied["outcome"], &denied["action"]), (&json!("denied"), &json!("import_users")));
    // The row of somebody else does not stop the others.
    let file = "username,email\nboss,mine@example.org\nkim,new@example.org\n";
    let tried = office.send_raw(Method::POST, IMPORT, "text/csv", file.into()).await.data();
    assert_eq!((counts(&tried), &tried["not_attempted"]), ([0, 1, 0, 1], &json!(0)));
}

#[tokio::test]
async fn an_import_that_loses_its_credential_stops_and_tells_what_it_wrote() {
    const ROWS: usize = 4_000;
    let site = Site::start().await;
    let (admin, importer) = (site.admin(), site.platform_member(&["roster.user.import"]).await);
    let file = (0..ROWS).fold("username,email\n".to_owned(), |file, n| file + &format!("u{n},u{n}@example.org\n"));
    let total = async || admin.get("/admin/members?limit=1").await.data()["total"].as_u64().expect("a number");
    let before = total().await;
    let end = async {
        eventually("the first rows", async || total().await > before).await;
        admin.post(&format!("/admin/members/{}/deactivate", importer.uid), json!({})).await.done();
    };
    let importer = importer.caller();
    let (reply, ()) = tokio::join!(importer.send_raw(Method::POST, IMPORT, "text/csv", file.into()), end);
    assert_eq!((reply.status, reply.word()), (401, "unauthenticated"));
    let written = total().await - before;
    let told = format!(" ({written} of {ROWS} rows were written before)");
    assert!(reply.body["message"].as_str().is_some_and(|message| message.ends_with(&told)), "{reply:?}");
    let denied = admin.get("/admin/audit?outcome=denied&action=import_users").await.data();
    assert_eq!((&denied["total"], &denied["items"][0]["after"]["detail"]), (&json!(1), &json!("unauthenticated")));
}

#[tokio::test]
async fn rows_that_are_too_long_fail_alone_and_answers_repeat_little_of_them() {
    let site = Site::start().await;
    let text = |bytes: usize| "x".repeat(bytes);
    let file = format!(
        "username,email\n{},a\n{},a\n{},a\nann,{}\nkim,kim@example.org\n",
        text(200),
        text(201),
        text(4_097),
        ",".repeat(17)
    );
    let done = import(&site, "", &file).await.data();
    assert_eq!((counts(&done), &done["failed_csv"]), ([1, 0, 0, 4], &Value::Null));
    let failed: Vec<(Value, Value)> =
        done["failed"].as_array().unwrap().iter().map(|row| (row["line"].clone(), row["username"].clone())).collect();
    let cut = format!("{}…", text(200));
    let expected = [(2, json!(text(200))), (3, json!(cut)), (4, Value::Null), (5, Value::Null)];
    assert_eq!(failed, expected.map(|(line, name)| (json!(line), name)));
    let message = |row: usize| done["failed"][row]["fields"].clone();
    let dropped = |message: &str| json!([{"field": "row", "message": message}]);
    assert_eq!(message(2), dropped("has a cell of more than 4 KiB: correct it in the file"));
    assert_eq!(message(3), dropped("has too many cells: correct it in the file"));

    let header = |cells: usize| format!("username,email{}\n", ",".repeat(cells - 2));
    assert_eq!(import(&site, "", &header(64)).await.status, 200);
    let refused = import(&site, "", &header(65)).await;
    assert_eq!(refused.is(10_101_000).fields(), ["body.body"]);
    assert_eq!(refused.body["fields"][0]["message"], "has more than 64 cells in the header");

    // The same in JSON.
    let users = |bytes: usize| json!({"users": [{"username": text(bytes)}, {"username": "kim"}]});
    let failed = async |bytes: usize| site.admin().post(IMPORT, users(bytes)).await.data()["failed"][0].clone();
    let (most, more) = (failed(4_096).await, failed(4_097).await);
    assert_eq!((&most["username"], &most["fields"][0]["field"]), (&json!(cut), &json!("username")));
    assert_eq!((&more["username"], &more["fields"]), (&Value::Null, &message(2)));
    let unknown = |count: usize| -> Value {
        let fields = (0..count).map(|n| (format!("x{n}"), json!(1)));
        json!({"users": [fields.collect::<serde_json::Map<_, _>>()]})
    };
    for (count, told) in [(100, 100), (101, 100)] {
        assert_eq!(site.admin().post(IMPORT, unknown(count)).await.is(10_101_000).fields().len(), told);
    }
}

#[tokio::test]
async fn a_json_import_is_equivalent() {
    let site = Site::start().await;
    let users = json!({"users": [
        {"username": "kim", "email": "kim@example.org", "wordpress_id": 17, "quota_size": 5, "display_name": null},
        {"username": "lee"},
    ]});
    let done = site.admin().post(IMPORT, users.clone()).await.data();
    assert_eq!(counts(&done), [1, 0, 0, 1]);
    assert_eq!(counts(&site.admin().post(IMPORT, users).await.data()), [0, 0, 1, 1]);
    let secret = json!({"users": [{"username": "kim", "password": "Correct-horse-7", "email": ["x"]}]});
    let refused = site.admin().post(IMPORT, secret).await;
    assert_eq!(refused.is(10_101_000).fields(), ["body.users.0.email", "body.users.0.password"]);
    assert_eq!(site.admin().post(IMPORT, json!([1])).await.is(10_101_000).fields(), ["body.users"]);
}

#[tokio::test]
async fn files_in_the_encodings_and_separators_of_common_spreadsheets_are_read() {
    let site = Site::start().await;
    let utf_16: Vec<u8> = "\u{feff}username\temail\tdisplay_name\r\nann\tann@example.org\t許小明\r\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let send = async |content_type: &str, file: Vec<u8>| {
        site.admin().send_raw(Method::POST, &format!("{IMPORT}?dry_run=true"), content_type, file).await
    };
    // 許小明
    let big5 = [b"username,email,display_name\nann,ann@example.org,".as_slice(), &[0xb3, 0x5c, 0xa4, 0x70, 0xa9, 0xfa]]
        .concat();
    for (content_type, file) in [
        ("text/csv", b"username,email,\nann,ann@example.org,\n".to_vec()),
        ("text/csv", b"username;email;display_name\nann;ann@example.org;Ann\n".to_vec()),
        ("text/csv", b"username,email,quota_size\nann,ann@example.org,10GB\n".to_vec()),
        ("text/csv", utf_16),
        ("text/csv; charset=big5", big5.clone()),
        ("text/csv; header=present; charset=\"Big5\"", big5.clone()),
    ] {
        let foreseen = send(content_type, file).await.data();
        assert_eq!((counts(&foreseen), &foreseen["created"][0]["username"]), ([1, 0, 0, 0], &json!("ann")));
    }
    assert_eq!(send("text/csv", big5).await.is(10_101_000).fields(), ["body.body"]);
    let unknown = send("text/csv; charset=klingon", b"username\n".to_vec()).await;
    assert_eq!(unknown.is(10_101_000).fields(), ["header.Content-Type.charset"]);

    let broken = "username,email,display_name\nann,ann@example.org,\"Ann\nB\"\n";
    let failed = import(&site, "?dry_run=true", broken).await.data()["failed"][0]["fields"].clone();
    let message = "must be one line: it has a line break or another control character";
    assert_eq!(failed, json!([{"field": "display_name", "message": message}]));
    import(&site, "", "username,email,quota_size\nann,ann@example.org,1.5GiB\n").await.done();
    assert_eq!(user(&site, "ann").await["quota_size"], 1_610_612_736);
}

#[tokio::test]
async fn files_that_cannot_be_read_are_refused_as_a_whole() {
    let site = Site::with("limits.import_rows = 2\nlimits.import_bytes = 1024").await;
    for (file, field) in [
        ("username,api_key\nkim,secret\n", "body.api_key"),
        ("email\nkim@example.org\n", "body.username"),
        ("username,username\nkim,kim\n", "body.username"),
        ("", "body.username"),
        ("username\n\"kim\n", "body.body"),
        ("username,email\na11,a@x.org\nb11,b@x.org\nc11,c@x.org\n", "body.body"),
    ] {
        assert_eq!(import(&site, "", file).await.is(10_101_000).fields(), [field], "{file:?}");
    }
    let bytes = b"username\n\xff\xfe\n".to_vec();
    let reply = site.admin().send_raw(Method::POST, IMPORT, "text/csv", bytes).await;
    assert_eq!(reply.is(10_101_000).fields(), ["body.body"]);
    let reply = site.admin().send_raw(Method::POST, IMPORT, "text/plain", b"username\nkim\n".to_vec()).await;
    assert_eq!(reply.is(10_115_000).word(), "media_type");
    // At the limits of rows and bytes, and one past each.
    assert_eq!(counts(&import(&site, "", "username,email\na11,a@x.org\nb11,b@x.org\n").await.data()), [2, 0, 0, 0]);
    let padded = |length: usize| format!("{:<length$}", "username\na11\n");
    assert_eq!(import(&site, "", &padded(1024)).await.status, 200);
    assert_eq!(import(&site, "", &padded(1025)).await.is(10_113_000).word(), "too_large");
}

#[tokio::test]
async fn the_command_line_imports_and_reports_failed_rows() {
    let site = Site::start().await;
    site.organization("acme").await;
    let file = site.path().join("members.csv");
    let path = file.to_str().unwrap();
    std::fs::write(&file, FILE).unwrap();
    assert_eq!(counts(&site.command(&["member", "import", path, "--dry-run"])), [2, 0, 0, 0]);
    assert_eq!(counts(&site.command(&["member", "import", path])), [2, 0, 0, 0]);
    assert_eq!(counts(&site.command(&["member", "import", path])), [0, 0, 2, 0]);

    std::fs::write(&file, "username,quota_size\nkim,7\nnew,1\n").unwrap();
    let run = Command::new(binary()).args(["member", "import", path, "--data"]).arg(site.path()).output().unwrap();
    assert!(!run.status.success());
    let expected = "~ kim: quota_size\n! line 3 (new): email: is required for a new member\n\
        0 created, 1 changed, 0 unchanged, 1 failed\n";
    assert_eq!(String::from_utf8(run.stdout).unwrap(), expected);
    let complaint = "roster: 1 row failed; the others are imported: correct the file and import it again\n";
    assert_eq!(String::from_utf8(run.stderr).unwrap(), complaint);

    // A dry run reports what would happen.
    std::fs::write(&file, b"username;quota_size;display_name\nkim;8GB;\xb3\x5c\nnew;1;\n").unwrap();
    let run = Command::new(binary())
        .args(["member", "import", path, "--dry-run", "--encoding", "big5", "--data"])
        .arg(site.path())
        .output()
        .unwrap();
    let expected = "~ kim: display_name, quota_size\n! line 3 (new): email: is required for a new member\n\
        would be: 0 created, 1 changed, 0 unchanged, 1 failed; nothing was done\n";
    let printed = String::from_utf8(run.stdout).unwrap();
    assert_eq!(printed.replace("quota_size, display_name", "display_name, quota_size"), expected);
    assert_eq!(String::from_utf8(run.stderr).unwrap(), "roster: 1 row would fail; the others would be imported\n");
}
