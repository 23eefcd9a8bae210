//! What each scope of keys and API clients opens, in a sentence.

use super::Language;

/// The sentence about a scope; `None` for a text that is no scope.
pub fn about(scope: &str, language: Language) -> Option<&'static str> {
    ALL.iter().find(|(known, ..)| *known == scope).map(|(_, english, chinese)| language.pick(english, chinese))
}

const ALL: &[(&str, &str, &str)] = &[
    ("me:read", "Its owner's own profile and rights.", "讀取擁有者自己的資料與權限。"),
    (
        "members:read",
        "Lists members with names, e-mail and organizations; sees invitations.",
        "列出成員的姓名、電子郵件與所屬組織，並查看邀請。",
    ),
    (
        "members:write",
        "Also invites, creates, imports, changes, suspends and erases members, and makes password links.",
        "另可邀請、建立、匯入、變更、停權與刪除成員，並建立密碼連結。",
    ),
    ("organizations:read", "Lists organizations and their settings.", "列出組織及其設定。"),
    (
        "organizations:write",
        "Also creates, changes, activates and deactivates organizations.",
        "另可建立、變更、啟用與停用組織。",
    ),
    ("permissions:read", "Lists direct grants.", "列出直接授權。"),
    (
        "permissions:write",
        "Also gives and takes direct grants, and synchronizes roles from an external source.",
        "另可授予與撤銷直接授權，並從外部來源同步角色。",
    ),
    (
        "permissions:check",
        "Asks whether a member may do something. Gateways and services need only this.",
        "查詢成員是否可以做某件事；閘道與服務只需要這一項。",
    ),
    ("videos:read", "Lists videos with path, size and owner.", "列出影片的路徑、大小與擁有者。"),
    (
        "videos:write",
        "Also registers, imports, transfers and deletes videos. Upload services need it.",
        "另可登錄、匯入、移轉與刪除影片；上傳服務需要這一項。",
    ),
    ("quotas:read", "Sees how much is stored, and the quotas.", "查看用量與配額。"),
    ("quotas:write", "Also sets quotas, and reserves space before an upload.", "另可設定配額，並在上傳前保留空間。"),
    ("jobs:read", "Lists processing jobs and their states.", "列出處理工作與狀態。"),
    (
        "jobs:write",
        "Also takes jobs, reports their results and retries them. Workers need it.",
        "另可領取工作、回報結果與重試；處理程式需要這一項。",
    ),
    (
        "audit:read",
        "Reads and exports the audit log, with who did what and from where.",
        "讀取與匯出稽核紀錄，包含操作者、動作與來源位址。",
    ),
    ("audit:write", "Opens nothing more than reading today.", "目前除了讀取之外沒有其他作用。"),
    ("*", "All of the above, also what comes later. Avoid it.", "以上全部，包含未來新增的範圍；請避免使用。"),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::ALL;
    use crate::console::schema::{self, FieldKind};

    #[test]
    fn every_scope_of_a_request_is_explained_once() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json");
        let document = serde_json::from_str(&std::fs::read_to_string(path).expect("the document")).expect("JSON");
        let known: HashSet<&str> = ALL.iter().map(|(scope, ..)| *scope).collect();
        assert_eq!(known.len(), ALL.len());
        let operations = schema::read(&document);
        let scopes: HashSet<&str> = operations
            .values()
            .flat_map(|operation| operation.field("scopes"))
            .filter_map(|field| if let FieldKind::List(values) = &field.kind { Some(values) } else { None })
            .flatten()
            .map(String::as_str)
            .collect();
        assert_eq!(known, scopes);
    }
}
