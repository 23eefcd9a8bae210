//! Commands on the sessions of a member.

use poem::http::Method;
use serde_json::{Value, json};

use super::api_connection::ApiConnection;
use super::commands::segment;
use super::named::member_id;
use super::{Common, Failed, output};

/// Lists the sessions of a member.
pub(super) async fn list(common: &Common, named: &str) -> Result<(), Failed> {
    let mut api = ApiConnection::open(common).await?;
    let listed = of_member(&mut api, named, Method::GET, "").await;
    api.close().await;
    let columns = ["id", "method", "device", "address", "last_used_at", "created_at"];
    output::print_table(common.json, &listed?, &columns);
    Ok(())
}

/// Ends one session of a member, or all.
pub(super) async fn end(common: &Common, named: &str, session: Option<&str>) -> Result<(), Failed> {
    let mut api = ApiConnection::open(common).await?;
    let rest = session.map(|id| format!("/{}", segment(id))).unwrap_or_default();
    let ended = of_member(&mut api, named, Method::DELETE, &rest).await;
    api.close().await;
    let ended = ended?;
    // Ending one session answers no data.
    output::print_object(common.json, &if session.is_some() { json!({"ended": 1}) } else { ended });
    Ok(())
}

async fn of_member(api: &mut ApiConnection, named: &str, method: Method, rest: &str) -> Result<Value, Failed> {
    let uid = member_id(api, named).await?;
    api.call(method, &format!("/admin/members/{}/sessions{rest}", segment(&uid)), &[], None).await
}
