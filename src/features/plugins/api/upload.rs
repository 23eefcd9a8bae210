//! The operation that uploads a component as a version of a plugin.

use std::sync::Arc;

use hyper::body::Bytes;
use poem_openapi::param::Query;
use poem_openapi::registry::{MetaMediaType, MetaRequest, MetaSchema, MetaSchemaRef, Registry};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions, Object, OpenApi};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{PluginState, ReportView, VersionView};
use crate::features::plugins::{
    self, CallSummary, PluginQuota, PluginWithVersions, Report, TrialResult, Upload, Uploads, Version, store,
};
use crate::kernel::app::tasks::{Progress, TaskKind};
use crate::kernel::app::{App, Changed, LargeBody, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::authn::caller::MemberCaller;
use crate::kernel::authz;
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::plugin::{Export, Exports};
use crate::kernel::authz::principal::Identity;
use crate::kernel::db::Reader;
use crate::kernel::error::{ErrorCode, Result};
use crate::kernel::http::body::require_media_type;
use crate::kernel::http::{Tag, TaskReply};
use crate::kernel::ids::{OrganizationId, Timestamp};
use crate::kernel::sandbox::{AccessInput, Admitted, CallContext, RoleInput, Tier, UploadProgress, UploadStep};
use crate::kernel::secret::Hash;

/// The uploaded version, or the existing one with the same bytes
#[derive(Object)]
struct UploadedPlugin {
    name: String,
    version: u32,
    /// The digest of the component, in hexadecimal
    sha256: String,
    /// `tested`, or `compiled` if it failed its own test vectors and so cannot be activated
    state: PluginState,
    /// `authorizer`, `role-mapper`
    exports: Vec<String>,
    imports: Vec<String>,
    size_bytes: u64,
    report: ReportView,
}

impl UploadedPlugin {
    fn of(whole: PluginWithVersions, number: u32) -> Result<Self> {
        let version = whole.find(number)?.clone();
        let view = VersionView::of(&whole.plugin, version, false);
        Ok(Self {
            name: whole.plugin.name,
            version: view.version,
            sha256: view.sha256,
            state: view.state,
            exports: view.exports,
            imports: view.imports,
            size_bytes: view.size_bytes,
            report: view.report,
        })
    }
}

crate::document! {
    upload_plugin: [
        PluginName, PluginTooLarge, NotAComponent, PluginMalformed, PluginImports, PluginExports, PluginMajor,
        PluginTooComplex, PluginCompile, PluginStart, PluginVectors, PluginsFull, UploadsLimited, CompilerBusy,
    ];

    "UploadedPlugin": r#"{"name":"business-hours","version":1,"sha256":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","state":"tested","exports":["authorizer"],"imports":["roster:policy/types@1.0.0","roster:policy/host@1.0.0"],"size_bytes":30112,"report":{"dry_run":[{"export":"authorizer","outcome":"abstain","failure":null}],"vectors_passed":4,"vectors_failed":[],"compile_ms":120}}"#;
}

pub struct Api {
    pub app: Arc<App>,
    /// Recent uploads of each organization.
    pub uploads: Arc<Uploads>,
}

#[OpenApi(tag = "Tag::Plugins")]
impl Api {
    /// Upload a version of a plugin
    ///
    /// Takes a WebAssembly component for a world of `roster:policy`. The component is inspected, compiled, started and
    /// tested with the test vectors that it contains; an unusable component is rejected with the reason. The first
    /// upload under a name creates the plugin, each further one adds a version. Uploading the same bytes again returns
    /// the existing version. A version has no effect before it is activated.
    ///
    /// In the background, the steps of the task are `received`, `component`, `interfaces`, `structure`, `compiled`,
    /// `started` and `vectors`.
    #[oai(path = "/plugins", method = "post", operation_id = "upload_plugin")]
    async fn upload_plugin(
        &self,
        caller: MemberCaller,
        /// 1 to 63 characters of a-z, 0-9 and -, starting with a letter
        name: Query<String>,
        /// Answers 202 with a task as soon as the request is checked, and does the work in the background
        background: Query<Option<bool>>,
        _component: WasmComponent,
    ) -> TaskReply<UploadedPlugin> {
        let snapshot = self.app.snapshot();
        let tenant = authz::require_in_tenant(&snapshot, &caller, Permission::PLUGIN_UPLOAD)?;
        let (config, name) = (&self.app.config, name.0);
        plugins::require_name(&name)?;
        self.uploads.take(tenant, Timestamp::now(), config.plugin_uploads_per_min)?;
        let tier = self.app.tier_of(&snapshot, tenant);
        let bytes = self.app.read_large_body(&caller, LargeBody::Component).await?.clone();
        let quota = PluginQuota {
            plugins_max: config.plugins_max,
            versions_max: config.plugin_versions_max,
            bytes_max: config.plugin_bytes_max,
        };
        let sha256: Hash = Sha256::digest(&bytes).into();
        let plugin_name = name.clone();
        let find = move |r: &Reader<'_>| match find_known(r, tenant, &plugin_name, &sha256)? {
            Some(known) => Ok(Some(known)),
            None => plugins::require_quota(r, tenant, &plugin_name, quota).map(|()| None),
        };
        let known = self.app.read(find).await?;
        let (api, caller) = (Self { app: self.app.clone(), uploads: self.uploads.clone() }, caller.0);
        let by = caller.clone();
        let work = move |progress: Progress| async move {
            progress.step(UploadStep::Received.as_str());
            match known {
                Some((whole, number)) => UploadedPlugin::of(whole, number),
                None => api.upload(&by, (tenant, tier, quota), (name, bytes), progress).await,
            }
        };
        Ok(self.app.perform(&caller, UPLOAD, background.0 == Some(true), work).await?)
    }
}

const UPLOAD: TaskKind = TaskKind { operation: "upload_plugin", steps: UploadStep::NAMES };

impl Api {
    /// Checks a component, and stores it as a version.
    async fn upload(
        &self,
        caller: &Identity,
        (tenant, tier, quota): (OrganizationId, Tier, PluginQuota),
        (name, bytes): (String, Bytes),
        progress: Progress,
    ) -> Result<UploadedPlugin> {
        // Until here nothing is stored; dropped, the check stops the compiler.
        let admit = self.admit(caller, tenant, &bytes, tier, &progress);
        let (version, admitted) = progress.unless_cancelled(admit).await?;
        let upload = Upload { name, component: bytes, version };
        let store_upload = move |t: &Transaction<'_>, caller: &Identity| {
            let tenant = authz::require_in_tenant(t.snapshot(), caller, Permission::PLUGIN_UPLOAD)?;
            let (whole, number, is_new) = plugins::store_version(t, tenant, upload, quota)?;
            if !is_new {
                return Ok(Changed::unchanged((whole, number)));
            }
            let version = whole.find(number)?;
            let entry = Entry::new("plugin", &whole.plugin.name).within(tenant).after(json!({
                "version": number,
                "sha256": hex::encode(version.sha256),
                "exports": version.exports.names(),
                "size_bytes": version.size_bytes,
                "tested": version.is_tested,
            }));
            Ok(Changed::new((whole, number), entry))
        };
        let (whole, number) = self.app.change(caller, "plugin.upload", store_upload).await?.answer;
        self.app.host.adopt(tenant, &admitted).await;
        UploadedPlugin::of(whole, number)
    }

    /// Inspects, compiles and tests a component before it is stored, outside of any transaction.
    async fn admit(
        &self,
        caller: &Identity,
        tenant: OrganizationId,
        bytes: &[u8],
        tier: Tier,
        progress: &Progress,
    ) -> Result<(Version, Admitted)> {
        let progress: Arc<dyn UploadProgress> = Arc::new(progress.clone());
        let admitted = self.app.host.admit_and_test(tenant, bytes, tier, &progress).await;
        let (admitted, vectors) = admitted.inspect_err(|e| {
            if e.code == ErrorCode::PluginCompile {
                self.app.metrics.plugin_compile_failures.inc();
            }
        })?;
        let compile_ms = u64::try_from(admitted.compile_time.as_millis()).unwrap_or(u64::MAX);
        let mut report = Report { compile_ms, ..Report::default() };
        report.count(&vectors);
        let call = CallContext {
            organization: tenant,
            loaded: admitted.loaded.clone(),
            tier,
            deadline_ms: None,
            is_trial: true,
        };
        report.dry_run = self.try_out(call, admitted.exports).await;
        let (kind, actor) = caller.actor();
        let version = Version {
            number: 0,
            sha256: admitted.sha256,
            size_bytes: bytes.len() as u64,
            exports: admitted.exports,
            imports: admitted.imports.clone(),
            is_large: tier == Tier::Large,
            is_tested: report.all_passed(),
            report,
            quarantined_at: None,
            uploaded_by: format!("{kind} {actor}"),
            created_at: Timestamp::now(),
        };
        Ok((version, admitted))
    }

    /// Calls each exported interface once with neutral input.
    async fn try_out(&self, call: CallContext, exports: Exports) -> Vec<TrialResult> {
        let mut tried = Vec::new();
        if exports.authorizer {
            let called = self.app.host.authorize(call.clone(), AccessInput::typical()).await;
            tried.push(CallSummary::of_authorizer(&called).tried(Export::Authorizer));
        }
        if exports.role_mapper {
            let called = self.app.host.map_roles(call, RoleInput::typical()).await;
            tried.push(CallSummary::of_mapper(&called).tried(Export::RoleMapper));
        }
        tried
    }
}

/// Finds the version of this plugin that has these bytes, with its plugin.
fn find_known(
    r: &Reader<'_>,
    organization: OrganizationId,
    name: &str,
    sha256: &Hash,
) -> Result<Option<(PluginWithVersions, u32)>> {
    let Some(plugin) = store::find_plugin(r, organization, name)? else { return Ok(None) };
    let Some(number) = store::find_version_of(r, plugin.id, sha256)? else { return Ok(None) };
    Ok(Some((store::get(r, organization, name)?, number)))
}

/// The request body: a WebAssembly component.
pub struct WasmComponent;

const WASM: &str = "application/wasm";
/// The media type that generated clients and simple uploads send.
const OCTETS: &str = "application/octet-stream";

impl<'a> ApiExtractor<'a> for WasmComponent {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];
    type ParamType = ();
    type ParamRawType = ();

    fn register(_: &mut Registry) {}

    fn request_meta() -> Option<MetaRequest> {
        let schema = MetaSchemaRef::Inline(Box::new(MetaSchema::new_with_format("string", "binary")));
        Some(MetaRequest {
            description: Some("A WebAssembly component"),
            content: vec![
                MetaMediaType { content_type: WASM, schema: schema.clone() },
                MetaMediaType { content_type: OCTETS, schema },
            ],
            required: true,
        })
    }

    async fn from_request(
        request: &'a poem::Request,
        _: &mut poem::RequestBody,
        _: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        require_media_type(request, &[WASM, OCTETS], "send the component as application/wasm")?;
        Ok(Self)
    }
}
