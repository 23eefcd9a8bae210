//! The texts of the pages about settings and keys, and what each setting means in Chinese.

use super::{Language, words};

words! {
    pub Settings {
        title: "Settings", "設定";
        about: "What is in force now. Settings are changed in the file below or by environment variables, and take effect after a restart unless it says otherwise.", "這是目前生效的值。請在下列檔案或環境變數中變更設定；除非另有說明，重新啟動後才會生效。";
        file: "Settings file", "設定檔";
        groups: "All settings", "所有設定";
        group: "Group", "群組";
        server: "The server", "伺服器";
        only_changed: "Only changed ones", "只顯示已變更的";
        changed: "Changed from the default", "與預設值不同";
        changed_count: "{} of {} settings differ from their default.", "{} 個設定與預設值不同，共 {} 個設定。";
        found_count: "{} of {} settings found.", "找到 {} 個設定，共 {} 個。";
        empty: "empty", "空白";
        none_changed: "Every setting has its default", "所有設定都是預設值";
        none_changed_text: "Choose a group below to see what can be set.", "請在下方選擇群組，查看可以設定的項目。";
        none_found: "No setting fits", "沒有符合的設定";
        none_found_text: "Search for part of a name or of its meaning, or look at all groups.", "請以名稱或說明的一部分搜尋，或查看所有群組。";
        name: "Setting", "設定";
        value: "Value", "值";
        default: "Default", "預設值";
        source: "Comes from", "來源";
        source_default: "default", "預設值";
        source_file: "settings file", "設定檔";
        source_environment: "environment", "環境變數";
        source_command_line: "command line", "命令列";
        meaning: "Meaning", "說明";
        kind: "Type", "型別";
        bounds: "Allowed", "允許範圍";
        from_to: "{} to {}", "{} 到 {}";
        unit: "Unit", "單位";
        secret: "Secret", "密鑰";
        secret_set: "set", "已設定";
        secret_missing: "not set", "未設定";
        restart: "A change needs", "變更後";
        restart_yes: "a restart", "需要重新啟動";
        restart_no: "only SIGHUP: the file is read again", "只需 SIGHUP：會重新讀取設定檔";
        line: "Line for the settings file", "設定檔中的寫法";
        variable: "Environment variable", "環境變數";
        manual: "In the manual", "使用手冊";
        providers: "Identity providers", "登入服務";
        providers_about: "The blocks [[oidc]] of the settings file.", "設定檔中的 [[oidc]] 區塊。";
        issuer: "Issuer", "發行者";
        client: "Client", "用戶端";
        maintenance: "Maintenance", "維護";
        reload: "Reload the policy", "重新載入權限規則";
        reload_about: "Compares the rights in memory with the database and replaces what differs. Normally nothing differs. Requests are answered meanwhile.", "比對記憶體與資料庫中的權限規則，並更正不同之處。正常情況下不會有差異，期間仍可處理請求。";
        reloaded_same: "The policy in memory equalled the database.", "記憶體中的權限規則與資料庫一致。";
        reloaded: "The policy differed from the database and was replaced. Please report this.", "權限規則與資料庫不同，已更正。請回報這個問題。";
        recount: "Recount the quotas", "重新計算用量";
        recount_about: "Compares the usage of every member and organization with its ledger and its videos.", "以明細與影片核對每位成員與每個組織的用量。";
        count: "Count", "計算";
        repair: "Count and correct", "計算並更正";
        rotate_encryption: "Rotate the encryption key", "輪替加密金鑰";
        rotate_encryption_about: "Encrypts all stored secrets with a new key.", "以新的金鑰重新加密所有儲存的密鑰。";
        rotate_encryption_first: "A new key is written into {}, and all secrets in the database are encrypted with it at once.", "新的金鑰會寫入 {}，並立即用來重新加密資料庫中的所有密鑰。";
        rotate_encryption_backups: "Backups made until now need the present key. Keep a copy of it with them.", "先前的備份仍需要目前的金鑰，請將它與備份一起保存。";
        rotate_encryption_others: "Nobody is signed out, and nothing has to be set up again.", "不會登出任何人，也不需要重新設定。";
        encryption_rotated: "The encryption key was rotated. The new key is {}.", "已輪替加密金鑰，新的金鑰編號是 {}。";
        accounts_same: "All accounts are correct.", "所有用量都正確。";
        accounts_differ: "{} accounts differ.", "{} 個帳戶不一致。";
        accounts_repaired: "{} accounts differed and were corrected.", "已更正 {} 個不一致的帳戶。";
        counted: "Counted", "已計算";
        counted_what: "{} members, {} organizations, {} videos", "{} 位成員、{} 個組織、{} 部影片";
        account: "Account", "帳戶";
        used: "Counted usage", "紀錄的用量";
        by_ledger: "By the ledger", "依明細";
        by_videos: "By the videos", "依影片";
        of_site: "the site", "站台";
    }
}

words! {
    pub SigningKeys {
        title: "Signing keys", "簽署金鑰";
        about: "Access tokens are signed with the newest key. Earlier ones are still accepted for a while, so that nobody is signed out.", "存取權杖以最新的金鑰簽署；先前的金鑰在一段時間內仍會接受，因此不會登出任何人。";
        published: "Services that verify tokens read the public keys here:", "驗證權杖的服務從這裡讀取公開金鑰：";
        id: "Key", "金鑰";
        state: "State", "狀態";
        signs: "signs", "簽署中";
        accepted: "still accepted", "仍接受";
        created: "Created", "建立時間";
        ends: "Accepted until", "接受至";
        automatic: "A key is rotated by itself after {} days (auth.signing_key_ttl_s).", "金鑰使用 {} 天後會自動輪替（auth.signing_key_ttl_s）。";
        by_hand: "Keys are rotated only by hand: auth.signing_key_ttl_s is 0.", "金鑰只會手動輪替：auth.signing_key_ttl_s 為 0。";
        rotate: "Rotate the signing key", "輪替簽署金鑰";
        what_new: "A new key signs all tokens from now on.", "之後的權杖都以新的金鑰簽署。";
        what_kept: "The present key is published and accepted for {} more hours, so nobody is signed out.", "目前的金鑰仍會公開並接受 {} 小時，因此不會登出任何人。";
        what_others: "Services that keep the public keys must read them again before they see a token of the new key. Most do so when they meet an unknown key.", "自行保存公開金鑰的服務，必須在收到新金鑰簽署的權杖前重新讀取；多數服務遇到未知金鑰時會自動讀取。";
        what_final: "The rotation cannot be taken back.", "輪替後無法復原。";
        rotated: "The signing key was rotated.", "已輪替簽署金鑰。";
    }
}

/// What a setting means, in the reader's language. `about` is the English meaning.
pub fn meaning<'t>(name: &str, about: &'t str, language: Language) -> &'t str {
    let chinese = || CHINESE.iter().find(|(known, _)| *known == name).map(|(_, text)| *text);
    match language {
        Language::English => about,
        Language::Chinese => chinese().unwrap_or(about),
    }
}

#[rustfmt::skip]
const CHINESE: &[(&str, &str)] = &[
    ("listen", "伺服器監聽的位址；連接埠 0 表示任一可用的連接埠"),
    ("public_url", "站台的公開網址，結尾不加斜線；空白表示使用監聽位址"),
    ("base_path", "API 在公開網址下的路徑；若代理會移除 public_url 的路徑，請設為空白或 /"),
    ("debug", "在 500 回應中加入內部原因並提高記錄層級；切勿用於正式環境"),
    ("internal_secret_file", "存放 X-Internal-Secret 密鑰的檔案，每行一個，最多兩個；ROSTER_INTERNAL_SECRET（以逗號分隔兩個）優先"),
    ("encryption_key_file", "加密 roster.db 中密鑰的金鑰檔，64 個十六進位數字；空白表示資料目錄中的 encryption.key，隨站台建立"),
    ("metrics_token_file", "存放 /metrics 權杖的檔案；未設定時只有本機 socket 提供"),
    ("trusted_proxies", "信任其 X-Forwarded-For 的代理；來自其他位址的一律忽略"),
    ("tls.mode", "伺服器本身的 TLS：off 用於本機或已有 TLS 的代理之後；files 使用 tls.cert_file 的憑證；local 使用 `roster tls local` 產生的憑證"),
    ("tls.cert_file", "含憑證與憑證鏈的 PEM 檔；每分鐘及收到 SIGHUP 時重新讀取"),
    ("tls.key_file", "tls.cert_file 的私密金鑰 PEM 檔"),
    ("gateways", "不需內部密鑰即信任其 X-Tenant-ID 與 X-UID 的閘道"),
    ("docs.title", "OpenAPI 文件與文件頁的標題"),
    ("docs.description", "文件的前言，以 Markdown 撰寫；空白表示 Roster 的說明"),
    ("docs.contact_name", "API 開發者的聯絡人姓名"),
    ("docs.contact_email", "docs.contact_name 的電子郵件"),
    ("docs.contact_url", "本站給開發者的頁面"),
    ("cors.origins", "瀏覽器可帶憑證送出請求的來源，須完全相符"),
    ("log.format", "記錄的格式"),
    ("log.level", "error、warn、info、debug 或 trace，也可依目標設定，例如 `info,roster=debug`"),
    ("log.queue", "可等待寫入的記錄行數；超過的會捨棄並計數"),
    ("auth.issuer", "存取權杖的 `iss`；空白表示公開網址"),
    ("auth.audience", "存取權杖的 `aud`"),
    ("auth.access_token_ttl_s", "存取權杖的有效時間（秒）"),
    ("auth.refresh_grace_s", "剛輪替的更新權杖在這段時間內（秒）仍回傳同一個後繼權杖，供兩個分頁同時更新"),
    ("auth.session_idle_s", "工作階段這段時間（秒）未更新即結束"),
    ("auth.session_ttl_s", "工作階段最長的有效時間（秒）"),
    ("auth.signing_key_ttl_s", "簽署金鑰使用多久（秒）後自動輪替；0 表示只由 `roster signing-key rotate` 輪替"),
    ("auth.signing_key_overlap_s", "先前的簽署金鑰仍公開並接受的時間（秒）；至少等於存取權杖的有效時間"),
    ("auth.slow_window_s", "計算登入失敗次數的時間範圍（秒）"),
    ("auth.slow_account_failures", "同一帳號登入失敗達此次數後放慢"),
    ("auth.slow_address_failures", "同一位址登入失敗達此次數後放慢"),
    ("auth.second_factor_wait_s", "等待以第二因素完成登入的時間（秒）"),
    ("auth.second_factor_tries", "第二因素代碼錯誤達此次數後須重新登入"),
    ("signin.remember_s", "第二因素驗證後可記住裝置的時間（秒）；0 表示不記住"),
    ("signin.title", "登入頁上的站台名稱"),
    ("signin.order", "登入頁上各種登入方式的順序"),
    ("signin.logo_file", "登入頁的圖片檔：SVG 或 PNG，最大 64 KiB"),
    ("signin.request_ttl_s", "登入後仍會回到原本頁面的時間（秒）"),
    ("signin.password", "在登入頁提供密碼表單；關閉後只剩其他登入方式"),
    ("auth.reset_link_ttl_s", "重設密碼連結的有效時間（秒）"),
    ("auth.invitation_ttl_s", "邀請的有效時間（秒）"),
    ("auth.registration", "允許以電子郵件驗證碼自行註冊；需要郵件設定"),
    ("auth.email_code_ttl_s", "電子郵件驗證碼的有效時間（秒）"),
    ("auth.email_code_tries", "電子郵件驗證碼錯誤達此次數後失效"),
    ("auth.oidc_state_ttl_s", "OIDC 登入從轉向到返回的最長時間（秒）"),
    ("auth.oidc_keys_ttl_s", "登入服務的探索文件與金鑰的快取時間（秒）"),
    ("auth.oidc_keys_retry_s", "因未知金鑰編號而重新讀取登入服務金鑰的最短間隔（秒）"),
    ("auth.setup_link_ttl_s", "一次性設定連結的有效時間（秒）"),
    ("auth.client_rotation_overlap_s", "用戶端輪替密鑰後，先前的密鑰仍有效的時間（秒）"),
    ("password.memory_kib", "新密碼雜湊的 argon2id 記憶體（KiB）"),
    ("password.iterations", "新密碼雜湊的 argon2id 迭代次數"),
    ("password.parallelism", "新密碼雜湊的 argon2id 平行度"),
    ("password.parallel_max", "同時計算的密碼雜湊上限；其餘等待"),
    ("password.wait_ms", "登入等待計算密碼雜湊的最長時間（毫秒），逾時則回覆忙碌"),
    ("wordpress.url", "WordPress 一般設定中的網站位址，結尾不加斜線；除非在本機，否則須為 https"),
    ("wordpress.ticket_secret_file", "必用外掛簽署票券所用密鑰的檔案"),
    ("wordpress.username", "用來讀取使用者的 WordPress 管理員帳號；空白表示使用必用外掛送來的資料"),
    ("wordpress.password_file", "wordpress.username 的應用程式密碼檔"),
    ("wordpress.organization", "來自 WordPress 的成員所屬組織的 org_code；空白表示不屬於任何組織"),
    ("authentik.url", "Authentik 管理 API 的位址，結尾不加斜線"),
    ("authentik.token_file", "Authentik API 權杖檔；其擁有者須能查看、新增與變更使用者"),
    ("mail.host", "SMTP 伺服器；空白表示停用郵件"),
    ("mail.port", "mail.host 的連接埠；starttls 多為 587，tls 多為 465"),
    ("mail.security", "與 mail.host 連線的保護方式：STARTTLS、一開始就用 TLS，或不保護（只允許本機的伺服器）"),
    ("mail.username", "SMTP 伺服器的帳號；空白表示不需帳號"),
    ("mail.password_file", "mail.username 的密碼檔"),
    ("mail.ca_file", "mail.host 額外信任的憑證授權單位 PEM 檔；系統的一律信任"),
    ("mail.from", "所有郵件的寄件者，例如 `Roster <roster@example.org>`"),
    ("mail.language", "郵件的語言"),
    ("neighbours.timeout_ms", "對外部系統單一請求的最長時間（毫秒）"),
    ("neighbours.answer_bytes", "讀取外部系統回應的大小上限（位元組）"),
    ("neighbours.failures", "連續失敗達此次數後，暫停對該外部系統的請求"),
    ("neighbours.pause_s", "達到 neighbours.failures 後暫停請求的時間（秒）"),
    ("neighbours.test_ms", "測試外部系統連線的最長時間（毫秒）"),
    ("api_keys.notice_s", "API 金鑰到期前多久（秒）寄出通知"),
    ("limits.body_bytes", "請求內容的大小上限（位元組）"),
    ("limits.public_body_bytes", "未登入者的請求內容大小上限（位元組）"),
    ("limits.sign_in_bytes", "登入請求的大小上限（位元組）：/auth 之下，以及設定、重設密碼與邀請頁"),
    ("limits.bytes_in_flight", "記憶體中所有已登入者請求內容的總量上限（位元組），超過則回覆忙碌。單一組織或程式可用一半，未登入者另有四分之一"),
    ("limits.body_nodes", "JSON 內容中值的數量上限，含清單與物件內的值；匯入的文件適用 limits.document_nodes"),
    ("limits.catalog_bytes", "可匯入的目錄或 OpenAPI 文件大小上限（位元組）"),
    ("limits.catalog_entries", "目錄中所有應用程式的權限數量上限"),
    ("limits.document_depth", "匯入的目錄或 OpenAPI 文件中清單與物件的巢狀層數上限"),
    ("limits.document_nodes", "匯入的目錄或 OpenAPI 文件中值的數量上限，YAML 別名會展開計算"),
    ("limits.body_wait_ms", "接收請求內容的最長時間（毫秒）"),
    ("limits.body_rate_bytes_s", "傳送請求內容的最低速率（每秒位元組），每 5 秒計算一次"),
    ("limits.handshake_wait_ms", "TLS 交握的最長時間（毫秒），從連線開始計算"),
    ("limits.head_wait_ms", "接收請求標頭的最長時間（毫秒），從連線或 TLS 交握開始計算；持續連線則從第一個位元組開始"),
    ("limits.head_bytes", "請求標頭的大小上限（位元組）"),
    ("limits.idle_wait_ms", "兩個請求之間連線可閒置的時間（毫秒）"),
    ("limits.answer_wait_ms", "用戶端未讀取回應，或低於 limits.answer_rate_bytes_s 的最長時間（毫秒），逾時關閉連線"),
    ("limits.answer_rate_bytes_s", "用戶端讀取回應的最低速率（每秒位元組），以 limits.answer_wait_ms 為區間計算"),
    ("limits.answers_in_flight", "用戶端尚未讀取的回應總量上限（位元組）；超過時關閉未讀取的連線"),
    ("limits.connections", "網路連線數上限；超過時關閉等待用戶端最久的連線。若系統允許的開啟檔案較少，會自動調低並記錄"),
    ("limits.connections_per_address", "單一位址的連線數上限（IPv6 以 /64 計），且不超過 limits.connections 的四分之一；trusted_proxies 除外"),
    ("limits.members", "站台的成員數上限，不含已刪除者"),
    ("limits.members_per_organization", "單一組織建立或邀請的成員數上限，含之後離開者；0 表示在多個組織時為 limits.members 的一半"),
    ("limits.organizations", "站台的組織數上限"),
    ("limits.roles", "單一組織的角色數上限"),
    ("limits.role_mappings", "單一組織的角色對應數上限"),
    ("limits.api_clients", "站台的 API 用戶端數上限"),
    ("limits.sessions_per_member", "單一成員的工作階段數上限；新的會結束最久未使用的"),
    ("limits.api_keys_per_member", "單一成員的 API 金鑰數上限"),
    ("limits.service_keys", "服務的 API 金鑰數上限"),
    ("limits.invitations", "單一組織開放中的邀請數上限"),
    ("limits.grants", "站台的直接授權數上限"),
    ("plugins.large_organizations", "外掛可使用大型執行環境（例如 Python）的組織 org_code，適用 plugins.large 的限制；`*` 表示全部"),
    ("plugins.per_organization", "單一組織的外掛數上限"),
    ("plugins.versions", "單一外掛的版本數上限"),
    ("plugins.bytes", "單一組織所有元件的總量（位元組），超過即拒絕上傳"),
    ("plugins.uploads_per_min", "單一組織每分鐘上傳外掛的次數上限，含被拒絕的"),
    ("plugins.file_bytes", "元件的大小上限（位元組）"),
    ("plugins.memory_bytes", "單次呼叫的記憶體上限（位元組），元件的所有記憶體合計"),
    ("plugins.authorize_fuel", "單次 authorize 呼叫的指令數（fuel）上限"),
    ("plugins.authorize_ms", "單次 authorize 呼叫的執行時間上限（毫秒），不含排隊時間"),
    ("plugins.map_roles_fuel", "單次 map-roles 呼叫的指令數（fuel）上限"),
    ("plugins.map_roles_ms", "單次 map-roles 呼叫的執行時間上限（毫秒），不含排隊時間"),
    ("plugins.compile_cpu_s", "編譯單一元件的 CPU 時間上限（秒）"),
    ("plugins.compile_bytes", "編譯單一元件的記憶體上限（位元組）"),
    ("plugins.artifact_bytes", "編譯後元件的大小上限（位元組）"),
    ("plugins.large.file_bytes", "大型執行環境的 plugins.file_bytes"),
    ("plugins.large.memory_bytes", "大型執行環境的 plugins.memory_bytes"),
    ("plugins.large.authorize_fuel", "大型執行環境的 plugins.authorize_fuel"),
    ("plugins.large.authorize_ms", "大型執行環境的 plugins.authorize_ms"),
    ("plugins.large.map_roles_fuel", "大型執行環境的 plugins.map_roles_fuel"),
    ("plugins.large.map_roles_ms", "大型執行環境的 plugins.map_roles_ms"),
    ("plugins.large.compile_cpu_s", "大型執行環境的 plugins.compile_cpu_s"),
    ("plugins.large.compile_bytes", "大型執行環境的 plugins.compile_bytes"),
    ("plugins.large.artifact_bytes", "大型執行環境的 plugins.artifact_bytes"),
    ("plugins.compile_queue", "編譯中或等待編譯的上傳數上限；一次編譯一個"),
    ("plugins.compile_queue_per_organization", "單一組織在其中的上傳數上限；組織之間依已用的編譯時間公平排隊"),
    ("plugins.input_bytes", "單次呼叫的輸入長度上限（位元組）"),
    ("plugins.output_bytes", "單次呼叫的結果與記錄的位元組上限"),
    ("plugins.log_lines", "單次呼叫保留的記錄行數上限"),
    ("plugins.log_bytes", "單次呼叫保留的記錄位元組上限"),
    ("plugins.log_kept", "單一外掛保留在記憶體的記錄行數上限"),
    ("plugins.calls", "所有組織同時執行的呼叫數上限"),
    ("plugins.calls_per_organization", "單一組織同時執行的呼叫數上限"),
    ("plugins.wait_ms", "呼叫等待開始的最長時間（毫秒），逾時則回覆忙碌"),
    ("plugins.fast_us", "單次呼叫的 CPU 時間（微秒）超過此值時，該版本改在背景執行緒執行，直到恢復快速"),
    ("plugins.request_us", "單一請求的所有外掛可在請求執行緒上使用的時間（微秒）；其餘改在背景執行緒"),
    ("plugins.failures", "在 plugins.failures_window_s 內失敗達此次數即隔離該版本：不再呼叫，其適用範圍一律拒絕"),
    ("plugins.failures_window_s", "計算外掛失敗次數的時間範圍（秒）"),
    ("plugins.loaded_bytes", "記憶體中編譯後元件的總量上限（位元組）；最久未使用的會卸載，呼叫時再讀取"),
    ("plugins.loaded_bytes_per_organization", "單一組織在記憶體中的編譯後元件上限（位元組）"),
    ("plugins.cache_bytes", "磁碟上編譯後元件的總量上限（位元組）；最久未使用的會刪除，需要時重新編譯"),
    ("plugins.cache_bytes_per_organization", "單一組織在磁碟上的編譯後元件上限（位元組）"),
    ("media_root", "存放影片的資料夾，其中每位成員一個以 SFTPGo 名稱命名的資料夾；空白表示不測量大小"),
    ("quota.default_bytes", "成員的預設配額（位元組），除非組織或管理員另行設定"),
    ("quota.reservation_ttl_s", "預留空間的保留時間（秒）"),
    ("quota.reservations", "單一成員開放中的預留數上限"),
    ("limits.videos", "站台的影片數上限"),
    ("videos.ignored_names", "不視為影片的檔案與資料夾名稱，適用於 SFTPGo 與 `roster video import`；`*` 表示任意文字，不分大小寫"),
    ("limits.video_path_bytes", "影片路徑的長度上限（位元組）"),
    ("limits.import_files", "單次匯入影片讀取的檔案數上限"),
    ("limits.import_bytes", "匯入成員的檔案大小上限（位元組）"),
    ("limits.import_rows", "單次匯入的成員數上限"),
    ("jobs.lease_s", "工作者未回報時保有工作的時間（秒）"),
    ("jobs.attempts", "嘗試達此次數後工作停止，直到手動重試"),
    ("jobs.backoff_s", "第二次嘗試前的等待時間（秒），之後每次加倍"),
    ("jobs.processors", "同時處理同一工作的處理器數上限"),
    ("jobs.keep_s", "完成的工作保留的時間（秒）"),
    ("jobs.wait_s", "領取工作時等待的最長時間（秒）"),
    ("jobs.waiting", "同時等待工作的領取數上限"),
    ("jobs.waiting_per_caller", "單一程式或單一組織所有成員同時等待工作的領取數上限"),
    ("jobs.claim", "單次領取的工作數上限"),
    ("outbox.attempts", "事件對單一目標的傳送嘗試達此次數後放棄，直到手動重試；其他值為預設時約三天"),
    ("outbox.backoff_s", "第二次傳送嘗試前的等待時間（秒），之後每次加倍"),
    ("outbox.backoff_max_s", "兩次傳送嘗試之間的最長等待時間（秒）"),
    ("outbox.ttl_s", "完成或放棄的傳送保留的時間（秒）"),
    ("limits.webhooks", "單一組織的 webhook 數上限；站台的 webhook 適用相同上限"),
    ("webhooks.private_hosts", "webhook 可連線的本機或私有網路主機，例如 `n8n.lan`，或只限一個連接埠的 `127.0.0.1:5678`"),
    ("webhooks.rotation_overlap_s", "webhook 輪替後也以先前密鑰簽署的時間（秒）"),
    ("hooks.sftpgo_key_file", "SFTPGo 的 hook 以 X-Hook-Key 或網址中的密碼送出的金鑰檔"),
    ("hooks.wordpress_key_file", "必用外掛簽署事件所用金鑰的檔案"),
    ("hooks.age_max_s", "接受 WordPress 已簽署事件的最長時間差（秒）"),
    ("sftpgo.url", "SFTPGo REST API 的位址，含 /api/v2，結尾不加斜線；空白表示停用帳號佈建"),
    ("sftpgo.username", "用來取得權杖的 SFTPGo 管理員；若 sftpgo.secret_file 是 API 金鑰則留空"),
    ("sftpgo.secret_file", "sftpgo.username 的密碼檔，或 API 金鑰檔"),
    ("sftpgo.home", "SFTPGo 使用者的家目錄，例如 /srv/media/{username}；空白表示媒體根目錄中以名稱命名的資料夾"),
    ("sftpgo.delete", "成員刪除時一併刪除 SFTPGo 使用者；否則只停用"),
    ("sftpgo.reconcile_s", "比對 SFTPGo 使用者與成員的間隔（秒）"),
    ("decisions.queue", "等待寫入判定紀錄的判定數上限；超過時捨棄等待最多的組織的一筆並計數"),
    ("decisions.rows", "判定紀錄的筆數上限；超過時刪除最多的組織中最舊的"),
    ("decisions.bytes", "判定紀錄的位元組上限；超過時刪除最多的組織中最舊的"),
    ("decisions.ttl_s", "判定保留在紀錄中的時間（秒）"),
    ("decisions.allow_every", "允許的判定每幾筆記錄一筆；1 表示全部，0 表示不記錄。拒絕與觀察中外掛結果不同的一律記錄"),
    ("db.readers", "SQLite 的讀取連線數"),
    ("db.read_wait_ms", "讀取等待連線的最長時間（毫秒），逾時則回覆忙碌"),
    ("db.read_queue", "單一呼叫者等待連線的讀取數上限；超過則回覆忙碌。組織與呼叫者之間公平排隊"),
    ("db.read_ms", "單次讀取的最長時間（毫秒），逾時中斷並回覆忙碌"),
    ("db.write_queue", "等待寫入的變更數上限"),
    ("db.write_wait_ms", "變更等待寫入佇列空位的最長時間（毫秒），逾時則回覆忙碌"),
    ("db.write_batch", "單次提交的變更數上限"),
    ("tasks.kept", "保留的背景工作數上限"),
    ("tasks.running", "同時執行的背景工作數上限"),
    ("tasks.ttl_s", "完成的背景工作保留的時間（秒）"),
    ("tasks.bytes", "保留的背景工作結果總量上限（位元組）"),
    ("limits.policy_reload_gap_s", "單一組織兩次重新載入權限規則的最短間隔（秒），其間回傳上次的結果；0 表示不限制"),
    ("limits.idempotency_ttl_s", "Idempotency-Key 保存的時間（秒）"),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::kernel::config::Config;

    #[test]
    fn every_setting_has_a_meaning_in_both_languages() {
        let known: HashSet<&str> = CHINESE.iter().map(|(name, _)| *name).collect();
        let all: HashSet<&str> = Config::described().iter().map(|setting| setting.name).collect();
        assert_eq!((known.len(), &known), (CHINESE.len(), &all));
        assert_eq!(meaning("debug", "In English", Language::English), "In English");
        assert_eq!(meaning("log.format", "In English", Language::Chinese), "記錄的格式");
    }
}
