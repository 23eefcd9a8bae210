//! The texts of the pages about connections to external systems.

use maud::{Markup, html};

use super::{Language, fill, words};

words! {
    pub Connections {
        title: "Connections", "連線";
        about: "The systems this site talks to, and how its requests went since the last start. A test sends a harmless request now.", "本站所連接的外部系統。此處顯示自上次啟動以來的請求結果；「測試」會立即送出一個無害的請求。";
        test: "Test", "測試";
        test_all: "Test all", "全部測試";
        test_one: "Test {}", "測試 {}";
        mail: "Mail", "郵件";
        webhooks: "Webhooks", "Webhook";
        working: "working", "正常";
        failing: "failing", "失敗";
        paused: "paused", "暫停中";
        not_configured: "not set up", "尚未設定";
        unknown: "not used yet", "尚未使用";
        address: "Address", "位址";
        last_success: "Last success", "上次成功";
        failing_since: "Failing since", "開始失敗";
        paused_until: "No requests until", "暫停請求至";
        never: "not since the start", "啟動後尚無";
        waiting: "{} waiting", "{} 筆等待中";
        given_up: "{} given up", "{} 筆已放棄";
        said: "It says", "對方訊息";
        todo: "What to do", "處理方式";
        settings: "Settings", "設定";
        is_set: "set", "已設定";
        is_not_set: "not set", "未設定";
        steps: "Set it up", "設定步驟";
        step_secret: "Put the secret into a file of its own: run this as the user that runs Roster, paste the secret, and press Enter and Ctrl+D.", "將密鑰存入專用檔案：以執行 Roster 的使用者身分執行以下指令，貼上密鑰後按 Enter 與 Ctrl+D。";
        step_lines: "Put these lines, with your own values, at the end of", "將以下內容改成您的值，加到此檔案的最後：";
        step_check: "Check the settings. With one that is wrong, Roster does not start.", "檢查設定。設定有誤時 Roster 無法啟動。";
        step_restart: "Restart Roster when the check finds nothing wrong.", "檢查無誤後重新啟動 Roster。";
        step_test: "Press Test on the page Connections.", "在「連線」頁面按「測試」。";
        no_webhooks: "There are no webhooks yet. An organization has them on its page Webhooks.", "尚無 Webhook。請在組織的「Webhook」頁面建立。";
        worked: "The test of {} succeeded ({} ms).", "「{}」測試成功（{} 毫秒）。";
        failed: "The test of {} failed: {}", "「{}」測試失敗：{}";
        tested: "Tested {}: {} working, {} failing.", "已測試 {} 個：{} 個正常，{} 個失敗。";
        nothing_to_test: "Nothing is set up yet.", "尚未設定任何連線。";
        all_connections: "All connections", "所有連線";
        deliveries: "Deliveries", "傳送";
        state_pending: "Waiting", "等待中";
        state_dead: "Given up", "已放棄";
        event: "Event", "事件";
        at: "Time", "時間";
        attempts: "Attempts", "嘗試次數";
        next_at: "Next attempt", "下次嘗試";
        error: "Error", "錯誤";
        retry: "Deliver again", "重新傳送";
        retried: "Queued: it is sent now.", "已排入佇列，立即傳送。";
        no_deliveries: "No such deliveries", "沒有這類傳送";
        no_deliveries_text: "Nothing waits here.", "目前沒有等待的項目。";
    }
}

words! {
    /// The tile of the overview.
    pub Health {
        given_up: "Deliveries given up", "已放棄的傳送";
        failing: "{} failing", "{} 筆失敗中";
        connections: "Connections", "連線";
        fails: "failing", "失敗";
        no_success_since: "no success since", "開始失敗於";
        one_waits: "1 delivery waits", "1 筆傳送等待中";
        many_wait: "{} deliveries wait", "{} 筆傳送等待中";
        all_well: "Every event was delivered or is on its way.", "所有事件皆已送達或傳送中。";
    }
}

words! {
    pub Differences {
        users: "Accounts and members", "帳號與成員";
        sftpgo_about: "Compares all users of SFTPGo with the members. Nothing is changed.", "比對 SFTPGo 的所有使用者與成員，不會變更任何資料。";
        wordpress_about: "Compares all accounts of WordPress with the members. Nothing is changed.", "比對 WordPress 的所有帳號與成員，不會變更任何資料。";
        compare: "Compare", "比對";
        counted: "{} members have a name at SFTPGo; SFTPGo has {} users.", "{} 位成員有 SFTPGo 名稱；SFTPGo 有 {} 位使用者。";
        looked_at: "{} accounts were read.", "已讀取 {} 個帳號。";
        same: "Nothing differs", "沒有差異";
        same_text: "Accounts and members agree.", "帳號與成員一致。";
        account: "Account", "帳號";
        what: "What differs", "差異";
        ours: "Here", "本站";
        theirs: "There", "對方";
        then: "What happens", "處理";
        and_more: "and {} more", "另有 {} 項";
        missing: "has no user at SFTPGo", "SFTPGo 沒有這位使用者";
        missing_then: "is created", "建立";
        orphaned: "belongs to an erased member", "屬於已刪除的成員";
        orphaned_then: "is disabled, or deleted if sftpgo.delete is set", "停用；若設定 sftpgo.delete 則刪除";
        conflict: "names another member", "標記為其他成員";
        foreign: "belongs to no member", "不屬於任何成員";
        stays: "stays as it is", "維持不變";
        differs_then: "is set to our value", "改為本站的值";
        scan_then: "SFTPGo counts again", "由 SFTPGo 重新計算";
        new: "has no member", "沒有對應的成員";
        new_then: "a member is created", "建立成員";
        changed: "the member lacks: {}", "成員缺少：{}";
        changed_then: "the member gets it", "補到成員";
        gone: "no longer exists at WordPress", "WordPress 已無此帳號";
        gone_then: "the member is suspended", "將成員停權";
        unlinked: "a member has the same name", "有成員使用相同名稱";
        unlinked_then: "link it at the member", "請在成員頁面連結";
        odd: "cannot be read: {}", "無法讀取：{}";
        bring: "Bring in line", "同步一致";
        bring_sftpgo: "Bring SFTPGo in line with the members?", "要讓 SFTPGo 與成員一致嗎？";
        bring_sftpgo_1: "Missing users are created, and those that differ get the values of Roster.", "缺少的使用者會建立，有差異的會改為 Roster 的值。";
        bring_sftpgo_2: "Users of erased members are disabled, or deleted if sftpgo.delete is set. Files stay.", "已刪除成員的使用者會停用，若設定 sftpgo.delete 則刪除。檔案會保留。";
        bring_sftpgo_3: "Users that belong to no member stay as they are.", "不屬於任何成員的使用者維持不變。";
        bring_wordpress: "Bring the members in line with WordPress?", "要讓成員與 WordPress 一致嗎？";
        bring_wordpress_1: "Each new account gets a member, and roles follow the role mappings.", "新帳號會建立成員，角色依角色對應更新。";
        bring_wordpress_2: "Members whose account is gone are suspended, at most 50 at once.", "帳號已不存在的成員會停權，一次最多 50 位。";
        bring_wordpress_3: "Values that members have are kept, and nobody is linked by name.", "成員已有的值會保留，不會依名稱連結。";
        mended: "Brought in line", "已同步";
        not_mended: "Failed", "失敗";
        scans: "Quota scans started", "已開始的配額計算";
        again: "Compare again", "再次比對";
        more_pages: "There are more accounts: the comparison stopped here.", "還有更多帳號：比對在此停止。";
    }
}

words! {
    /// What to do by the cause. A gap is the setting with the address.
    Remedies {
        wordpress_unauthorized: "WordPress does not accept the application password. Create a new one in the profile of the account that wordpress.username names, put it into the file of wordpress.password_file, and restart Roster. If WordPress itself does not use https, or a security plugin forbids them, application passwords are off.", "WordPress 不接受應用程式密碼。請在 wordpress.username 帳號的個人資料建立新的密碼，寫入 wordpress.password_file 所指的檔案，然後重新啟動 Roster。若 WordPress 未使用 https，或安全外掛停用了應用程式密碼，則無法使用。";
        sftpgo_unauthorized: "SFTPGo does not accept the credentials: the password or the API key was changed. Put the new one into the file of sftpgo.secret_file, and restart Roster. sftpgo.username is empty only for an API key.", "SFTPGo 不接受帳密：密碼或 API 金鑰已變更。請將新的內容寫入 sftpgo.secret_file 所指的檔案，然後重新啟動 Roster。只有使用 API 金鑰時 sftpgo.username 才留空。";
        oidc_unauthorized: "The provider does not accept this client. Check client_id and the file of client_secret_file in its [[oidc]] block, and restart Roster.", "登入服務不接受這個用戶端。請檢查 [[oidc]] 區塊中的 client_id 與 client_secret_file 檔案，然後重新啟動 Roster。";
        authentik_unauthorized: "Authentik does not know the token, or it has expired. Create a new one, put it into the file of authentik.token_file, and restart Roster.", "Authentik 不認得這個權杖，或已過期。請建立新的權杖，寫入 authentik.token_file 所指的檔案，然後重新啟動 Roster。";
        mail_unauthorized: "The SMTP server does not accept the sign-in. Check mail.username and the file of mail.password_file, and restart Roster. Many providers want a password made for programs.", "SMTP 伺服器不接受登入。請檢查 mail.username 與 mail.password_file 檔案，然後重新啟動 Roster。許多郵件服務需要應用程式專用密碼。";
        wordpress_forbidden: "The account in wordpress.username may not do this. Give it the role Administrator at WordPress, and let security plugins allow it the REST API.", "wordpress.username 的帳號沒有權限。請在 WordPress 給予管理員角色，並讓安全外掛允許 REST API。";
        sftpgo_forbidden: "The administrator in sftpgo.username lacks a permission at SFTPGo. It needs add_users, edit_users, del_users, view_users and quota_scans, and an API key must be allowed for it.", "sftpgo.username 的管理員在 SFTPGo 缺少權限：需要 add_users、edit_users、del_users、view_users 與 quota_scans，並允許使用 API 金鑰。";
        authentik_forbidden: "The owner of the token in authentik.token_file must be allowed to view, add and change users at Authentik. A token that has expired is refused in the same way: a test tells which it is.", "authentik.token_file 權杖的擁有者，必須能在 Authentik 查看、新增與變更使用者。過期的權杖也會得到相同的拒絕：測試可分辨是哪一種。";
        forbidden: "It refuses this request. A firewall or a proxy in front of the address in {} may forbid it.", "對方拒絕此請求。{} 位址前方的防火牆或代理伺服器可能禁止了它。";
        wordpress_not_found: "There is no REST API at this address. wordpress.url must be the Site Address of WordPress; permalinks must not be “Plain”, and no plugin may switch the REST API off.", "這個位址沒有 REST API。wordpress.url 必須是 WordPress 的網站網址；固定網址不可為「純文字」，也不可有外掛停用 REST API。";
        sftpgo_not_found: "There is no REST API at this address. sftpgo.url ends with /api/v2.", "這個位址沒有 REST API。sftpgo.url 的結尾是 /api/v2。";
        oidc_not_found: "There is no discovery document. issuer in the [[oidc]] block must be exactly the issuer that the provider shows, also its path.", "找不到探索文件。[[oidc]] 區塊的 issuer 必須與登入服務所示完全相同，包含路徑。";
        not_found: "Nothing is at this address. Correct the path in {}, and restart Roster.", "這個位址沒有內容。請修正 {} 的路徑，然後重新啟動 Roster。";
        redirected: "It redirects to another address, and Roster sends secrets only to the one in the settings. Set {} to the other address, mostly with https:// or with or without www, and restart Roster.", "對方轉址，而密鑰不會送往他處。請將 {} 設為轉址後的位址（通常是 https://，或有無 www），然後重新啟動 Roster。";
        rate_limited: "It takes no more requests from this machine for now. Wait, or raise its limit for this machine.", "對方暫時不再接受本機的請求。請稍候，或在對方提高本機的限額。";
        server_error: "The system itself failed. Look into its log. Roster tries again by itself.", "對方本身發生錯誤，請查看對方的記錄檔。Roster 會自動重試。";
        mail_server_error: "The SMTP server puts mail off for now. Roster tries again by itself.", "SMTP 伺服器暫時不收信。Roster 會自動重試。";
        unexpected_answer: "Something else answers, such as a proxy, a cache or another service. Open the address in {} from this machine, and see what is there.", "回應的是其他東西，例如代理伺服器、快取或別的服務。請從本機開啟 {} 的位址查看。";
        oidc_unexpected_answer: "What answers is not this provider, or it calls itself otherwise. issuer in the [[oidc]] block must be written exactly as in the discovery document of the provider. A proxy or a cache may also stand in between.", "回應的不是這個登入服務，或其名稱不同。[[oidc]] 區塊的 issuer 必須與登入服務探索文件中的寫法完全相同；也可能是代理伺服器或快取介於其間。";
        mail_unexpected_answer: "The server does not offer what the settings want. Check mail.port and mail.security: mostly 587 with starttls, or 465 with tls.", "伺服器不支援設定所需的功能。請檢查 mail.port 與 mail.security：通常為 587 搭配 starttls，或 465 搭配 tls。";
        certificate: "Its certificate is not trusted, has expired, or is for another name. Renew it, or write the name of the certificate into {}. The system of this machine must trust an authority of your own.", "憑證不受信任、已過期，或屬於其他名稱。請更新憑證，或在 {} 使用憑證上的名稱。自有憑證機構須由本機系統信任。";
        mail_certificate: "Its certificate is not trusted, has expired, or is for another name than mail.host. Name an authority of your own in mail.ca_file, and restart Roster.", "憑證不受信任、已過期，或與 mail.host 名稱不符。自有憑證機構請設定在 mail.ca_file，然後重新啟動 Roster。";
        clock: "The clocks of the two machines differ, so signatures and certificates count as not valid. Let both set their clocks by NTP.", "兩台機器的時鐘不一致，簽章與憑證會被視為無效。請讓兩邊都以 NTP 校時。";
        name_not_resolved: "The name of the host is unknown. Correct it in {}, or the name server of this machine.", "找不到主機名稱。請修正 {}，或本機的名稱伺服器。";
        refused: "Nothing listens there. Start the service, or correct the port in {}. In a container, 127.0.0.1 is the container itself.", "沒有服務在監聽。請啟動服務，或修正 {} 的連接埠。在容器中，127.0.0.1 是容器本身。";
        unreachable: "The network does not lead there, or breaks off. Check the address in {}, the network, and firewalls between the machines.", "網路無法連到對方，或連線中斷。請檢查 {} 的位址、網路，以及兩台機器之間的防火牆。";
        timeout: "It does not answer in time. It is overloaded, or a firewall drops the packets. Check it, and the address in {}.", "對方沒有及時回應：可能負載過重，或防火牆丟棄封包。請檢查對方，以及 {} 的位址。";
        paused: "Too many requests failed in a row, so none are sent for a while. A test that succeeds ends the pause.", "連續失敗次數過多，暫時不再送出請求。測試成功即可結束暫停。";
        unknown: "Test it: the answer names the cause.", "請測試：回應會指出原因。";
        webhooks: "Open the deliveries to see which webhook fails. Each webhook has a test of its own on the page of its organization.", "請開啟傳送清單查看是哪個 Webhook 失敗。每個 Webhook 都可在其組織的頁面個別測試。";
    }
}

/// The sentences that say what to do about a connection of this kind, by its state and remedy.
pub fn remedies(kind: &str, state: &str, remedy: Option<&str>, language: Language) -> Vec<String> {
    let t = Remedies::of(language);
    let address = match kind {
        "wordpress" => "wordpress.url",
        "sftpgo" => "sftpgo.url",
        "oidc" => "[[oidc]] issuer",
        "authentik" => "authentik.url",
        _ => "mail.host",
    };
    let sentence = match (remedy, kind) {
        (Some("not_configured"), _) => None,
        (Some("unauthorized"), "wordpress") => Some(t.wordpress_unauthorized),
        (Some("unauthorized"), "sftpgo") => Some(t.sftpgo_unauthorized),
        (Some("unauthorized"), "oidc") => Some(t.oidc_unauthorized),
        (Some("unauthorized"), "authentik") => Some(t.authentik_unauthorized),
        (Some("unauthorized"), _) => Some(t.mail_unauthorized),
        (Some("forbidden"), "wordpress") => Some(t.wordpress_forbidden),
        (Some("forbidden"), "sftpgo") => Some(t.sftpgo_forbidden),
        (Some("forbidden"), "authentik") => Some(t.authentik_forbidden),
        (Some("forbidden"), _) => Some(t.forbidden),
        (Some("not_found"), "wordpress") => Some(t.wordpress_not_found),
        (Some("not_found"), "sftpgo") => Some(t.sftpgo_not_found),
        (Some("not_found"), "oidc") => Some(t.oidc_not_found),
        (Some("not_found"), _) => Some(t.not_found),
        (Some("redirected"), _) => Some(t.redirected),
        (Some("rate_limited"), _) => Some(t.rate_limited),
        (Some("server_error"), "mail") => Some(t.mail_server_error),
        (Some("server_error"), _) => Some(t.server_error),
        (Some("unexpected_answer"), "oidc") => Some(t.oidc_unexpected_answer),
        (Some("unexpected_answer"), "mail") => Some(t.mail_unexpected_answer),
        (Some("unexpected_answer"), _) => Some(t.unexpected_answer),
        (Some("certificate"), "mail") => Some(t.mail_certificate),
        (Some("certificate"), _) => Some(t.certificate),
        (Some("clock"), _) => Some(t.clock),
        (Some("name_not_resolved"), _) => Some(t.name_not_resolved),
        (Some("refused"), _) => Some(t.refused),
        (Some("unreachable"), _) => Some(t.unreachable),
        (Some("timeout"), _) => Some(t.timeout),
        (None, "webhooks") if state == "failing" => Some(t.webhooks),
        (None, _) if state == "failing" => Some(t.unknown),
        _ => None,
    };
    let paused = (state == "paused").then_some(t.paused);
    paused.into_iter().chain(sentence).map(|text| fill(text, &[&address])).collect()
}

/// What Roster itself says about a delivery, and the same in Chinese. A gap has no spaces.
#[rustfmt::skip]
const FAILURES: &[(&str, &str)] = &[
    ("it cannot be reached: name, port and certificate may be wrong, or it is down", "無法連線：名稱、連接埠或憑證可能有誤，或對方未在執行"),
    ("the connection was interrupted", "連線中斷"),
    ("it took longer than {} ms", "超過 {} 毫秒沒有完成"),
    ("its URL cannot be parsed", "網址格式不正確"),
    ("its host has an address that webhooks do not reach: see webhooks.private_hosts", "Webhook 不連往此主機的位址：請見 webhooks.private_hosts"),
    ("the webhook was deleted", "Webhook 已刪除"),
    ("the webhook is inactive", "Webhook 已暫停"),
    ("its organization is not active", "所屬組織未啟用"),
    ("it answered 410, which switched the webhook off", "對方回應 410，Webhook 因此停用"),
    ("it answered {}: redirects are not followed", "對方回應 {}：不跟隨轉址"),
    ("it answered {}: does sftpgo.url redirect?", "對方回應 {}：sftpgo.url 是否轉址？"),
    ("it answered 401: are sftpgo.username and sftpgo.secret_file right?", "對方回應 401：sftpgo.username 與 sftpgo.secret_file 是否正確？"),
    ("it answered {}", "對方回應 {}"),
    ("it answered about another user", "對方的回應是關於另一位使用者"),
    ("its answer contains no token", "對方的回應沒有權杖"),
    ("{} failed {} times in a row: no requests are sent to it for a while", "{} 連續失敗 {} 次：暫時不再送出請求"),
    ("SFTPGo is switched off: set sftpgo.url and sftpgo.secret_file", "SFTPGo 未啟用：請設定 sftpgo.url 與 sftpgo.secret_file"),
    ("the member had no name at SFTPGo", "成員當時沒有 SFTPGo 名稱"),
    ("the member has no name at SFTPGo", "成員沒有 SFTPGo 名稱"),
    ("the SFTPGo username cannot be a folder name", "SFTPGo 使用者名稱無法作為資料夾名稱"),
    ("this name cannot be part of a URL", "此名稱無法用於網址"),
    ("there is no account to disable", "沒有需要停用的帳號"),
    ("the account exists, but was not found", "帳號已存在，但找不到"),
    ("an account of this name exists and names another member in additional_info: clear that, or choose another name", "已有同名帳號，且其 additional_info 屬於另一位成員：請清除該欄位，或改用其他名稱"),
    ("the account is up to date", "帳號已是最新"),
    ("the account no longer exists", "帳號已不存在"),
    ("the account with this name belongs to another member", "此名稱的帳號屬於另一位成員"),
    ("the account is disabled already", "帳號已停用"),
    ("mail is switched off: set mail.host", "郵件未啟用：請設定 mail.host"),
    ("the member is not active", "成員未啟用"),
    ("the member has no e-mail", "成員沒有電子郵件"),
    ("no mail is sent for this event, or its creator lacks the right now", "此事件不寄送郵件，或建立者目前沒有權限"),
    ("the server took too long", "伺服器回應過慢"),
    ("set wordpress.url, wordpress.username and wordpress.password_file", "請設定 wordpress.url、wordpress.username 與 wordpress.password_file"),
    ("the member has no account at WordPress", "成員沒有 WordPress 帳號"),
    ("the WordPress plugin is too old for suspensions: install packaging/wordpress/roster-events.php again", "WordPress 外掛版本過舊，不支援停權：請重新安裝 packaging/wordpress/roster-events.php"),
    ("there is no such account at WordPress", "WordPress 沒有此帳號"),
    ("wordpress.username may not edit users", "wordpress.username 沒有編輯使用者的權限"),
    ("WordPress answered {}", "WordPress 回應 {}"),
    ("this version of Roster does not know this target", "此版本的 Roster 不認得這個對象"),
];

/// The values of the gaps, if the text is this sentence.
fn gaps<'t>(sentence: &str, text: &'t str) -> Option<Vec<&'t str>> {
    let mut parts = sentence.split("{}");
    let mut rest = text.strip_prefix(parts.next()?)?;
    let mut found = Vec::new();
    for part in parts {
        let end = rest.find(|c: char| c.is_whitespace() || (c == ':' && part.starts_with(':'))).unwrap_or(rest.len());
        let (value, after) = rest.split_at(end);
        found.push(value);
        rest = after.strip_prefix(part)?;
    }
    (rest.is_empty() && found.iter().all(|value| !value.is_empty())).then_some(found)
}

/// The sentence in Chinese, with its gaps; `None` if these are not words of Roster.
fn known_failure(text: &str) -> Option<(&'static str, Vec<&str>)> {
    FAILURES.iter().find_map(|(sentence, chinese)| gaps(sentence, text).map(|found| (*chinese, found)))
}

/// Whether these are words of Roster without an address in them.
pub fn is_without_address(text: &str) -> bool {
    known_failure(text).is_some_and(|(_, gaps)| gaps.iter().all(|gap| gap.chars().all(|c| c.is_ascii_digit())))
}

/// What `last_error` says: words of Roster in this language, and others as they are.
pub fn failure(text: &str, language: Language) -> String {
    match (language, known_failure(text)) {
        (Language::Chinese, Some((chinese, gaps))) => {
            let gaps: Vec<&dyn std::fmt::Display> = gaps.iter().map(|gap| gap as &dyn std::fmt::Display).collect();
            fill(chinese, &gaps)
        }
        _ => text.to_owned(),
    }
}

/// The same as markup, in which words of others are marked as English.
pub fn failure_markup(text: &str, language: Language) -> Markup {
    let is_foreign = language == Language::Chinese && known_failure(text).is_none();
    html! { @if is_foreign { span lang="en" { (text) } } @else { (failure(text, language)) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_a_sentence_for_every_kind_that_names_a_setting_of_it() {
        let document: serde_json::Value = serde_json::from_str(
            &std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json")).expect("document"),
        )
        .expect("JSON");
        let causes = document["components"]["schemas"]["ConnectionRemedy"]["enum"].as_array().expect("causes");
        for cause in causes.iter().filter_map(|cause| cause.as_str()).filter(|cause| *cause != "not_configured") {
            for kind in ["wordpress", "sftpgo", "oidc", "authentik", "mail"] {
                for language in Language::ALL {
                    let found = remedies(kind, "failing", Some(cause), language);
                    assert_eq!(found.len(), 1, "{kind} {cause}");
                    assert!(!found[0].contains("{}"), "{}", found[0]);
                }
            }
        }
        assert_eq!(remedies("sftpgo", "paused", Some("refused"), Language::English).len(), 2);
        assert_eq!(remedies("sftpgo", "working", None, Language::English), [""; 0]);
        assert_eq!(remedies("webhooks", "failing", None, Language::English).len(), 1);
    }

    #[test]
    fn words_of_roster_are_translated_and_others_stay() {
        let origin = "http://127.0.0.1:8080";
        let paused = format!("{origin} failed 5 times in a row: no requests are sent to it for a while");
        for (text, chinese, is_public) in [
            ("the member has no name at SFTPGo", "成員沒有 SFTPGo 名稱", true),
            ("it answered 503", "對方回應 503", true),
            ("it answered 301: redirects are not followed", "對方回應 301：不跟隨轉址", true),
            ("it took longer than 400 ms", "超過 400 毫秒沒有完成", true),
            (&paused, "http://127.0.0.1:8080 連續失敗 5 次：暫時不再送出請求", false),
            ("it answered 400: bad home", "it answered 400: bad home", false),
            ("it answered", "it answered", false),
        ] {
            assert_eq!(failure(text, Language::Chinese), chinese);
            assert_eq!((failure(text, Language::English).as_str(), is_without_address(text)), (text, is_public));
        }
    }

    #[test]
    fn every_translated_sentence_is_one_that_roster_says() {
        let read = |file: &str| {
            let path = format!("{}/src/{file}", env!("CARGO_MANIFEST_DIR"));
            std::fs::read_to_string(path).expect("a file of the source")
        };
        let files = [
            "features/webhooks/sender.rs",
            "features/webhooks/address.rs",
            "integrations/sftpgo/mod.rs",
            "integrations/sftpgo/client.rs",
            "integrations/wordpress/status.rs",
            "integrations/mail.rs",
            "kernel/outbound/mail.rs",
            "kernel/outbound/mod.rs",
            "server/deliver.rs",
        ];
        let source: String = files.map(read).concat();
        // A long sentence goes on in the next line.
        let source = source.split("\\\n").map(str::trim_start).collect::<Vec<_>>().concat();
        for (sentence, chinese) in FAILURES {
            assert!(sentence.split("{}").all(|part| source.contains(part)), "{sentence}");
            assert_eq!(sentence.matches("{}").count(), chinese.matches("{}").count(), "{sentence}");
        }
    }
}
