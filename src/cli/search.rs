//! The command that searches everything.

use poem::http::Method;

use super::api_connection::ApiConnection;
use super::commands::segment;
use super::named::organization_id;
use super::{Common, Failed, output};

/// Searches an organization, or the whole site. `text` has at least two characters.
pub(super) async fn run(common: &Common, text: &str, organization: Option<&str>) -> Result<(), Failed> {
    let mut api = ApiConnection::open(common).await?;
    let tenant = match organization {
        Some(named) => Some(organization_id(&mut api, named).await?),
        None => None,
    };
    let headers: Vec<(&str, &str)> = tenant.iter().map(|id| ("x-tenant-id", id.as_str())).collect();
    let path = format!("{}/search?q={}", common.load(None)?.base_path, segment(text));
    let found = api.call(Method::GET, &path, &headers, None).await;
    api.close().await;
    output::print_table(common.json, &found?, &["kind", "name", "detail", "org_code", "id"]);
    Ok(())
}
