//! The texts of the pages of plugins, and what to do about each refusal of an upload.

use super::{Language, words};

words! {
    pub Plugins {
        title: "Plugins", "外掛";
        about: "Rules of this organization: WebAssembly components that decide requests or give roles, in a sandbox.", "這個組織自訂的規則：在沙箱中判定請求或授予角色的 WebAssembly 元件。";
        name: "Name", "名稱";
        state: "State", "狀態";
        in_force: "In force", "使用中";
        kind: "Kind", "種類";
        versions: "Versions", "版本數";
        since: "Since", "起始時間";
        inactive: "Not active", "未啟用";
        now_denied: "What it covers is denied.", "它涵蓋的請求目前都會被拒絕。";
        now_silent: "It is no longer called.", "目前不再呼叫它。";
        authorizer: "Decides requests", "判定請求";
        role_mapper: "Gives roles", "授予角色";
        empty_title: "No plugin yet", "尚無外掛";
        empty_text: "Roles say who may do what. A plugin adds what roles cannot say: office hours, ownership, embargoes, or roles from groups of a provider. This makes a project that builds:", "角色決定誰能做什麼；外掛補上角色無法表達的規則，例如上班時間、擁有權、禁播期限，或依登入服務的群組授予角色。以下指令會建立一個可以直接建置的專案：";
        empty_readonly: "Somebody with the permission to upload can add one.", "擁有上傳權限的人可以新增。";
        examples: "Five examples come with the source of Roster:", "Roster 的原始碼附有五個範例：";
        hours: "denies everything outside of business hours", "拒絕上班時間以外的所有請求";
        ownership: "denies changes to videos of other members", "拒絕變更其他成員的影片";
        embargo: "denies publishing a video before its date", "拒絕在日期之前發布影片";
        groups: "gives roles by groups of Zitadel and Keycloak", "依 Zitadel 與 Keycloak 的群組授予角色";
        department: "gives roles by the claim “department”", "依宣告「department」授予角色";
        learn: "How plugins work", "外掛的運作方式";
    }
}

words! {
    pub Upload {
        title: "Upload a plugin", "上傳外掛";
        more: "Upload a new version", "上傳新版本";
        file: "Component (.wasm)", "元件（.wasm）";
        drop: "Choose the file, or drop it anywhere on this page. Nothing changes before you enforce it.", "選擇檔案，或將檔案拖放到頁面任何位置。在強制之前不會有任何影響。";
        name: "Name", "名稱";
        name_about: "Lower-case letters, digits and hyphens. Empty: named like the file. A name that exists gets a new version.", "小寫字母、數字與連字號。留空則以檔名命名；若名稱已存在，會成為新版本。";
        upload: "Upload", "上傳";
        no_file: "Choose a file.", "請選擇檔案。";
        uploaded: "{} v{} is uploaded.", "已上傳 {} v{}。";
        ready: "{} v{} passed all checks. It has no effect yet.", "{} v{} 通過所有檢查，目前尚無任何影響。";
        failed_vectors: "{} v{} is stored, but fails {} of its own test vectors, so it cannot be activated. Correct the rule or the vectors, and upload it again.", "{} v{} 已儲存，但有 {} 個自己的測試向量沒有通過，因此無法啟用。請修正規則或向量後重新上傳。";
        what_next: "Ask what it would have changed before you let it decide.", "在讓它判定之前，先查詢它會改變哪些過去的判定。";
        open: "Open the plugin", "開啟外掛";
        again: "Upload again", "重新上傳";
        cure: "What to do", "處理方式";
        cancelled: "The upload was cancelled. Nothing was stored.", "上傳已取消，沒有儲存任何內容。";
    }
}

words! {
    pub Plugin {
        covers: "Covers", "涵蓋範圍";
        everything: "every request for which roles are asked", "所有依角色判定的請求";
        every_sync: "every sign-in and sync of roles", "每次登入與角色同步";
        may_grant: "May grant what no role grants", "可授予角色未授予的權限";
        deadline: "Time for one answer", "單次回答時間";
        by_settings: "as the settings allow", "依設定";
        calls: "Answers", "回答";
        no_calls: "not asked yet", "尚未被詢問";
        differed: "Would have ended otherwise", "結果會不同";
        see_differed: "See them", "查看";
        by_day: "Logged decisions by day", "每日記錄的判定";
        denied_by_plugins: "Denied by plugins", "被外掛拒絕";
        limits: "Limits of one call, since its activation", "單次呼叫的限制（啟用以來）";
        time: "Time", "時間";
        fuel: "Instructions", "指令數";
        memory: "Memory", "記憶體";
        time_text: "at most {} of {} ms, {} on average", "最多 {}／{} 毫秒，平均 {} 毫秒";
        fuel_text: "at most {} of {}, {} on average", "最多 {}／{}，平均 {}";
        memory_text: "at most {} of {}", "最多 {}／{}";
        slow: "{} took more than {} ms of CPU time", "{} 次使用超過 {} 毫秒的 CPU 時間";
        in_ms: "{} ms", "{} 毫秒";
        nothing: "No version is active: the plugin has no effect.", "沒有啟用的版本：外掛目前沒有任何影響。";
        version: "Version", "版本";
        version_n: "Version {}", "版本 {}";
        versions: "Versions", "版本";
        state: "State", "狀態";
        kind: "Kind", "種類";
        digest: "Digest (SHA-256)", "SHA-256 摘要";
        digest_short: "Digest", "摘要";
        by: "Uploaded by", "上傳者";
        when: "Uploaded", "上傳時間";
        newest: "Version {} is newer.", "版本 {} 較新。";
        show_newest: "Show it", "查看";
        size: "Size", "大小";
        imports: "Imports", "匯入";
        vectors: "Test vectors", "測試向量";
        vectors_short: "Tests", "測試";
        vectors_of: "{} of {} passed", "{}／{} 通過";
        no_vectors: "none", "無";
        compiled_in: "Compiled in", "編譯時間";
        tried: "Tried with a neutral request", "試執行";
        failed_vectors: "Test vectors that fail", "未通過的測試向量";
        vector: "Vector", "向量";
        expected: "Expected", "預期";
        got: "Got", "實際";
        large: "under the limits for large runtimes", "適用大型執行環境的限制";
        older: "{} older versions are not shown.", "另有 {} 個較舊的版本未顯示。";
        show_all: "Show all", "全部顯示";
        ask_past: "Ask past decisions", "查詢過去的判定";
        watch: "Watch v{}", "觀察 v{}";
        enforce: "Enforce v{}", "強制 v{}";
        watch_about: "Watching calls and counts it without effect. Enforcing lets it decide.", "觀察只會呼叫並計數，不影響判定；強制則讓它參與判定。";
        keep_about: "With the settings that are in force now.", "沿用目前使用中的設定。";
        settings: "Settings for its activation", "啟用時的設定";
        save: "Save settings", "儲存設定";
        permissions: "Only these permissions, one per line", "只限這些權限，每行一個";
        permissions_about: "Such as video.delete, or video.* for all below it. All lists empty: it covers everything.", "例如 video.delete，或以 video.* 代表其下所有權限。全部留空表示涵蓋一切。";
        routes: "Only these routes, one per line", "只限這些路由，每行一個";
        routes_about: "Such as /videos/:id, or POST /videos.", "例如 /videos/:id 或 POST /videos。";
        modules: "Only direct grants of these modules, one per line", "只限這些模組的直接授權，每行一個";
        deadline_ms: "Milliseconds for one answer", "單次回答的毫秒數";
        roll_back: "Roll back to v{}", "復原到 v{}";
        deactivate: "Deactivate", "停用";
        delete: "Delete", "刪除";
        delete_version: "Delete version {}", "刪除版本 {}";
        log: "Log", "記錄";
        log_about: "What the active versions wrote, and their failures, newest first. Kept in memory.", "使用中版本寫下的內容與失敗原因，由新到舊；僅保存在記憶體中。";
        log_empty: "Nothing logged since the activation.", "啟用以來沒有記錄。";
        log_filtered: "No line of this level.", "沒有這個等級的記錄。";
        log_all: "Whole log", "完整記錄";
        level: "Level", "等級";
        message: "Message", "內容";
        at: "Time", "時間";
        mode: "Mode", "模式";
    }
}

words! {
    pub PluginActs {
        watched: "v{} is watched now: called and counted, without effect.", "v{} 已開始觀察：會呼叫並計數，不影響判定。";
        enforced: "v{} takes part in decisions now.", "v{} 已開始參與判定。";
        saved: "The settings of v{} are saved.", "已儲存 v{} 的設定。";
        rolled_back: "v{} is in force again.", "已恢復使用 v{}。";
        deactivated: "{} is deactivated.", "已停用 {}。";
        restored: "It is as it was before.", "已恢復原狀。";
        deleted: "{} is deleted.", "已刪除 {}。";
        version_deleted: "Version {} is deleted.", "已刪除版本 {}。";
        delete_title: "Delete the plugin {}", "刪除外掛 {}";
        delete_goes: "All of its {} versions go, with their reports and the log.", "它的 {} 個版本、報告與記錄都會刪除。";
        delete_stays: "Recorded decisions stay, and still name it.", "判定紀錄會保留，其中仍有它的名稱。";
        delete_final: "It can only come back by an upload.", "只能重新上傳才能恢復。";
        delete_typed: "Type {} to confirm", "輸入「{}」以確認";
        delete_not_typed: "The name does not match.", "名稱不符。";
        in_force: "A version is in force. Deactivate the plugin first.", "仍有使用中的版本，請先停用外掛。";
        version_goes: "The component and its report go. The number {} is not used again.", "元件與報告都會刪除；編號 {} 不會再使用。";
        quarantine: "v{} failed too often and is in quarantine.", "v{} 失敗太多次，已隔離。";
        quarantine_denies: "It is not called any more, and what it covers is denied with “plugin_failed”: {}.", "目前不再呼叫它，它涵蓋的請求一律以「plugin_failed」拒絕：{}。";
        quarantine_roles: "It is not called any more, and roles of its sources stay as they are.", "目前不再呼叫它，來源的角色維持不變。";
        quarantine_shadow: "It is not called any more. Nothing is denied by it, because it was only watched.", "目前不再呼叫它；因為只是觀察，不會造成拒絕。";
        quarantine_do: "What to do: read the log below for the cause; roll back or deactivate to end the denials; upload a corrected version; or enforce it again if the cause is gone.", "處理方式：在下方記錄中查看原因；復原或停用以結束拒絕；上傳修正後的版本；若原因已排除，也可再次強制。";
        quarantine_do_shadow: "What to do: read the log below for the cause, and upload a corrected version.", "處理方式：在下方記錄中查看原因，並上傳修正後的版本。";
    }
}

words! {
    pub DryRun {
        title: "Ask {} without effect", "試執行 {}";
        about: "The version is called, and nothing changes.", "會呼叫這個版本，但不會變更任何資料。";
        past: "Past decisions", "過去的判定";
        past_about: "Which recorded decisions would this version have ended otherwise?", "這個版本會讓哪些已記錄的判定有不同結果？";
        only_authorizer: "Only for plugins that decide requests.", "僅適用於判定請求的外掛。";
        needs_log: "This needs the permission to read decisions.", "需要讀取判定紀錄的權限。";
        version: "Version", "版本";
        most: "At most", "最多";
        since: "Since", "起始時間";
        any_time: "The beginning of the log", "記錄開始";
        hour: "One hour ago", "一小時前";
        day: "One day ago", "一天前";
        week: "Seven days ago", "七天前";
        ask: "Ask", "查詢";
        result: "{} looked at, {} asked, {} would end otherwise", "檢視 {} 筆，詢問 {} 筆，{} 筆會有不同結果";
        same: "No recorded decision would end otherwise.", "沒有任何已記錄的判定會有不同結果。";
        not_covered: "{} were not asked about: its filters or kinds do not cover them, or they were denied before any plugin is asked.", "{} 筆沒有詢問：不在它的篩選條件或種類範圍內，或在詢問外掛之前已被拒絕。";
        no_decisions: "No decision is recorded in this time. Decisions are recorded when a service asks whether a member may do something.", "這段時間沒有判定紀錄。當服務查詢成員的權限時才會記錄。";
        left_out: "{} could not be asked again, because the log leaves out a part of their input.", "{} 筆無法重新詢問，因為記錄省略了部分輸入。";
        unreached: "{} were not reached in time.", "{} 筆未能在時限內處理。";
        failed: "In {} of them the plugin failed: such a request would be denied.", "其中 {} 次外掛執行失敗：這類請求會被拒絕。";
        first_only: "The first {} are shown.", "只顯示前 {} 筆。";
        when: "Time", "時間";
        who: "Member", "成員";
        what: "Request", "請求";
        was: "Was", "原本";
        would: "Would be", "將會是";
        said: "The plugin says", "外掛的說明";
        why: "Why?", "為什麼？";
        one: "One made-up request", "一個假設的請求";
        one_about: "Facts are what your services send along, such as owner=kim.", "事實是服務隨請求送出的資訊，例如 owner=kim。";
        member: "Member, empty for yourself", "成員，留空代表您自己";
        action: "Method, permission or action", "方法、權限或動作";
        path: "Path", "路徑";
        roles: "Roles, one per line", "角色，每行一個";
        facts: "Facts, name=value, one per line", "事實，名稱=值，每行一個";
        source: "Source", "來源";
        groups: "Groups, one per line", "群組，每行一個";
        claims: "Claims, name=value, one per line", "宣告，名稱=值，每行一個";
        answer: "v{} answers", "v{} 的回答";
        outcome_failed: "The call failed", "呼叫失敗";
        outcome_roles: "Roles", "角色";
        outcome_abstain: "Abstained", "棄權";
        no_roles: "no roles", "沒有角色";
        used: "Used", "用量";
        used_text: "{} µs, {} instructions, {}", "{} 微秒，{} 個指令，{}";
        log: "Logged", "記錄";
    }
}

/// What to do about a refused upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cure {
    pub text: &'static str,
    /// A command or a setting that helps; `{}` is the name of the plugin.
    pub command: Option<&'static str>,
}

type CureRow = (&'static str, &'static str, &'static str, Option<&'static str>);

const CHECK: Option<&str> = Some("roster plugin check {}.wasm");

/// Error code, English, Chinese, command.
const CURES: &[CureRow] = &[
    (
        "plugin_name",
        "Choose a name of lower-case letters, digits and hyphens that begins with a letter, such as business-hours.",
        "請使用以字母開頭，由小寫字母、數字與連字號組成的名稱，例如 business-hours。",
        None,
    ),
    (
        "plugin_too_large",
        "Build it optimized for size, and strip debug information. If the language needs a large runtime, the operator can list this organization in roster.toml.",
        "請以最小化檔案大小的方式建置，並移除除錯資訊。若程式語言需要大型執行環境，營運者可在 roster.toml 中列出這個組織。",
        Some("plugins.large_organizations = [\"{}\"]"),
    ),
    (
        "not_a_component",
        "Compilers make a core module. Pack it as a component, and upload the packed file.",
        "編譯器產生的是核心模組。請封裝成元件後，再上傳封裝後的檔案。",
        Some("roster plugin pack core.wasm -o {}.wasm"),
    ),
    (
        "plugin_malformed",
        "The file is damaged or incomplete. Build it again, and check it before the upload.",
        "檔案已損壞或不完整。請重新建置，並在上傳前先檢查。",
        CHECK,
    ),
    (
        "plugin_imports",
        "A plugin has no files, network, clock or randomness. Remove what uses them, or build without WASI (JavaScript and Python: --stub-wasi). It may import roster:policy/host and roster:policy/types of version 1.0.0.",
        "外掛不能使用檔案、網路、時鐘或亂數。請移除相關程式碼，或以不含 WASI 的方式建置（JavaScript 與 Python：--stub-wasi）。只能匯入 1.0.0 版的 roster:policy/host 與 roster:policy/types。",
        CHECK,
    ),
    (
        "plugin_exports",
        "Export roster:policy/authorizer@1.0.0 or roster:policy/role-mapper@1.0.0, exactly as the interface defines them.",
        "請完全依照介面定義，匯出 roster:policy/authorizer@1.0.0 或 roster:policy/role-mapper@1.0.0。",
        Some("roster plugin wit > policy.wit"),
    ),
    (
        "plugin_major",
        "Build it again with the interface of this server, roster:policy@1.0.0.",
        "請使用這台伺服器的介面 roster:policy@1.0.0 重新建置。",
        Some("roster plugin wit > policy.wit"),
    ),
    (
        "plugin_too_complex",
        "Make large functions smaller, with fewer locals and less nesting. The check names the limit.",
        "請將大型函式拆小，減少區域變數與巢狀層數。檢查會指出是哪一項限制。",
        CHECK,
    ),
    (
        "plugin_compile",
        "Compiling it takes too much time or memory. Build it optimized for size, and leave out generated code that is not used.",
        "編譯需要太多時間或記憶體。請以最小化檔案大小的方式建置，並移除未使用的產生程式碼。",
        CHECK,
    ),
    (
        "plugin_start",
        "It fails before it is asked anything. Look at what runs at the start: global constructors, or memory beyond the limit.",
        "它在被詢問之前就失敗。請檢查啟動時執行的內容：全域建構函式，或超過限制的記憶體。",
        Some("roster plugin test {}.wasm"),
    ),
    (
        "plugin_vectors",
        "The test vectors in the component cannot be read. Correct their file, and pack it again.",
        "無法讀取元件中的測試向量。請修正向量檔案並重新封裝。",
        Some("roster plugin pack {}.wasm --vectors vectors.yaml -o {}.wasm"),
    ),
    (
        "plugins_full",
        "Delete plugins or versions that are not needed any more, or ask the operator for more.",
        "請刪除不再需要的外掛或版本，或請營運者提高上限。",
        Some("roster plugin delete {} --version 1"),
    ),
    (
        "uploads_limited",
        "Wait a minute, and upload it again. The same checks run on your own machine as often as you like.",
        "請稍候一分鐘再上傳。相同的檢查可以在您自己的電腦上不限次數執行。",
        CHECK,
    ),
    (
        "compiler_busy",
        "Other components are compiled at the moment. Upload it again in a few seconds.",
        "目前正在編譯其他元件。請在幾秒後重新上傳。",
        None,
    ),
];

/// The message about a file that does not begin like WebAssembly.
const NO_WASM: &str = "this is not WebAssembly: a plugin is a component";

/// The known messages of `not_a_component`, in Chinese.
const REASONS: [(&str, &str); 2] = [
    (
        "this is a core module, not a component: convert it with `roster plugin pack`",
        "這是核心模組，不是元件：請以 roster plugin pack 封裝。",
    ),
    (NO_WASM, "這個檔案不是 WebAssembly；外掛必須是元件。"),
];

/// A known message of a refusal in Chinese.
pub fn chinese_reason(message: &str) -> Option<&'static str> {
    REASONS.iter().find(|(known, _)| *known == message).map(|(_, chinese)| *chinese)
}

/// What to do about this error code and message; `None` for one that has nothing to do with the component.
pub fn cure(error_code: &str, message: &str, language: Language) -> Option<Cure> {
    if (error_code, message) == ("not_a_component", NO_WASM) {
        let text = language.pick("Choose the .wasm file that your build made.", "請選擇建置產生的 .wasm 檔案。");
        return Some(Cure { text, command: CHECK });
    }
    let (_, english, chinese, command) = CURES.iter().find(|(known, ..)| *known == error_code)?;
    Some(Cure { text: language.pick(english, chinese), command: *command })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{CURES, cure};
    use crate::console::i18n::Language;
    use crate::kernel::error::ErrorCode;

    #[test]
    fn every_refusal_of_an_upload_has_a_cure_of_its_own() {
        let known: HashSet<&str> = CURES.iter().map(|(code, ..)| *code).collect();
        assert_eq!((known.len(), CURES.len()), (14, 14));
        for code in [
            "plugin_name",
            "plugin_too_large",
            "not_a_component",
            "plugin_malformed",
            "plugin_imports",
            "plugin_exports",
            "plugin_major",
            "plugin_too_complex",
            "plugin_compile",
            "plugin_start",
            "plugin_vectors",
            "plugins_full",
            "uploads_limited",
            "compiler_busy",
        ] {
            assert!(ErrorCode::ALL.iter().any(|known| known.as_str() == code), "{code}");
            let [english, chinese] = Language::ALL.map(|language| cure(code, "", language).expect("a cure").text);
            assert!(english.ends_with('.') && chinese.ends_with('。'), "{code}");
        }
        assert_eq!(cure("forbidden", "", Language::English), None);
    }
}
