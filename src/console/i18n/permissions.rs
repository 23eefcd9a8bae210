//! What Roster's own permissions mean, in the reader's language.

use super::Language;
use crate::kernel::authz::permission::BUILTIN_PERMISSIONS;

/// The meaning of one of Roster's own permissions; `None` for a permission of another application.
pub fn meaning(name: &str, language: Language) -> Option<&'static str> {
    let builtin = BUILTIN_PERMISSIONS.iter().find(|known| known.name == name)?;
    match language {
        Language::English => Some(builtin.about),
        Language::Chinese => {
            CHINESE.iter().find(|(known, _)| *known == name).map(|(_, text)| *text).or(Some(builtin.about))
        }
    }
}

const CHINESE: &[(&str, &str)] = &[
    ("roster", "Roster 本身"),
    ("roster.member", "成員"),
    ("roster.member.list", "列出成員"),
    ("roster.member.create", "建立成員"),
    ("roster.member.get", "查看成員"),
    ("roster.member.update", "變更成員"),
    ("roster.member.delete", "刪除成員的個人資料"),
    ("roster.member.activate", "啟用成員"),
    ("roster.member.deactivate", "將成員停權"),
    ("roster.member.password_link", "建立設定成員密碼的一次性連結"),
    ("roster.member.reset_second_factor", "移除成員的第二因素驗證"),
    ("roster.member.list_sessions", "列出成員的工作階段"),
    ("roster.member.end_sessions", "結束成員的所有工作階段"),
    ("roster.member.end_session", "結束成員的一個工作階段"),
    ("roster.member.list_api_keys", "列出成員的 API 金鑰"),
    ("roster.member.create_api_key", "為成員建立 API 金鑰"),
    ("roster.member.delete_api_key", "撤銷成員的 API 金鑰"),
    ("roster.member.rotate_api_key", "輪替成員的 API 金鑰"),
    ("roster.member.list_organizations", "列出成員所屬的組織"),
    ("roster.member.link", "將成員加入組織"),
    ("roster.member.link_by_name", "以編號或代碼將成員加入組織"),
    ("roster.member.unlink", "將成員移出組織"),
    ("roster.invitation", "邀請"),
    ("roster.invitation.list", "列出邀請"),
    ("roster.invitation.create", "建立邀請連結"),
    ("roster.invitation.delete", "撤回邀請"),
    ("roster.organization", "組織"),
    ("roster.organization.list", "列出組織"),
    ("roster.organization.create", "建立組織"),
    ("roster.organization.get", "查看組織"),
    ("roster.organization.update", "變更組織"),
    ("roster.organization.activate", "啟用組織"),
    ("roster.organization.deactivate", "停用組織"),
    ("roster.grant", "直接授權"),
    ("roster.grant.create", "直接授予權限"),
    ("roster.grant.delete", "撤銷直接授予的權限"),
    ("roster.role", "角色"),
    ("roster.role.list", "列出角色"),
    ("roster.role.create", "建立角色"),
    ("roster.role.get", "查看角色"),
    ("roster.role.update", "變更角色"),
    ("roster.role.delete", "刪除角色"),
    ("roster.role.list_permissions", "查看角色擁有的權限"),
    ("roster.role.grant", "取代角色擁有的權限"),
    ("roster.role.list_members", "查看擁有角色的成員"),
    ("roster.assignment", "角色指派"),
    ("roster.assignment.list", "查看成員的角色"),
    ("roster.assignment.create", "指派角色"),
    ("roster.assignment.delete", "撤銷角色"),
    ("roster.assignment.sync", "將成員的角色與外部來源同步"),
    ("roster.mapping", "角色對應"),
    ("roster.mapping.list", "列出角色對應"),
    ("roster.mapping.replace", "設定角色對應"),
    ("roster.mapping.delete", "刪除角色對應"),
    ("roster.policy", "權限規則"),
    ("roster.policy.check", "查詢成員能否做某件事"),
    ("roster.policy.reload", "從資料庫重新建立權限規則"),
    ("roster.policy.list_decisions", "讀取判定紀錄"),
    ("roster.policy.import_catalog", "匯入權限目錄"),
    ("roster.plugin", "外掛：組織自訂的規則"),
    ("roster.plugin.list", "列出外掛"),
    ("roster.plugin.get", "查看外掛的版本與統計"),
    ("roster.plugin.log", "讀取外掛的記錄"),
    ("roster.plugin.upload", "上傳外掛的版本"),
    ("roster.plugin.run", "試執行外掛，不產生影響"),
    ("roster.plugin.activate", "啟用外掛的版本"),
    ("roster.plugin.deactivate", "停用外掛"),
    ("roster.plugin.roll_back", "將外掛復原到前一個版本"),
    ("roster.plugin.delete", "刪除外掛及其所有版本"),
    ("roster.plugin.delete_version", "刪除外掛的一個版本"),
    ("roster.video", "影片"),
    ("roster.video.list", "列出他人的影片"),
    ("roster.video.get", "查看他人的影片"),
    ("roster.video.delete", "刪除他人的影片"),
    ("roster.video.transfer", "將影片移轉給其他成員"),
    ("roster.video.claim", "將沒有擁有者的影片歸給資料夾的擁有者"),
    ("roster.video.import", "匯入媒體根目錄下的檔案"),
    ("roster.quota", "配額"),
    ("roster.quota.list", "列出成員的儲存用量"),
    ("roster.quota.ledger", "查看成員儲存用量的明細"),
    ("roster.quota.update", "變更成員的配額"),
    ("roster.quota.usage", "查看總用量與用量最多的成員"),
    ("roster.quota.set_ceiling", "變更組織的配額"),
    ("roster.quota.recount", "以明細與影片核對所有用量"),
    ("roster.job", "工作"),
    ("roster.job.list", "列出工作"),
    ("roster.job.get", "查看工作"),
    ("roster.job.count", "統計工作數"),
    ("roster.job.claim", "領取要處理的工作"),
    ("roster.job.heartbeat", "回報工作進度"),
    ("roster.job.complete", "回報工作完成"),
    ("roster.job.fail", "回報工作失敗"),
    ("roster.job.retry", "重試已放棄的工作"),
    ("roster.user", "成員及其所有資料"),
    ("roster.user.list", "列出成員及其配額"),
    ("roster.user.create", "建立成員，含配額、外部名稱與 API 金鑰"),
    ("roster.user.import", "匯入成員，含配額與外部名稱"),
    ("roster.user.get", "查看成員及其配額"),
    ("roster.user.update", "變更成員、配額與外部名稱"),
    ("roster.user.delete", "刪除成員，包含外部系統中的帳號"),
    ("roster.outbox", "事件與傳送"),
    ("roster.outbox.list", "列出傳送"),
    ("roster.outbox.retry", "重試已放棄的傳送"),
    ("roster.outbox.list_webhooks", "列出 webhook"),
    ("roster.outbox.create_webhook", "建立 webhook"),
    ("roster.outbox.update_webhook", "變更 webhook"),
    ("roster.outbox.test_webhook", "測試 webhook"),
    ("roster.outbox.rotate_webhook", "輪替 webhook 的密鑰"),
    ("roster.outbox.delete_webhook", "刪除 webhook"),
    ("roster.neighbour", "SFTPGo 與 WordPress"),
    ("roster.neighbour.sftpgo_drift", "查看 SFTPGo 使用者與成員的差異"),
    ("roster.neighbour.sftpgo_reconcile", "將 SFTPGo 使用者調整為與成員一致"),
    ("roster.neighbour.wordpress_sync", "比對 WordPress 使用者與成員"),
    ("roster.client", "API 用戶端"),
    ("roster.client.list", "列出 API 用戶端"),
    ("roster.client.create", "建立 API 用戶端"),
    ("roster.client.get", "查看 API 用戶端"),
    ("roster.client.update", "變更 API 用戶端"),
    ("roster.client.delete", "刪除 API 用戶端"),
    ("roster.client.rotate", "輪替 API 用戶端的密鑰"),
    ("roster.api_key", "服務的 API 金鑰"),
    ("roster.api_key.list", "列出服務的 API 金鑰"),
    ("roster.api_key.create", "為服務建立 API 金鑰"),
    ("roster.api_key.delete", "撤銷服務的 API 金鑰"),
    ("roster.api_key.rotate", "輪替服務的 API 金鑰"),
    ("roster.signing_key", "簽署金鑰"),
    ("roster.signing_key.list", "列出簽署金鑰"),
    ("roster.signing_key.rotate", "建立新的簽署金鑰"),
    ("roster.encryption_key", "加密金鑰"),
    ("roster.encryption_key.rotate", "為資料庫中的密鑰建立新的加密金鑰"),
    ("roster.audit", "稽核紀錄"),
    ("roster.audit.list", "讀取稽核紀錄"),
    ("roster.audit.export", "匯出稽核紀錄"),
    ("roster.audit.verify", "驗證稽核紀錄的雜湊鏈"),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_permission_of_roster_has_a_meaning_in_both_languages() {
        let known: HashSet<&str> = CHINESE.iter().map(|(name, _)| *name).collect();
        let all: HashSet<&str> = BUILTIN_PERMISSIONS.iter().map(|known| known.name).collect();
        assert_eq!((known.len(), &known), (CHINESE.len(), &all));
        assert_eq!(meaning("roster.video", Language::English), Some("Videos"));
        assert_eq!(meaning("roster.video", Language::Chinese), Some("影片"));
        assert_eq!(meaning("video.list", Language::Chinese), None);
    }
}
