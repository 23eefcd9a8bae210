//! The actions of the audit log, in the reader's language.

use super::Language;
use super::errors::capitalized;

/// What somebody did, such as "Changed the password" for `password.change`.
pub fn text(action: &str, language: Language) -> String {
    match ALL.iter().find(|(known, ..)| *known == action) {
        Some((_, english, chinese)) => language.pick(english, chinese).to_owned(),
        None => capitalized(&action.replace(['.', '_'], " ")),
    }
}

/// A kind of thing that actions change, such as "Role mapping" for `role_mapping`.
pub fn thing(kind: &str, language: Language) -> String {
    match THINGS.iter().find(|(known, ..)| *known == kind) {
        Some((_, english, chinese)) => language.pick(english, chinese).to_owned(),
        None => capitalized(&kind.replace('_', " ")),
    }
}

/// All actions, ordered by their names.
pub fn all() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|(action, ..)| *action)
}

const THINGS: &[(&str, &str, &str)] = &[
    ("account", "Account", "帳號"),
    ("api_key", "API key", "API 金鑰"),
    ("api_keys", "API keys", "API 金鑰"),
    ("connection", "Connection", "連線"),
    ("denials", "Denials", "拒絕紀錄"),
    ("encryption_key", "Encryption key", "加密金鑰"),
    ("catalog", "Catalog", "權限目錄"),
    ("client", "API client", "API 用戶端"),
    ("delivery", "Delivery", "傳送紀錄"),
    ("grant", "Direct grant", "直接授權"),
    ("invitation", "Invitation", "邀請"),
    ("job", "Job", "工作"),
    ("member", "Member", "成員"),
    ("members", "Members", "成員"),
    ("organization", "Organization", "組織"),
    ("organization_quota", "Quota of an organization", "組織配額"),
    ("password", "Password", "密碼"),
    ("password_link", "Password link", "設定密碼的連結"),
    ("path", "Request", "請求"),
    ("plugin", "Plugin", "外掛"),
    ("policy", "Policy", "權限規則"),
    ("quota", "Quota", "配額"),
    ("reservation", "Reserved space", "保留空間"),
    ("role", "Role", "角色"),
    ("role_mapping", "Role mapping", "角色對應"),
    ("second_factor", "Second factor", "第二因素驗證"),
    ("session", "Session", "工作階段"),
    ("sessions", "Sessions", "工作階段"),
    ("sftpgo", "SFTPGo", "SFTPGo"),
    ("signing_key", "Signing key", "簽署金鑰"),
    ("site", "Site", "站台"),
    ("task", "Background task", "背景工作"),
    ("user", "Member", "成員"),
    ("video", "Video", "影片"),
    ("videos", "Videos", "影片"),
    ("webhook", "Webhook", "Webhook"),
];

const ALL: &[(&str, &str, &str)] = &[
    ("api_key.create", "Created an API key", "建立 API 金鑰"),
    ("api_key.delete", "Revoked an API key", "撤銷 API 金鑰"),
    ("api_key.expire", "Removed an expired API key", "移除過期的 API 金鑰"),
    ("api_key.rotate", "Rotated an API key", "輪替 API 金鑰"),
    ("api_key.spend", "Used an emergency key", "使用緊急金鑰"),
    ("assignment.create", "Assigned a role", "指派角色"),
    ("assignment.delete", "Revoked a role", "撤銷角色"),
    ("assignment.sync", "Synchronized roles", "同步角色"),
    ("catalog.import", "Imported a catalog", "匯入權限目錄"),
    ("catalog.seed", "Updated Roster's own permissions", "更新 Roster 本身的權限"),
    ("client.create", "Created an API client", "建立 API 用戶端"),
    ("client.delete", "Deleted an API client", "刪除 API 用戶端"),
    ("client.rotate", "Rotated the secret of an API client", "輪替 API 用戶端的密鑰"),
    ("client.update", "Changed an API client", "變更 API 用戶端"),
    ("connection.test", "Tested a connection", "測試連線"),
    ("delivery.retry", "Retried a delivery", "重試傳送"),
    ("encryption_key.rotate", "Created a new encryption key", "建立新的加密金鑰"),
    ("grant.create", "Granted a direct right", "直接授予權限"),
    ("grant.delete", "Revoked a direct right", "撤銷直接授權"),
    ("invitation.accept", "Accepted an invitation", "接受邀請"),
    ("invitation.create", "Created an invitation", "建立邀請"),
    ("invitation.delete", "Withdrew an invitation", "撤回邀請"),
    ("job.claim", "Claimed a job", "領取工作"),
    ("job.complete", "Completed a job", "完成工作"),
    ("job.expire", "Took a job back from a silent worker", "收回逾時的工作"),
    ("job.fail", "Reported a failed job", "回報工作失敗"),
    ("job.heartbeat", "Reported progress of a job", "回報工作進度"),
    ("job.retry", "Retried a job", "重試工作"),
    ("mapping.delete", "Deleted a role mapping", "刪除角色對應"),
    ("mapping.replace", "Set a role mapping", "設定角色對應"),
    ("member.activate", "Activated a member", "啟用成員"),
    ("member.arrive", "Joined through a provider", "經由登入服務加入"),
    ("member.confirm", "Confirmed an e-mail address", "確認電子郵件"),
    ("member.create", "Created a member", "建立成員"),
    ("member.create_first_administrator", "Created the first administrator", "建立第一位管理員"),
    ("member.deactivate", "Suspended a member", "將成員停權"),
    ("member.delete", "Erased a member", "刪除成員"),
    ("member.ensure_authentik", "Stored a member of authentik", "儲存 authentik 的成員"),
    ("member.follow_wordpress", "Took a change over from WordPress", "套用 WordPress 的變更"),
    ("member.lapse", "Removed an unconfirmed registration", "移除未確認的註冊"),
    ("member.link", "Linked a member to an organization", "將成員加入組織"),
    ("member.password_link", "Created a password link", "建立設定密碼的連結"),
    ("member.register", "Registered", "註冊"),
    ("member.unlink", "Removed a member from an organization", "將成員移出組織"),
    ("member.update", "Changed a member", "變更成員"),
    ("member.update_self", "Changed the own profile", "變更自己的個人資料"),
    ("member.upsert_by_sub", "Stored a member of authentik", "儲存 authentik 的成員"),
    ("organization.activate", "Activated an organization", "啟用組織"),
    ("organization.create", "Created an organization", "建立組織"),
    ("organization.deactivate", "Deactivated an organization", "停用組織"),
    ("organization.found_platform", "Created the built-in organization", "建立內建組織"),
    ("organization.update", "Changed an organization", "變更組織"),
    ("organization_quota.update", "Changed an organization's quota", "變更組織的配額"),
    ("password.change", "Changed the password", "變更密碼"),
    ("password.forgot", "Asked for a password link", "索取設定密碼的連結"),
    ("password.mail_link", "Mailed a password link", "寄送設定密碼的連結"),
    ("password.reset", "Set a new password by link", "以連結設定新密碼"),
    ("plugin.activate", "Activated a plugin", "啟用外掛"),
    ("plugin.deactivate", "Deactivated a plugin", "停用外掛"),
    ("plugin.delete", "Deleted a plugin", "刪除外掛"),
    ("plugin.delete_version", "Deleted a version of a plugin", "刪除外掛版本"),
    ("plugin.quarantine", "Put a plugin into quarantine", "隔離外掛"),
    ("plugin.roll_back", "Rolled a plugin back", "復原外掛"),
    ("plugin.upload", "Uploaded a plugin", "上傳外掛"),
    ("policy.replace", "Rebuilt the policy", "重新建立權限規則"),
    ("quota.exceed", "Exceeded a quota", "超過配額"),
    ("quota.free", "Was below the quota again", "恢復到配額以內"),
    ("quota.repair", "Corrected usage", "修正用量"),
    ("quota.update", "Changed a quota", "變更配額"),
    ("reservation.commit", "Completed an upload", "完成上傳"),
    ("reservation.create", "Reserved space for an upload", "保留上傳空間"),
    ("reservation.release", "Gave reserved space back", "釋出保留空間"),
    ("role.create", "Created a role", "建立角色"),
    ("role.delete", "Deleted a role", "刪除角色"),
    ("role.grant", "Changed what a role holds", "變更角色的權限"),
    ("role.update", "Changed a role", "變更角色"),
    ("second_factor.begin", "Began to set up a second factor", "開始設定第二因素驗證"),
    ("second_factor.confirm", "Set up a second factor", "設定第二因素驗證"),
    ("second_factor.remove", "Removed the second factor", "移除第二因素驗證"),
    ("second_factor.renew_recovery_codes", "Made new recovery codes", "建立新的備用碼"),
    ("second_factor.reset", "Removed a member's second factor", "移除成員的第二因素驗證"),
    ("second_factor.use", "Used the second factor", "使用第二因素驗證"),
    ("session.create", "Signed in", "登入"),
    ("session.end", "Signed out", "登出"),
    ("session.end_all", "Signed out everywhere", "登出所有裝置"),
    ("session.end_reused", "Ended a session whose token was used twice", "結束權杖遭重複使用的工作階段"),
    ("session.expire", "Removed expired sessions", "移除過期的工作階段"),
    ("session.forget_device", "Forgot a remembered device", "忘記裝置"),
    ("session.renew", "Renewed a session", "更新工作階段"),
    ("setup_link.create", "Created a set-up link", "建立設定連結"),
    ("sftpgo.reconcile", "Reconciled SFTPGo", "調整 SFTPGo"),
    ("signing_key.create", "Created a signing key", "建立簽署金鑰"),
    ("signing_key.delete", "Deleted a signing key", "刪除簽署金鑰"),
    ("task.cancel", "Cancelled a background task", "取消背景工作"),
    ("user.create", "Created a member", "建立成員"),
    ("user.delete", "Erased a member", "刪除成員"),
    ("user.import", "Imported members", "匯入成員"),
    ("user.update", "Changed a member", "變更成員"),
    ("video.claim", "Assigned videos to their owners", "將影片歸給擁有者"),
    ("video.delete", "Deleted a video", "刪除影片"),
    ("video.import", "Imported videos", "匯入影片"),
    ("video.register", "Registered a video", "登錄影片"),
    ("video.transfer", "Transferred a video", "移轉影片"),
    ("webhook.create", "Created a webhook", "建立 webhook"),
    ("webhook.delete", "Deleted a webhook", "刪除 webhook"),
    ("webhook.rotate", "Rotated the secret of a webhook", "輪替 webhook 的密鑰"),
    ("webhook.switch_off", "Switched a webhook off", "停用 webhook"),
    ("webhook.test", "Tested a webhook", "測試 webhook"),
    ("webhook.update", "Changed a webhook", "變更 webhook"),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn actions_have_a_text_in_both_languages() {
        let known: HashSet<&str> = ALL.iter().map(|(action, ..)| *action).collect();
        assert_eq!(known.len(), ALL.len());
        assert_eq!(text("session.create", Language::English), "Signed in");
        assert_eq!(text("session.create", Language::Chinese), "登入");
        assert_eq!(text("thing.do_it", Language::Chinese), "Thing do it");
    }
}
