//! `[[oidc]]`: the OpenID Connect providers that members can sign in with.

use std::net::IpAddr;
use std::path::PathBuf;

use reqwest::Url;
use serde::Deserialize;
use toml::Value;

/// One configured OpenID Connect provider.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// Its name in the API, and the `provider` of the identities that come from it.
    pub name: String,
    /// Exactly the `iss` of its tokens.
    pub issuer: String,
    pub client_id: String,
    #[serde(default)]
    pub client_secret_file: PathBuf,
    /// The content of that file; public clients have none.
    #[serde(skip)]
    pub client_secret: Option<String>,
    /// The allowed redirect URIs beside that of the console, which is always allowed; compared as text.
    #[serde(default)]
    pub redirect_uris: Vec<String>,
    #[serde(default = "default_scopes")]
    pub scopes: Vec<String>,
    /// Claims that name roles or groups, or paths into claims: `groups`, `realm_access.roles`; `teams.*` for the keys
    /// of an object.
    #[serde(default)]
    pub role_claims: Vec<String>,
    /// The `aud` that its access tokens must have; without it, none of its access tokens is accepted as a bearer token.
    #[serde(default)]
    pub audience: Option<String>,
    /// org_code of the organization that members who sign in with it belong to.
    #[serde(default)]
    pub organization: Option<String>,
}

/// The example at the end of `roster.toml`.
pub const TEMPLATE: &str = r#"
# People can sign in with an OpenID Connect provider. Repeat the block for each.
# [[oidc]]
# name = "authentik"
# issuer = "https://id.example.org/application/o/roster/"
# client_id = "roster"
# client_secret_file = "/etc/roster/authentik.secret"
# redirect_uris = ["https://portal.example.org/callback"]   # of your own pages; that of the sign-in page is always accepted
# scopes = ["openid", "profile", "email"]
# role_claims = ["groups"]                 # or a path, as "realm_access.roles"; the role mappings are applied to them at every sign-in
# audience = "roster"                      # accepts the provider's access tokens that have this aud
# organization = "acme"                    # members who sign in with it belong to this organization
"#;

fn default_scopes() -> Vec<String> {
    ["openid", "profile", "email"].map(str::to_owned).to_vec()
}

/// Reads the list of providers. Each fault names its provider, by name or by position.
pub fn read(value: &Value, faults: &mut Vec<String>) -> Vec<Provider> {
    let Some(list) = value.as_array() else {
        faults.push("oidc must be a list of tables: write [[oidc]]".into());
        return Vec::new();
    };
    let mut providers: Vec<Provider> = Vec::new();
    for (n, table) in list.iter().enumerate() {
        match table.clone().try_into::<Provider>() {
            Ok(provider) => {
                check(&provider, faults);
                if providers.iter().any(|known| known.name == provider.name || known.issuer == provider.issuer) {
                    faults.push(format!("oidc: {} is a duplicate (by name or issuer)", provider.name));
                }
                providers.push(provider);
            }
            Err(e) => faults.push(format!("oidc, provider {}: {}", n + 1, e.message())),
        }
    }
    providers
}

fn check(provider: &Provider, faults: &mut Vec<String>) {
    const NAME_BYTES_MAX: usize = 32;
    let name = &provider.name;
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_plain) || name == "wordpress" {
        faults.push(format!("oidc: the name {name:?} must be 1 to 32 characters of a-z 0-9 _ - and not wordpress"));
    }
    check_address(&format!("oidc {name}: issuer"), &provider.issuer, faults);
    for uri in &provider.redirect_uris {
        check_address(&format!("oidc {name}: redirect_uris"), uri, faults);
    }
    if provider.client_id.is_empty() {
        faults.push(format!("oidc {name}: client_id is empty"));
    }
    if !provider.scopes.iter().any(|scope| scope == "openid") {
        faults.push(format!("oidc {name}: scopes must contain openid"));
    }
    if provider.role_claims.iter().any(|claim| claim.trim_end_matches(".*").is_empty()) {
        faults
            .push(format!("oidc {name}: role_claims must name claims, or paths into them such as realm_access.roles"));
    }
    if provider.audience.as_deref() == Some("") {
        faults.push(format!("oidc {name}: audience must not be empty: leave it out instead"));
    }
}

/// Checks a URL that secrets are sent to: https, or plain http to this machine, without credentials and fragment.
pub fn check_address(what: &str, text: &str, faults: &mut Vec<String>) {
    let Ok(url) = Url::parse(text) else { return faults.push(format!("{what}: {text:?} is not an address")) };
    let is_safe = match url.scheme() {
        "https" => true,
        "http" => url.host_str().is_some_and(is_loopback),
        _ => false,
    };
    if !is_safe {
        faults.push(format!("{what}: {text:?} must be https, or http on this machine"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        faults.push(format!("{what}: {text:?} must not contain credentials or a fragment"));
    }
}

/// Whether a host name is `localhost` or a loopback address.
pub fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults_of(text: &str) -> Vec<String> {
        let table = text.parse::<toml::Table>().expect("the test's own TOML");
        let mut faults = Vec::new();
        read(&table["oidc"], &mut faults);
        faults
    }

    const GOOD: &str = "[[oidc]]\nname = \"lab\"\nissuer = \"https://id.example.org/\"\nclient_id = \"roster\"\n";

    #[test]
    fn every_fault_of_a_provider_is_named() {
        assert_eq!(faults_of(&format!("{GOOD}redirect_uris = [\"https://portal.example.org/cb\"]")), [""; 0]);
        assert_eq!(faults_of(&format!("{GOOD}redirect_uris = [\"http://127.0.0.1:3000/cb\"]")), [""; 0]);
        assert_eq!(faults_of(GOOD), [""; 0]);
        for uris in ["[\"http://portal.example.org/\"]", "[\"https://a@b.example.org/\"]", "[\"x\"]"] {
            assert_eq!(faults_of(&format!("{GOOD}redirect_uris = {uris}")).len(), 1, "{uris}");
        }
        assert_eq!(faults_of(&format!("{GOOD}redirect_uris = [\"https://a.example.org/\"]\nissuers = 1")).len(), 1);
        for (claims, count) in [("[\"a.b\", \"a.*\"]", 0), ("[\"\"]", 1), ("[\"a\", \".*\"]", 1)] {
            let text = format!("{GOOD}redirect_uris = [\"https://a.example.org/\"]\nrole_claims = {claims}");
            assert_eq!(faults_of(&text).len(), count, "{claims}");
        }
    }
}
