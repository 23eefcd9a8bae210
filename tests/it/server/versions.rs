//! `If-Match`: an edit of an outdated version is refused with the current one and changes nothing.

use serde_json::{Value, json};

use crate::harness::callers::{As, Reply};
use crate::harness::site::Site;

/// The method of an edit.
#[derive(Debug, Clone, Copy)]
enum By {
    Put,
    Post,
    Delete,
}

async fn edit(caller: &As<'_>, by: By, path: &str, body: Value) -> Reply {
    match by {
        By::Put => caller.put(path, body).await,
        By::Post => caller.post(path, body).await,
        By::Delete => caller.delete(path).await,
    }
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

#[tokio::test]
async fn a_stale_version_changes_nothing_and_the_right_one_does() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (admin, owner) = (site.admin(), acme.owner());
    let client = admin.post("/admin/api-clients", json!({"name": "portal", "scopes": ["members:read"]})).await.data();
    let client = format!("/admin/api-clients/{}", text(&client["client_key"]));
    let hook = json!({"name": "n8n", "url": "https://n8n.example.org/x", "kinds": ["*"]});
    let hook = format!("/admin/webhooks/{}", text(&admin.post("/admin/webhooks", hook).await.data()["id"]));
    let mappings = "/api/v1/permissions/role-mappings";
    let mapping = |role: &str| json!({"external_source": "oidc", "external_key": "editors", "internal_role_key": role});
    let made = owner.put(mappings, mapping("viewer")).await;
    let at = made.data()["update_at"].as_i64().expect("a moment");
    assert_eq!(made.header("etag"), Some(format!("\"{at}\"").as_str()));
    let named = format!("{mappings}?external_source=oidc&external_key=editors");
    let catalog = "/api/v1/permissions/catalog?app=gitea";
    let entries = |name: &str| json!({"app": "gitea", "permissions": [{"name": name}]});
    admin.put(catalog, entries("gitea")).await.done();
    let imported = admin.get(catalog).await.header("etag").expect("a tag").to_owned();

    let version = async |path: &str| site.admin().get(path).await.header("etag").expect("a tag").to_owned();
    let of_client = version(&client).await;
    let steps = [
        (&admin, By::Post, format!("{client}/rotate"), json!({}), Some(of_client)),
        (&admin, By::Delete, client.clone(), json!({}), None),
        (&admin, By::Post, format!("{hook}/rotate"), json!({}), None),
        (&admin, By::Delete, hook.clone(), json!({}), None),
        (&owner, By::Put, mappings.to_owned(), mapping("member"), Some(format!("\"{at}\""))),
        (&owner, By::Delete, named, json!({}), None),
        (&admin, By::Put, catalog.to_owned(), entries("gitea.more"), Some(imported)),
    ];
    for (caller, by, path, body, tag) in steps {
        let stale = edit(&caller.clone().with("if-match", "\"77\""), by, &path, body.clone()).await;
        assert_eq!((stale.status, stale.word()), (412, "version_stale"), "{by:?} {path}");
        let now = stale.header("etag").expect("the present version").to_owned();
        if let Some(tag) = tag {
            assert_eq!(now, tag, "{by:?} {path}");
        }
        edit(&caller.clone().with("if-match", &now), by, &path, body).await.done();
    }
}
