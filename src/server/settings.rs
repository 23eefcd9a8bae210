//! The operation that lists the settings in force.

use std::path::Path;
use std::sync::Arc;

use poem_openapi::{Enum, Object, OpenApi};

use crate::kernel::app::App;
use crate::kernel::authn::caller::MemberCaller;
use crate::kernel::authz;
use crate::kernel::authz::permission::Permission;
use crate::kernel::config::kinds::ValueType;
use crate::kernel::config::providers::Provider;
use crate::kernel::config::{Config, SettingInfo, Source, Unit};
use crate::kernel::http::{Reply, Tag, ok};
use crate::kernel::runtime::log;

/// The type of a setting's value
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case", remote = "ValueType")]
enum SettingType {
    Number,
    Boolean,
    Text,
    Path,
    Address,
    Choice,
    TextList,
    NetworkList,
}

/// Where the value of a setting comes from
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case", remote = "Source")]
enum SettingSource {
    Default,
    File,
    Environment,
    CommandLine,
}

/// What a number counts
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case", remote = "Unit")]
enum SettingUnit {
    Bytes,
    Kibibytes,
    BytesPerSecond,
    Seconds,
    Milliseconds,
    Microseconds,
}

/// A setting as it is in force
#[derive(Object)]
#[oai(rename = "Setting", skip_serializing_if_is_none)]
struct SettingView {
    /// As in `roster.toml`
    name: String,
    #[oai(rename = "type")]
    value_type: SettingType,
    /// The words of a choice
    choices: Option<Vec<String>>,
    /// As in `roster.toml`: text has quotes
    value: String,
    /// As in `roster.toml`
    default: String,
    source: SettingSource,
    /// The environment variable that sets it
    variable: String,
    unit: Option<SettingUnit>,
    /// The least number that is accepted
    minimum: Option<u64>,
    /// The greatest number that is accepted
    maximum: Option<u64>,
    description: String,
    /// Whether a change takes effect only after a restart
    restart_required: bool,
    /// For the file of a secret: whether there is a secret. The secret itself is never returned
    secret_is_set: Option<bool>,
}

impl SettingView {
    fn of(config: &Config, setting: SettingInfo) -> Self {
        let choices = setting.choices.iter().map(|word| (*word).to_owned()).collect();
        Self {
            name: setting.name.to_owned(),
            value_type: setting.value_type.into(),
            choices: (!setting.choices.is_empty()).then_some(choices),
            source: setting.source.into(),
            variable: setting.variable(),
            unit: setting.unit().map(Into::into),
            minimum: setting.range.map(|(least, _)| least),
            maximum: setting.range.map(|(_, greatest)| greatest),
            description: setting.about.to_owned(),
            restart_required: setting.needs_restart(),
            secret_is_set: config.is_secret_set(setting.name),
            value: setting.value,
            default: setting.default,
        }
    }
}

/// A provider of `[[oidc]]`, without its secret
#[derive(Object)]
#[oai(rename = "ProviderSettings")]
struct ProviderView {
    name: String,
    issuer: String,
    client_id: String,
    /// Empty if the client has no secret
    client_secret_file: String,
    secret_is_set: bool,
    redirect_uris: Vec<String>,
    scopes: Vec<String>,
    role_claims: Vec<String>,
    /// The `aud` of accepted access tokens
    #[oai(nullable)]
    audience: Option<String>,
    /// Code of the organization that its members belong to
    #[oai(nullable)]
    organization: Option<String>,
}

impl From<&Provider> for ProviderView {
    fn from(provider: &Provider) -> Self {
        let path = |path: &Path| path.display().to_string();
        Self {
            name: provider.name.clone(),
            issuer: provider.issuer.clone(),
            client_id: provider.client_id.clone(),
            client_secret_file: path(&provider.client_secret_file),
            secret_is_set: provider.client_secret.is_some(),
            redirect_uris: provider.redirect_uris.clone(),
            scopes: provider.scopes.clone(),
            role_claims: provider.role_claims.clone(),
            audience: provider.audience.clone(),
            organization: provider.organization.clone(),
        }
    }
}

/// All settings of the server that answers
#[derive(Object)]
struct Settings {
    /// In the order of the template of `roster.toml`
    items: Vec<SettingView>,
    /// The identity providers
    providers: Vec<ProviderView>,
    /// The folder with `roster.toml` and the database
    data_directory: String,
}

crate::document! {}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(prefix_path = "/admin/settings", tag = "Tag::System")]
impl Api {
    /// List settings
    ///
    /// Every setting as it is in force, with its source, its bounds and what it means. Secrets are in files, of which
    /// only the paths are returned.
    #[oai(path = "/", method = "get", operation_id = "list_settings")]
    async fn list_settings(&self, caller: MemberCaller) -> Reply<Settings> {
        authz::require(&self.app.snapshot(), &caller, Permission::SETTING_LIST)?;
        let config = &self.app.config;
        let mut settings = config.in_force();
        if let Some((value, source)) = log::reread_level()
            && let Some(level) = settings.iter_mut().find(|setting| !setting.needs_restart())
        {
            (level.value, level.source) = (value, source);
        }
        Ok(ok(Settings {
            items: settings.into_iter().map(|setting| SettingView::of(config, setting)).collect(),
            providers: config.providers.iter().map(Into::into).collect(),
            data_directory: config.data.display().to_string(),
        }))
    }
}
