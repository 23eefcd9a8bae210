//! Roster's own operations as permissions: the name, method and path of each, and the system roles that hold it by
//! default.
//!
//! These are normal catalog entries (application `roster`), so the API is guarded by the same decision function that
//! answers other services. The table also defines the permissions of the system roles, as text, so that a change of
//! policy is a readable diff.

/// The application of Roster's own permissions. Catalog imports cannot use it.
pub const ROSTER_APP: &str = "roster";

/// Keys of roles that have special rules.
pub const TENANT_OWNER: &str = "tenant_owner";
pub const TENANT_ADMIN: &str = "tenant_admin";
pub const PLATFORM_ADMIN: &str = "platform_admin";
/// The `org_code` of the organization whose roles are rights over the site.
pub const PLATFORM_ORG_CODE: &str = "platform";

/// The system roles of every organization: key, name, and the letter in the table below. `tenant_owner` needs no ticked
/// permissions: it holds its tenant's whole catalog.
pub const SYSTEM_ROLES: [(&str, &str, char); 5] = [
    (TENANT_OWNER, "Owner", 'o'),
    (TENANT_ADMIN, "Administrator", 'a'),
    ("member_manager", "Member manager", 'm'),
    ("member", "Member", 'u'),
    ("viewer", "Viewer", 'v'),
];

/// Whether the text has the form of a role key: `^[a-z][a-z0-9_.-]{1,63}$`.
pub fn is_role_key(key: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'.' | b'-');
    (2..=64).contains(&key.len()) && key.starts_with(|first: char| first.is_ascii_lowercase()) && key.bytes().all(plain)
}

/// One of Roster's own permissions.
#[derive(Debug)]
pub struct BuiltinPermission {
    pub name: &'static str,
    pub about: &'static str,
    pub method: &'static str,
    /// The path below the base path. A category has neither method nor path.
    pub path: &'static str,
    /// The scope that API clients and keys need for it; `None` if they can never have it.
    pub scope: Option<&'static str>,
    /// Whether only the organization `platform` can hold it.
    pub site_only: bool,
    /// The letters of the system roles that hold it by default.
    pub roles: &'static str,
}

/// An index into [`BUILTIN_PERMISSIONS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Permission(u16);

impl Permission {
    pub fn builtin(self) -> &'static BuiltinPermission {
        &BUILTIN_PERMISSIONS[self.index()]
    }

    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// Whether the operation changes nothing.
    pub fn is_read_only(self) -> bool {
        self.builtin().method == "GET" || self == Self::POLICY_CHECK
    }

    pub fn all() -> impl Iterator<Item = Self> {
        (0..BUILTIN_PERMISSIONS.len()).filter_map(|n| u16::try_from(n).ok()).map(Self)
    }
}

macro_rules! permissions {
    ($($constant:ident $name:literal $method:literal $path:literal $scope:expr, $level:ident $roles:literal $about:literal;)*) => {
        /// All permissions in tree order: a category comes before its permissions.
        pub const BUILTIN_PERMISSIONS: &[BuiltinPermission] = &[$(BuiltinPermission {
            name: $name, about: $about, method: $method, path: $path, scope: $scope,
            site_only: permissions!(@ $level), roles: $roles,
        },)*];

        #[repr(u16)]
        #[allow(non_camel_case_types, clippy::upper_case_acronyms, dead_code, reason = "only counts the lines of the table")]
        enum Line { $($constant,)* }

        impl Permission {
            $(#[doc = $about] pub const $constant: Self = Self(Line::$constant as u16);)*
        }
    };
    (@ site) => { true };
    (@ tenant) => { false };
}

permissions! {
    // constant              name                              method   path
    // client scope               level  roles   what
    ROOT                    "roster"                           ""       ""                                               None,                       tenant ""      "Roster itself";

    MEMBERS                 "roster.member"                    ""       ""                                               None,                       tenant ""      "Members";
    MEMBER_LIST             "roster.member.list"               "GET"    "/admin/members"                                 Some("members:read"),       tenant "oamv"  "List members";
    MEMBER_CREATE           "roster.member.create"             "POST"   "/admin/members"                                 Some("members:write"),      tenant "oam"   "Create a member";
    MEMBER_GET              "roster.member.get"                "GET"    "/admin/members/:id"                             Some("members:read"),       tenant "oamv"  "See a member";
    MEMBER_UPDATE           "roster.member.update"             "PATCH"  "/admin/members/:id"                             Some("members:write"),      tenant "oam"   "Change a member";
    MEMBER_DELETE           "roster.member.delete"             "DELETE" "/admin/members/:id"                             Some("members:write"),      tenant "oa"    "Erase a member's personal data";
    MEMBER_ACTIVATE         "roster.member.activate"           "POST"   "/admin/members/:id/activate"                    Some("members:write"),      tenant "oam"   "Activate a member";
    MEMBER_DEACTIVATE       "roster.member.deactivate"         "POST"   "/admin/members/:id/deactivate"                  Some("members:write"),      tenant "oam"   "Suspend a member";
    MEMBER_PASSWORD_LINK    "roster.member.password_link"      "POST"   "/admin/members/:id/password-link"               Some("members:write"),      tenant "oam"   "Create a one-time link to set a member's password";
    MEMBER_RESET_FACTOR     "roster.member.reset_second_factor" "DELETE" "/admin/members/:id/second-factor"              None,                       tenant "oa"    "Remove a member's second factor";
    MEMBER_SESSION_LIST     "roster.member.list_sessions"      "GET"    "/admin/members/:id/sessions"                    None,                       tenant "oa"    "List a member's sessions";
    MEMBER_SESSIONS_END     "roster.member.end_sessions"       "DELETE" "/admin/members/:id/sessions"                    None,                       tenant "oa"    "End all sessions of a member";
    MEMBER_SESSION_END      "roster.member.end_session"        "DELETE" "/admin/members/:id/sessions/:session_id"        None,                       tenant "oa"    "End a session of a member";
    MEMBER_KEY_LIST         "roster.member.list_api_keys"      "GET"    "/admin/members/:id/api-keys"                    None,                       tenant "oa"    "List a member's API keys";
    MEMBER_KEY_CREATE       "roster.member.create_api_key"     "POST"   "/admin/members/:id/api-keys"                    None,                       tenant "oa"    "Create an API key for a member";
    MEMBER_KEY_DELETE       "roster.member.delete_api_key"     "DELETE" "/admin/members/:id/api-keys/:key_id"            None,                       tenant "oa"    "Revoke a member's API key";
    MEMBER_KEY_ROTATE       "roster.member.rotate_api_key"     "POST"   "/admin/members/:id/api-keys/:key_id/rotate"     None,                       tenant "oa"    "Rotate a member's API key";
    MEMBERSHIP_LIST         "roster.member.list_organizations" "GET"    "/admin/members/:id/organizations"               Some("members:read"),       tenant "oamv"  "List a member's organizations";
    MEMBERSHIP_CREATE       "roster.member.link"               "POST"   "/admin/members/:id/organizations/:org_id"       Some("members:write"),      site   ""      "Link a member to an organization";
    MEMBERSHIP_ADD          "roster.member.link_by_name"       "POST"   "/admin/members/:id/organizations"               Some("members:write"),      site   ""      "Link a member to an organization by id or code";
    MEMBERSHIP_DELETE       "roster.member.unlink"             "DELETE" "/admin/members/:id/organizations/:org_id"       Some("members:write"),      tenant "oam"   "Remove a member from an organization";

    INVITATIONS             "roster.invitation"                ""       ""                                               None,                       tenant ""      "Invitations";
    INVITATION_LIST         "roster.invitation.list"           "GET"    "/admin/invitations"                             Some("members:read"),       tenant "oamv"  "List invitations";
    INVITATION_CREATE       "roster.invitation.create"         "POST"   "/admin/invitations"                             Some("members:write"),      tenant "oam"   "Create an invitation link";
    INVITATION_DELETE       "roster.invitation.delete"         "DELETE" "/admin/invitations/:id"                         Some("members:write"),      tenant "oam"   "Withdraw an invitation";

    ORGANIZATIONS           "roster.organization"              ""       ""                                               None,                       tenant ""      "Organizations";
    ORGANIZATION_LIST       "roster.organization.list"         "GET"    "/admin/organizations"                           Some("organizations:read"), tenant "oamuv" "List organizations";
    ORGANIZATION_CREATE     "roster.organization.create"       "POST"   "/admin/organizations"                           Some("organizations:write"), site  ""      "Create an organization";
    ORGANIZATION_GET        "roster.organization.get"          "GET"    "/admin/organizations/:id"                       Some("organizations:read"), tenant "oamuv" "See an organization";
    ORGANIZATION_UPDATE     "roster.organization.update"       "PATCH"  "/admin/organizations/:id"                       Some("organizations:write"), tenant "o"    "Change an organization";
    ORGANIZATION_ACTIVATE   "roster.organization.activate"     "POST"   "/admin/organizations/:id/activate"              Some("organizations:write"), site  ""      "Activate an organization";
    ORGANIZATION_DEACTIVATE "roster.organization.deactivate"   "POST"   "/admin/organizations/:id/deactivate"            Some("organizations:write"), site  ""      "Deactivate an organization";

    GRANTS                  "roster.grant"                     ""       ""                                               None,                       tenant ""      "Direct grants";
    GRANT_LIST              "roster.grant.list"                "GET"    "/admin/permissions/grants"                      Some("permissions:read"),   site   ""      "List the direct grants of a member";
    GRANT_CREATE            "roster.grant.create"              "POST"   "/admin/permissions/grant"                       Some("permissions:write"),  site   ""      "Grant a direct right";
    GRANT_DELETE            "roster.grant.delete"              "POST"   "/admin/permissions/revoke"                      Some("permissions:write"),  site   ""      "Revoke a direct right";

    ROLES                   "roster.role"                      ""       ""                                               None,                       tenant ""      "Roles";
    ROLE_LIST               "roster.role.list"                 "GET"    "/permissions/roles"                             None,                       tenant "oamv"  "List roles";
    ROLE_CREATE             "roster.role.create"               "POST"   "/permissions/roles"                             None,                       tenant "oa"    "Create a role";
    ROLE_GET                "roster.role.get"                  "GET"    "/permissions/roles/:id"                         None,                       tenant "oamv"  "See a role";
    ROLE_UPDATE             "roster.role.update"               "PATCH"  "/permissions/roles/:id"                         None,                       tenant "oa"    "Change a role";
    ROLE_DELETE             "roster.role.delete"               "DELETE" "/permissions/roles/:id"                         None,                       tenant "oa"    "Delete a role";
    ROLE_LIST_PERMISSIONS   "roster.role.list_permissions"     "GET"    "/permissions/roles/:id/permissions"             None,                       tenant "oamv"  "See what a role holds";
    ROLE_GRANT              "roster.role.grant"                "PUT"    "/permissions/roles/:id/permissions"             None,                       tenant "oa"    "Replace what a role holds";
    ROLE_LIST_MEMBERS       "roster.role.list_members"         "GET"    "/permissions/roles/:id/users"                   None,                       tenant "oamv"  "See who holds a role";

    ASSIGNMENTS             "roster.assignment"                ""       ""                                               None,                       tenant ""      "Role assignments";
    ASSIGNMENT_LIST         "roster.assignment.list"           "GET"    "/permissions/users/:uid/roles"                  None,                       tenant "oamv"  "See a member's roles";
    ASSIGNMENT_CREATE       "roster.assignment.create"         "POST"   "/permissions/users/:uid/roles"                  None,                       tenant "oam"   "Assign a role";
    ASSIGNMENT_DELETE       "roster.assignment.delete"         "DELETE" "/permissions/users/:uid/roles/:role_id"         None,                       tenant "oam"   "Revoke a role";
    ASSIGNMENT_SYNC         "roster.assignment.sync"           "POST"   "/permissions/users/:uid/roles/sync"             Some("permissions:write"),  tenant "oa"    "Synchronize a member's roles with an external source";

    MAPPINGS                "roster.mapping"                   ""       ""                                               None,                       tenant ""      "Role mappings";
    MAPPING_LIST            "roster.mapping.list"              "GET"    "/permissions/role-mappings"                     None,                       tenant "oav"   "List role mappings";
    MAPPING_REPLACE         "roster.mapping.replace"           "PUT"    "/permissions/role-mappings"                     None,                       tenant "oa"    "Set a role mapping";
    MAPPING_DELETE          "roster.mapping.delete"            "DELETE" "/permissions/role-mappings"                     None,                       tenant "oa"    "Delete a role mapping";

    POLICY                  "roster.policy"                    ""       ""                                               None,                       tenant ""      "Policy";
    POLICY_CHECK            "roster.policy.check"              "POST"   "/permissions/check"                             Some("permissions:check"),  tenant "oamv"  "Ask whether a member may do something";
    POLICY_RELOAD           "roster.policy.reload"             "POST"   "/permissions/policy/reload"                     None,                       tenant "oa"    "Rebuild the policy from the database";
    DECISION_LIST           "roster.policy.list_decisions"     "GET"    "/permissions/decisions"                         None,                       tenant "oa"    "Read the decision log";
    CATALOG_IMPORT          "roster.policy.import_catalog"     "PUT"    "/permissions/catalog"                           None,                       site   ""      "Import a catalog";

    PLUGINS                 "roster.plugin"                    ""       ""                                               None,                       tenant ""      "Plugins: rules of the organization";
    PLUGIN_LIST             "roster.plugin.list"               "GET"    "/plugins"                                       None,                       tenant "oav"   "List plugins";
    PLUGIN_GET              "roster.plugin.get"                "GET"    "/plugins/:name"                                 None,                       tenant "oav"   "See a plugin with its versions and metrics";
    PLUGIN_LOG              "roster.plugin.log"                "GET"    "/plugins/:name/log"                             None,                       tenant "oa"    "Read the log of a plugin";
    PLUGIN_UPLOAD           "roster.plugin.upload"             "POST"   "/plugins"                                       None,                       tenant "oa"    "Upload a version of a plugin";
    PLUGIN_RUN              "roster.plugin.run"                "POST"   "/plugins/:name/dry-run"                         None,                       tenant "oa"    "Run a plugin without effect";
    PLUGIN_ACTIVATE         "roster.plugin.activate"           "POST"   "/plugins/:name/activate"                        None,                       tenant "o"     "Activate a version of a plugin";
    PLUGIN_DEACTIVATE       "roster.plugin.deactivate"         "POST"   "/plugins/:name/deactivate"                      None,                       tenant "oa"    "Deactivate a plugin";
    PLUGIN_ROLL_BACK        "roster.plugin.roll_back"          "POST"   "/plugins/:name/rollback"                        None,                       tenant "oa"    "Roll back a plugin to the previous version";
    PLUGIN_DELETE           "roster.plugin.delete"             "DELETE" "/plugins/:name"                                 None,                       tenant "o"     "Delete a plugin with all its versions";
    PLUGIN_VERSION_DELETE   "roster.plugin.delete_version"     "DELETE" "/plugins/:name/versions/:version"               None,                       tenant "o"     "Delete a version of a plugin";

    VIDEOS                  "roster.video"                     ""       ""                                               None,                       tenant ""      "Videos";
    VIDEO_LIST              "roster.video.list"                "GET"    "/videos"                                        Some("videos:read"),        tenant "oamv"  "List videos of others";
    VIDEO_GET               "roster.video.get"                 "GET"    "/videos/:id"                                    Some("videos:read"),        tenant "oamv"  "See a video of others";
    VIDEO_DELETE            "roster.video.delete"              "DELETE" "/videos/:id"                                    Some("videos:write"),       tenant "oam"   "Delete a video of others";
    VIDEO_TRANSFER          "roster.video.transfer"            "POST"   "/videos/:id/transfer"                           Some("videos:write"),       tenant "oam"   "Transfer a video to another member";
    VIDEO_CLAIM             "roster.video.claim"               "POST"   "/videos/claim"                                  Some("videos:write"),       site   ""      "Assign videos without an owner to the owners of their folders";
    VIDEO_IMPORT            "roster.video.import"              "POST"   "/videos/import"                                 Some("videos:write"),       site   ""      "Import the files under the media root";

    QUOTAS                  "roster.quota"                     ""       ""                                               None,                       tenant ""      "Quotas";
    QUOTA_LIST              "roster.quota.list"                "GET"    "/admin/quotas"                                  Some("quotas:read"),        tenant "oamv"  "List the storage usage of members";
    QUOTA_LEDGER            "roster.quota.ledger"              "GET"    "/admin/quotas/:id/ledger"                       Some("quotas:read"),        tenant "oamv"  "See the ledger of a member's storage usage";
    QUOTA_UPDATE            "roster.quota.update"              "PATCH"  "/admin/members/:id/quota"                       Some("quotas:write"),       tenant "oa"    "Change a member's quota";
    QUOTA_USAGE             "roster.quota.usage"               "GET"    "/admin/usage"                                   Some("quotas:read"),        tenant "oamv"  "See total usage and the members who use most";
    QUOTA_CEILING           "roster.quota.set_ceiling"         "PATCH"  "/admin/organizations/:id/quota"                 Some("quotas:write"),       site   ""      "Change an organization's quota";
    QUOTA_RECOUNT           "roster.quota.recount"             "POST"   "/admin/quotas/recount"                          None,                       site   ""      "Verify all usage against the ledger and the videos";

    JOBS                    "roster.job"                       ""       ""                                               None,                       tenant ""      "Jobs";
    JOB_LIST                "roster.job.list"                  "GET"    "/jobs"                                          Some("jobs:read"),          tenant "oamv"  "List jobs";
    JOB_GET                 "roster.job.get"                   "GET"    "/jobs/:id"                                      Some("jobs:read"),          tenant "oamv"  "See a job";
    JOB_COUNT               "roster.job.count"                 "GET"    "/jobs/counts"                                   Some("jobs:read"),          tenant "oamv"  "Count jobs";
    JOB_CLAIM               "roster.job.claim"                 "POST"   "/jobs/claim"                                    Some("jobs:write"),         site   ""      "Claim jobs to work on";
    JOB_HEARTBEAT           "roster.job.heartbeat"             "POST"   "/jobs/:id/heartbeat"                            Some("jobs:write"),         site   ""      "Report progress of a job";
    JOB_COMPLETE            "roster.job.complete"              "POST"   "/jobs/:id/complete"                             Some("jobs:write"),         site   ""      "Report that a job is done";
    JOB_FAIL                "roster.job.fail"                  "POST"   "/jobs/:id/fail"                                 Some("jobs:write"),         site   ""      "Report that a job failed";
    JOB_RETRY               "roster.job.retry"                 "POST"   "/jobs/:id/retry"                                Some("jobs:write"),         tenant "oa"    "Retry a dead job";

    USERS                   "roster.user"                      ""       ""                                               None,                       tenant ""      "Members with everything that belongs to them";
    USER_LIST               "roster.user.list"                 "GET"    "/admin/users"                                   Some("members:read"),       tenant "oamv"  "List members with their quotas";
    USER_CREATE             "roster.user.create"               "POST"   "/admin/users"                                   Some("members:write"),      site   ""      "Create a member with quota, external names and an API key";
    USER_IMPORT             "roster.user.import"               "POST"   "/admin/users/import"                            Some("members:write"),      site   ""      "Import members with quotas and external names";
    USER_GET                "roster.user.get"                  "GET"    "/admin/users/:id"                               Some("members:read"),       tenant "oamv"  "See a member with its quota";
    USER_UPDATE             "roster.user.update"               "PATCH"  "/admin/users/:id"                               Some("members:write"),      site   ""      "Change a member with its quota and external names";
    USER_DELETE             "roster.user.delete"               "DELETE" "/admin/users/:id"                               Some("members:write"),      site   ""      "Erase a member, here and in external systems";

    OUTBOX                  "roster.outbox"                    ""       ""                                               None,                       tenant ""      "Events and their deliveries";
    OUTBOX_LIST             "roster.outbox.list"               "GET"    "/admin/deliveries"                              None,                       tenant "oa"    "List deliveries";
    OUTBOX_RETRY            "roster.outbox.retry"              "POST"   "/admin/deliveries/:id/retry"                    None,                       tenant "oa"    "Retry a delivery that was given up";
    WEBHOOK_LIST            "roster.outbox.list_webhooks"      "GET"    "/admin/webhooks"                                None,                       tenant "oa"    "List webhooks";
    WEBHOOK_GET             "roster.outbox.get_webhook"        "GET"    "/admin/webhooks/:id"                            None,                       tenant "oa"    "See a webhook";
    WEBHOOK_CREATE          "roster.outbox.create_webhook"     "POST"   "/admin/webhooks"                                None,                       tenant "oa"    "Create a webhook";
    WEBHOOK_UPDATE          "roster.outbox.update_webhook"     "PATCH"  "/admin/webhooks/:id"                            None,                       tenant "oa"    "Change a webhook";
    WEBHOOK_TEST            "roster.outbox.test_webhook"       "POST"   "/admin/webhooks/:id/test"                       None,                       tenant "oa"    "Test a webhook";
    WEBHOOK_ROTATE          "roster.outbox.rotate_webhook"     "POST"   "/admin/webhooks/:id/rotate"                     None,                       tenant "oa"    "Rotate the secret of a webhook";
    WEBHOOK_DELETE          "roster.outbox.delete_webhook"     "DELETE" "/admin/webhooks/:id"                            None,                       tenant "oa"    "Delete a webhook";

    NEIGHBOURS              "roster.neighbour"                 ""       ""                                               None,                       tenant ""      "SFTPGo and WordPress";
    SFTPGO_DRIFT            "roster.neighbour.sftpgo_drift"    "GET"    "/admin/sftpgo/drift"                            None,                       site   ""      "See how SFTPGo's users differ from the members";
    SFTPGO_RECONCILE        "roster.neighbour.sftpgo_reconcile" "POST"  "/admin/sftpgo/reconcile"                        None,                       site   ""      "Reconcile SFTPGo's users with the members";
    WORDPRESS_SYNC          "roster.neighbour.wordpress_sync"  "POST"   "/admin/wordpress/sync"                          None,                       site   ""      "Compare WordPress's users with the members";

    CONNECTIONS             "roster.connection"                ""       ""                                               None,                       tenant ""      "Connections to external systems";
    CONNECTION_LIST         "roster.connection.list"           "GET"    "/admin/connections"                             None,                       site   ""      "See the connections to external systems";
    CONNECTION_TEST         "roster.connection.test"           "POST"   "/admin/connections/:name/test"                  None,                       site   ""      "Test a connection to an external system";

    CLIENTS                 "roster.client"                    ""       ""                                               None,                       tenant ""      "API clients";
    CLIENT_LIST             "roster.client.list"               "GET"    "/admin/api-clients"                             None,                       site   ""      "List API clients";
    CLIENT_CREATE           "roster.client.create"             "POST"   "/admin/api-clients"                             None,                       site   ""      "Create an API client";
    CLIENT_GET              "roster.client.get"                "GET"    "/admin/api-clients/:client_key"                 None,                       site   ""      "See an API client";
    CLIENT_UPDATE           "roster.client.update"             "PATCH"  "/admin/api-clients/:client_key"                 None,                       site   ""      "Change an API client";
    CLIENT_DELETE           "roster.client.delete"             "DELETE" "/admin/api-clients/:client_key"                 None,                       site   ""      "Delete an API client";
    CLIENT_ROTATE           "roster.client.rotate"             "POST"   "/admin/api-clients/:client_key/rotate"          None,                       site   ""      "Rotate the secret of an API client";

    KEYS                    "roster.api_key"                   ""       ""                                               None,                       tenant ""      "API keys of services";
    KEY_LIST                "roster.api_key.list"              "GET"    "/admin/api-keys"                                None,                       site   ""      "List API keys of services";
    KEY_CREATE              "roster.api_key.create"            "POST"   "/admin/api-keys"                                None,                       site   ""      "Create an API key for a service";
    KEY_DELETE              "roster.api_key.delete"            "DELETE" "/admin/api-keys/:key_id"                        None,                       site   ""      "Revoke a service's API key";
    KEY_ROTATE              "roster.api_key.rotate"            "POST"   "/admin/api-keys/:key_id/rotate"                 None,                       site   ""      "Rotate a service's API key";

    SIGNING_KEYS            "roster.signing_key"               ""       ""                                               None,                       tenant ""      "Signing keys";
    SIGNING_KEY_LIST        "roster.signing_key.list"          "GET"    "/admin/signing-keys"                            None,                       site   ""      "List signing keys";
    SIGNING_KEY_ROTATE      "roster.signing_key.rotate"        "POST"   "/admin/signing-keys/rotate"                     None,                       site   ""      "Create a new signing key";

    ENCRYPTION_KEYS         "roster.encryption_key"            ""       ""                                               None,                       tenant ""      "Encryption key";
    ENCRYPTION_KEY_ROTATE   "roster.encryption_key.rotate"     "POST"   "/admin/encryption-key/rotate"                   None,                       site   ""      "Create a new encryption key for the secrets in the database";

    SETTINGS                "roster.setting"                   ""       ""                                               None,                       tenant ""      "Settings";
    SETTING_LIST            "roster.setting.list"              "GET"    "/admin/settings"                                None,                       site   ""      "See the settings of the server";

    TASKS                   "roster.task"                      ""       ""                                               None,                       tenant ""      "Tasks in the background";
    TASK_LIST               "roster.task.list"                 "GET"    "/tasks"                                         None,                       site   ""      "List the tasks of others";
    TASK_GET                "roster.task.get"                  "GET"    "/tasks/:id"                                     None,                       site   ""      "See a task of others";
    TASK_CANCEL             "roster.task.cancel"               "DELETE" "/tasks/:id"                                     None,                       site   ""      "Cancel a task of others";

    STATISTICS              "roster.statistics"                ""       ""                                               None,                       tenant ""      "Statistics";
    STATISTICS_GET          "roster.statistics.get"            "GET"    "/admin/statistics"                              None,                       tenant "oamv"  "See statistics over time";

    AUDIT                   "roster.audit"                     ""       ""                                               None,                       tenant ""      "Audit log";
    AUDIT_LIST              "roster.audit.list"                "GET"    "/admin/audit"                                   Some("audit:read"),         tenant "oa"    "Read the audit log";
    AUDIT_EXPORT            "roster.audit.export"              "GET"    "/admin/audit/export"                            Some("audit:read"),         tenant "oa"    "Export the audit log";
    AUDIT_HEAD              "roster.audit.head"                "GET"    "/admin/audit/head"                              Some("audit:read"),         site   ""      "See the head of the audit log's hash chain";
    AUDIT_VERIFY            "roster.audit.verify"              "GET"    "/admin/audit/verify"                            Some("audit:read"),         site   ""      "Verify the hash chain of the audit log";
}

/// The name of the category of a permission, from its name.
pub fn parent(name: &str) -> Option<&str> {
    name.rsplit_once('.').map(|(parent, _)| parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AREAS: [&str; 7] = ["members", "organizations", "permissions", "videos", "quotas", "jobs", "audit"];

    #[test]
    fn parents_stand_before_their_children_and_site_rights_are_in_no_tenant_role() {
        for (n, own) in BUILTIN_PERMISSIONS.iter().enumerate() {
            if let Some(parent) = parent(own.name) {
                assert!(BUILTIN_PERMISSIONS[..n].iter().any(|earlier| earlier.name == parent), "{}", own.name);
            }
            assert!(!own.site_only || own.roles.is_empty(), "{}", own.name);
            assert_eq!(own.method.is_empty(), own.path.is_empty(), "{}", own.name);
            let area = own.scope.and_then(|scope| scope.split(':').next());
            assert!(area.is_none_or(|area| AREAS.contains(&area)), "{}", own.name);
        }
    }
}
