//! Operations that change what is in force: each is one change of the policy, and so one epoch.

use std::sync::Arc;

use poem_openapi::param::{Header, Path};
use poem_openapi::{Object, OpenApi};
use serde_json::json;

use super::{PluginFilter, PluginMode, PluginView, bindings_of};
use crate::features::plugins::{self, Whole, store};
use crate::kernel::app::{App, Changed, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::authn::caller::MemberCaller;
use crate::kernel::authz;
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::plugin::{Activation, Filter, Mode};
use crate::kernel::authz::principal::Identity;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::http::{Body, Done, Reply, Tag, done, ok, require_version};
use crate::kernel::ids::OrganizationId;
use crate::kernel::sandbox::{Key, Tier};

/// Which version to put in force, and how
#[derive(Object)]
struct ActivatePlugin {
    #[oai(validator(minimum(value = "1")))]
    version: u32,
    mode: PluginMode,
    /// May its `allow` open what no role does? No, when absent; yes only by an owner
    may_grant: Option<bool>,
    /// All questions when absent; role mappers are asked whatever it says
    filter: Option<PluginFilter>,
    /// Milliseconds that a call may run; at most, and when absent, what the settings say
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
    /// Put a version of a plugin in force
    ///
    /// `enforce` takes the place of the version that was enforced, which is kept to roll back to; `shadow` has a version
    /// asked, counted and logged beside it, without effect. A quarantine of the version ends. With `may_grant`, and for
    /// a role mapper that is enforced, only an owner may do this.
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
        let wanted = Activation { version: number, may_grant: may_grant == Some(true), filter, deadline_ms, since: 0 };
        let name = name.0;
        let version = self.ready(tenant, &name, |_| Ok(number)).await?;
        plugins::require_deadline(
            deadline_ms,
            version.exports,
            self.app.host.limits(Tier::from_is_large(version.is_large)),
        )?;
        let activate = move |t: &Transaction<'_>, caller: &Identity, whole: &mut Whole| {
            require_ready(whole, &version)?;
            plugins::require_owner(t.snapshot(), caller, tenant, (mode, &wanted, version.exports))?;
            let wanted = Activation { since: t.now().0, ..wanted };
            let plugin = &mut whole.plugin;
            // An enforced version that is watched too stays in quarantine: its other run goes on failing.
            let is_other_run = mode == Mode::Shadow && plugin.is_enforced(number);
            let is_released = !is_other_run && store::release(t, plugin.id, number)?;
            // What could not be written down counts too.
            let is_failing = bindings_of(t.snapshot(), plugin)
                .iter()
                .any(|binding| (binding.version, binding.mode) == (number, mode) && binding.live.is_quarantined());
            if is_released || is_failing || !plugin.is_active_alike(mode, &wanted) {
                plugin.activate(mode, wanted);
            }
            Ok(())
        };
        let change = Edit { permission: Permission::PLUGIN_ACTIVATE, name, if_match: if_match.0 };
        self.edit(&caller, "plugin.activate", change, activate).await
    }

    /// Take a plugin out of force
    ///
    /// What is enforced and what is watched, and all that could be rolled back to: from then on only an activation puts a
    /// version in force. When nothing is in force nothing changes.
    #[oai(path = "/plugins/:name/deactivate", method = "post", operation_id = "deactivate_plugin")]
    async fn deactivate_plugin(
        &self,
        caller: MemberCaller,
        name: Path<String>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
    ) -> Reply<PluginView> {
        let change = Edit { permission: Permission::PLUGIN_DEACTIVATE, name: name.0, if_match: if_match.0 };
        let deactivate = |_: &Transaction<'_>, _: &Identity, whole: &mut Whole| {
            whole.plugin.deactivate();
            Ok(())
        };
        self.edit(&caller, "plugin.deactivate", change, deactivate).await
    }

    /// Put the version before in force again
    ///
    /// With the settings and the place in the order that it had, and out of quarantine; five steps back at most. What it
    /// takes an owner to activate it takes an owner to bring back.
    #[oai(path = "/plugins/:name/rollback", method = "post", operation_id = "roll_back_plugin")]
    async fn roll_back_plugin(
        &self,
        caller: MemberCaller,
        name: Path<String>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
    ) -> Reply<PluginView> {
        let name = name.0;
        let tenant = authz::require_in_tenant(&self.app.snapshot(), &caller, Permission::PLUGIN_ROLL_BACK)?;
        let last = |whole: &Whole| {
            whole.plugin.history.last().map(|former| former.version).ok_or_else(|| ErrorCode::NothingToRollBack.into())
        };
        let version = self.ready(tenant, &name, last).await?;
        let roll_back = move |t: &Transaction<'_>, caller: &Identity, whole: &mut Whole| {
            let former = whole.plugin.roll_back()?.clone();
            if former.version != version.number {
                return Err(moved_on());
            }
            require_ready(whole, &version)?;
            let exports = whole.find(former.version)?.exports;
            plugins::require_owner(t.snapshot(), caller, tenant, (Mode::Enforce, &former, exports))?;
            store::release(t, whole.plugin.id, former.version).map(drop)
        };
        let change = Edit { permission: Permission::PLUGIN_ROLL_BACK, name, if_match: if_match.0 };
        self.edit(&caller, "plugin.roll_back", change, roll_back).await
    }

    /// Delete a plugin with all its versions
    ///
    /// Not while anything of it is in force or watched.
    #[oai(path = "/plugins/:name", method = "delete", operation_id = "delete_plugin")]
    async fn delete_plugin(
        &self,
        caller: MemberCaller,
        name: Path<String>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
    ) -> Done {
        let delete = move |t: &Transaction<'_>, caller: &Identity| {
            let tenant = authz::require_in_tenant(t.snapshot(), caller, Permission::PLUGIN_DELETE)?;
            let Whole { plugin, versions } = store::get(t, tenant, &name.0)?;
            require_version(if_match.0.as_deref(), plugin.version)?;
            if plugin.is_bound() {
                return Err(ErrorCode::PluginInForce.into());
            }
            versions.iter().try_for_each(|version| store::delete_version(t, plugin.id, version))?;
            store::delete_plugin(t, plugin.id)?;
            let gone: Vec<Key> = versions.iter().map(|version| (tenant, version.sha256)).collect();
            let described: Vec<_> =
                versions.iter().map(|v| json!({"version": v.number, "sha256": hex::encode(v.sha256)})).collect();
            let entry = Entry::new("plugin", &plugin.name).within(tenant).before(json!({"versions": described}));
            Ok(Changed::new(gone, entry))
        };
        let deleted = self.app.change(&caller, "plugin.delete", delete).await?;
        self.forget(deleted.answer).await;
        Ok(done().epoch(deleted.epoch))
    }

    /// Delete a version of a plugin
    ///
    /// Not while it is in force, watched, or kept to roll back to. Its number is not used again.
    #[oai(path = "/plugins/:name/versions/:version", method = "delete", operation_id = "delete_plugin_version")]
    async fn delete_plugin_version(
        &self,
        caller: MemberCaller,
        name: Path<String>,
        version: Path<u32>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
    ) -> Done {
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

/// Fails unless the version that was made ready is still the one of its number: its plugin may have been deleted and made
/// anew meanwhile.
fn require_ready(whole: &Whole, ready: &plugins::Version) -> Result<()> {
    if whole.find(ready.number)?.sha256 == ready.sha256 { Ok(()) } else { Err(moved_on()) }
}

fn moved_on() -> Error {
    Error::new(ErrorCode::Busy).with_message("the plugin changed meanwhile: look at it, and try again").retry_after(1)
}

/// What every change of a plugin begins with.
struct Edit {
    permission: Permission,
    name: String,
    if_match: Option<String>,
}

impl Api {
    /// Makes a version ready before it comes into force, so that no check ever waits for the compiler; answers it.
    async fn ready(
        &self,
        tenant: OrganizationId,
        name: &str,
        choose: impl FnOnce(&Whole) -> Result<u32>,
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
        change: impl FnOnce(&Transaction<'_>, &Identity, &mut Whole) -> Result<()> + Send + 'static,
    ) -> Reply<PluginView> {
        let Edit { permission, name, if_match } = edit;
        let change = move |t: &Transaction<'_>, caller: &Identity| {
            let tenant = authz::require_in_tenant(t.snapshot(), caller, permission)?;
            let mut whole = store::get(t, tenant, &name)?;
            require_version(if_match.as_deref(), whole.plugin.version)?;
            let (former, before) = (whole.plugin.clone(), whole.described());
            change(t, caller, &mut whole)?;
            if whole.plugin == former {
                return Ok(Changed::nothing(whole));
            }
            store::update_plugin(t, &whole.plugin)?;
            let entry = Entry::new("plugin", &name).within(tenant).before(before).after(whole.described());
            let policy = authz::store::plugins(t, tenant)?;
            Ok(Changed::new(store::get(t, tenant, &name)?, entry).policy([policy]))
        };
        let changed = self.app.change(caller, action, change).await;
        // What was made ready in vain goes again too.
        self.app.keep_plugins();
        let changed = changed?;
        let version = changed.answer.plugin.version;
        let view = PluginView::of(&self.app.snapshot(), changed.answer);
        Ok(ok(view).version(version).epoch(changed.epoch))
    }

    async fn forget(&self, gone: Vec<Key>) {
        for key in gone {
            self.app.forget_plugin(key).await;
        }
    }
}
