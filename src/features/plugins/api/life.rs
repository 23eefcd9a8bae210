//! Operations that activate, deactivate, roll back and delete plugins. Each is one policy change, and so one epoch.

use std::sync::Arc;

use poem_openapi::param::{Header, Path};
use poem_openapi::{Object, OpenApi};
use serde_json::json;

use super::{PluginFilter, PluginMode, PluginView, bindings_of};
use crate::features::plugins::{self, PluginWithVersions, store};
use crate::kernel::app::{App, Changed, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::authn::caller::MemberCaller;
use crate::kernel::authz;
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::plugin::{Activation, Filter, Mode};
use crate::kernel::authz::principal::Identity;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::http::{Body, EmptyReply, Reply, Tag, done, ok, require_version};
use crate::kernel::ids::OrganizationId;
use crate::kernel::sandbox::{Key, Tier};

/// The version to activate, and how
#[derive(Object)]
struct ActivatePlugin {
    #[oai(validator(minimum(value = "1")))]
    version: u32,
    mode: PluginMode,
    /// Whether its `allow` can grant what no role grants; false by default. Only an owner can set it to true
    may_grant: Option<bool>,
    /// The access requests that an authorizer covers; all by default. Role mappers ignore the filter
    filter: Option<PluginFilter>,
    /// Time limit of a call in milliseconds; the setting is both the maximum and the default
    #[oai(validator(minimum(value = "1")))]
    deadline_ms: Option<u32>,
}

crate::document! {
    activate_plugin: [
        PluginStart, PluginNotFound, PluginVersionNotFound, PluginVectorsFailed, OwnerNeeded, CompilerBusy,
    ] ["etag", "x-policy-epoch"];
    deactivate_plugin: [PluginNotFound] ["etag", "x-policy-epoch"];
    roll_back_plugin: [
        PluginNotFound, PluginVersionNotFound, NothingToRollBack, OwnerNeeded, CompilerBusy,
    ] ["etag", "x-policy-epoch"];
    delete_plugin: [PluginNotFound, PluginInForce] ["x-policy-epoch"];
    delete_plugin_version: [PluginNotFound, PluginVersionNotFound, PluginInForce] ["x-policy-epoch"];

    "ActivatePlugin": r#"{"version":2,"mode":"enforce","filter":{"permissions":["video.*"],"routes":["PUT /videos/:id"]},"deadline_ms":10}"#;
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(tag = "Tag::Plugins")]
impl Api {
    /// Activate a version of a plugin
    ///
    /// `enforce` replaces the enforced version, which is kept for rollback. `shadow` calls the version in addition to
    /// the enforced one; its results are counted and logged but have no effect. Activation ends a quarantine of the
    /// version. Only an owner can activate with `may_grant`, or enforce a role mapper.
    #[oai(path = "/plugins/:name/activate", method = "post", operation_id = "activate_plugin")]
    async fn activate_plugin(
        &self,
        caller: MemberCaller,
        name: Path<String>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
        body: Body<ActivatePlugin>,
    ) -> Reply<PluginView> {
        let ActivatePlugin { version: number, mode, may_grant, filter, deadline_ms } = body.0;
        let (mode, filter) = (Mode::from(mode), Filter::from(filter.unwrap_or_default()));
        let tenant = authz::require_in_tenant(&self.app.snapshot(), &caller, Permission::PLUGIN_ACTIVATE)?;
        plugins::require_filter(&filter)?;
        let activation =
            Activation { version: number, may_grant: may_grant == Some(true), filter, deadline_ms, since: 0 };
        let name = name.0;
        let version = self.prepare(tenant, &name, |_| Ok(number)).await?;
        plugins::require_deadline(
            deadline_ms,
            version.exports,
            self.app.host.limits(Tier::from_is_large(version.is_large)),
        )?;
        let activate = move |t: &Transaction<'_>, caller: &Identity, whole: &mut PluginWithVersions| {
            require_unchanged(whole, &version)?;
            plugins::require_owner(t.snapshot(), caller, tenant, (mode, &activation, version.exports))?;
            let activation = Activation { since: t.now().0, ..activation };
            let plugin = &mut whole.plugin;
            // Activating an enforced version as a shadow too does not end its quarantine: the enforced run still fails.
            let is_other_run = mode == Mode::Shadow && plugin.is_enforced(number);
            let is_released = !is_other_run && store::release(t, plugin.id, number)?;
            // A quarantine that exists only in memory, because it could not be stored, counts too.
            let is_failing = bindings_of(t.snapshot(), plugin)
                .iter()
                .any(|binding| (binding.version, binding.mode) == (number, mode) && binding.run_state.is_quarantined());
            if is_released || is_failing || !plugin.is_already_active(mode, &activation) {
                plugin.activate(mode, activation);
            }
            Ok(())
        };
        let change = Edit { permission: Permission::PLUGIN_ACTIVATE, name, if_match: if_match.0 };
        self.edit(&caller, "plugin.activate", change, activate).await
    }

    /// Deactivate a plugin
    ///
    /// Ends the enforced and the shadow activation and clears the rollback history, so that only a new activation makes
    /// a version active again. Changes nothing if no version is active.
    #[oai(path = "/plugins/:name/deactivate", method = "post", operation_id = "deactivate_plugin")]
    async fn deactivate_plugin(
        &self,
        caller: MemberCaller,
        name: Path<String>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
    ) -> Reply<PluginView> {
        let change = Edit { permission: Permission::PLUGIN_DEACTIVATE, name: name.0, if_match: if_match.0 };
        let deactivate = |_: &Transaction<'_>, _: &Identity, whole: &mut PluginWithVersions| {
            whole.plugin.deactivate();
            Ok(())
        };
        self.edit(&caller, "plugin.deactivate", change, deactivate).await
    }

    /// Roll back a plugin
    ///
    /// Enforces the previous activation again, with its settings and its position in the call order, and ends its
    /// quarantine. At most five steps back are possible. Restoring an activation that only an owner can make requires
    /// an owner.
    #[oai(path = "/plugins/:name/rollback", method = "post", operation_id = "roll_back_plugin")]
    async fn roll_back_plugin(
        &self,
        caller: MemberCaller,
        name: Path<String>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
    ) -> Reply<PluginView> {
        let name = name.0;
        let tenant = authz::require_in_tenant(&self.app.snapshot(), &caller, Permission::PLUGIN_ROLL_BACK)?;
        let last = |whole: &PluginWithVersions| {
            whole.plugin.history.last().map(|former| former.version).ok_or_else(|| ErrorCode::NothingToRollBack.into())
        };
        let version = self.prepare(tenant, &name, last).await?;
        let roll_back = move |t: &Transaction<'_>, caller: &Identity, whole: &mut PluginWithVersions| {
            let former = whole.plugin.roll_back()?.clone();
            if former.version != version.number {
                return Err(changed_meanwhile());
            }
            require_unchanged(whole, &version)?;
            let exports = whole.find(former.version)?.exports;
            plugins::require_owner(t.snapshot(), caller, tenant, (Mode::Enforce, &former, exports))?;
            store::release(t, whole.plugin.id, former.version).map(drop)
        };
        let change = Edit { permission: Permission::PLUGIN_ROLL_BACK, name, if_match: if_match.0 };
        self.edit(&caller, "plugin.roll_back", change, roll_back).await
    }

    /// Delete a plugin with all its versions
    ///
    /// Rejected while one of its versions is enforced or a shadow.
    #[oai(path = "/plugins/:name", method = "delete", operation_id = "delete_plugin")]
    async fn delete_plugin(
        &self,
        caller: MemberCaller,
        name: Path<String>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
    ) -> EmptyReply {
        let delete = move |t: &Transaction<'_>, caller: &Identity| {
            let tenant = authz::require_in_tenant(t.snapshot(), caller, Permission::PLUGIN_DELETE)?;
            let PluginWithVersions { plugin, versions } = store::get(t, tenant, &name.0)?;
            require_version(if_match.0.as_deref(), plugin.version)?;
            if plugin.is_bound() {
                return Err(ErrorCode::PluginInForce.into());
            }
            versions.iter().try_for_each(|version| store::delete_version(t, plugin.id, version))?;
            store::delete_plugin(t, plugin.id)?;
            let deleted: Vec<Key> = versions.iter().map(|version| (tenant, version.sha256)).collect();
            let described: Vec<_> =
                versions.iter().map(|v| json!({"version": v.number, "sha256": hex::encode(v.sha256)})).collect();
            let entry = Entry::new("plugin", &plugin.name).within(tenant).before(json!({"versions": described}));
            Ok(Changed::new(deleted, entry))
        };
        let deleted = self.app.change(&caller, "plugin.delete", delete).await?;
        self.forget(deleted.answer).await;
        Ok(done().epoch(deleted.epoch))
    }

    /// Delete a version of a plugin
    ///
    /// Rejected while the version is enforced, a shadow, or kept for rollback. Its number is not reused.
    #[oai(path = "/plugins/:name/versions/:version", method = "delete", operation_id = "delete_plugin_version")]
    async fn delete_plugin_version(
        &self,
        caller: MemberCaller,
        name: Path<String>,
        version: Path<u32>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
    ) -> EmptyReply {
        let delete = move |t: &Transaction<'_>, caller: &Identity| {
            let tenant = authz::require_in_tenant(t.snapshot(), caller, Permission::PLUGIN_VERSION_DELETE)?;
            let whole = store::get(t, tenant, &name.0)?;
            require_version(if_match.0.as_deref(), whole.plugin.version)?;
            let version = whole.find(version.0)?;
            if whole.plugin.needs(version.number) {
                return Err(Error::new(ErrorCode::PluginInForce));
            }
            store::delete_version(t, whole.plugin.id, version)?;
            store::update_plugin(t, &whole.plugin)?;
            let entry = Entry::new("plugin", &whole.plugin.name)
                .within(tenant)
                .before(json!({"version": version.number, "sha256": hex::encode(version.sha256)}));
            Ok(Changed::new(vec![(tenant, version.sha256)], entry))
        };
        let deleted = self.app.change(&caller, "plugin.delete_version", delete).await?;
        self.forget(deleted.answer).await;
        Ok(done().epoch(deleted.epoch))
    }
}

/// Fails with `Busy` unless the prepared version still has its number: the plugin may have been deleted and created
/// again meanwhile.
fn require_unchanged(whole: &PluginWithVersions, prepared: &plugins::Version) -> Result<()> {
    if whole.find(prepared.number)?.sha256 == prepared.sha256 { Ok(()) } else { Err(changed_meanwhile()) }
}

fn changed_meanwhile() -> Error {
    Error::new(ErrorCode::Busy).with_message("the plugin was changed meanwhile: check it and try again").retry_after(1)
}

/// The common arguments of every change of a plugin.
struct Edit {
    permission: Permission,
    name: String,
    if_match: Option<String>,
}

impl Api {
    /// Loads a version before its activation, so that no check waits for the compiler, and returns it.
    async fn prepare(
        &self,
        tenant: OrganizationId,
        name: &str,
        choose: impl FnOnce(&PluginWithVersions) -> Result<u32>,
    ) -> Result<plugins::Version> {
        let name = name.to_owned();
        let whole = self.app.read(move |r| store::get(r, tenant, &name)).await?;
        let version = whole.find(choose(&whole)?)?.clone();
        if !version.is_tested {
            return Err(ErrorCode::PluginVectorsFailed.into());
        }
        self.app.require_tier(tenant, version.is_large)?;
        let key = (tenant, version.sha256);
        let loaded = self.app.load_plugin(key, Tier::from_is_large(version.is_large)).await?;
        self.app.host.keep_loaded(key, loaded);
        Ok(version)
    }

    async fn edit(
        &self,
        caller: &Identity,
        action: &'static str,
        edit: Edit,
        change: impl FnOnce(&Transaction<'_>, &Identity, &mut PluginWithVersions) -> Result<()> + Send + 'static,
    ) -> Reply<PluginView> {
        let Edit { permission, name, if_match } = edit;
        let change = move |t: &Transaction<'_>, caller: &Identity| {
            let tenant = authz::require_in_tenant(t.snapshot(), caller, permission)?;
            let mut whole = store::get(t, tenant, &name)?;
            require_version(if_match.as_deref(), whole.plugin.version)?;
            let (former, before) = (whole.plugin.clone(), whole.described());
            change(t, caller, &mut whole)?;
            if whole.plugin == former {
                return Ok(Changed::unchanged(whole));
            }
            store::update_plugin(t, &whole.plugin)?;
            let entry = Entry::new("plugin", &name).within(tenant).before(before).after(whole.described());
            let policy = authz::store::plugins(t, tenant)?;
            Ok(Changed::new(store::get(t, tenant, &name)?, entry).with_policy_changes([policy]))
        };
        let changed = self.app.change(caller, action, change).await;
        // This also unloads a version that was loaded for a change that failed.
        self.app.update_plugins_in_force();
        let changed = changed?;
        let version = changed.answer.plugin.version;
        let view = PluginView::of(&self.app.snapshot(), changed.answer);
        Ok(ok(view).version(version).epoch(changed.epoch))
    }

    async fn forget(&self, deleted: Vec<Key>) {
        for key in deleted {
            self.app.forget_plugin(key).await;
        }
    }
}
