//! The texts of the overviews and of usage.

use super::words;

words! {
    pub Usage {
        title: "Usage", "用量";
        about: "What is stored and done over time. Days and hours are those of UTC.", "各時段的儲存與活動。日與時皆以 UTC 計。";
        period: "Period", "期間";
        now: "Now", "目前";
        week: "7 days", "7 天";
        month: "30 days", "30 天";
        day: "Day (UTC)", "日（UTC）";
        hour: "Hour (UTC)", "時（UTC）";
        as_table: "As a table", "以表格顯示";
        unavailable: "This cannot be shown now.", "目前無法顯示。";
        nothing: "Nothing in this period.", "此期間沒有資料。";
        stored: "Stored", "已用空間";
        used_of: "{} of {}", "{} / {}";
        no_ceiling: "No ceiling", "沒有上限";
        reserved: "{} reserved for uploads", "{} 保留給上傳中的檔案";
        videos: "Videos", "影片";
        ownerless: "{} without an owner ({})", "{} 部沒有擁有者（{}）";
        jobs: "Jobs", "工作";
        jobs_now: "Jobs by state", "各狀態的工作";
        waiting: "{} waiting", "{} 個等待中";
        oldest: "The oldest has waited since", "最早的工作等待自";
        given_up: "{} given up", "{} 個已放棄";
        created: "Created", "建立";
        done: "Done", "完成";
        dead: "Given up", "已放棄";
        sign_ins: "Sign-ins", "登入";
        other_ways: "Other ways", "其他方式";
        failed: "Failed", "失敗";
        failed_count: "{} failed", "{} 次失敗";
        failed_since: "Failures are counted since the server started or for 31 days:", "失敗次數自伺服器啟動起計算，最多 31 天：";
        of_members: "Sign-ins of the present members.", "目前成員的登入。";
        decisions: "Denied requests by reason", "各原因的拒絕次數";
        other_reasons: "Other reasons", "其他原因";
        allowed_every: "{} allowed decisions are in the log, which keeps one in {}.", "記錄中有 {} 筆允許的判定；每 {} 筆記錄一筆。";
        allowed_none: "Allowed decisions are not logged.", "不記錄允許的判定。";
        logged_since: "The log reaches back to", "記錄最早到";
        dropped: "{} decisions could not be logged since the server started.", "伺服器啟動以來有 {} 筆判定未能記錄。";
        growth: "Storage over time", "儲存用量變化";
        growth_about: "{} added, {} removed.", "新增 {}，移除 {}。";
        transferred: "{} by transfers.", "移轉 {}。";
        sum_about: "{} in all, at most {} at once.", "共 {}，單一時段最多 {}。";
        fullest: "Fullest members", "用量比例最高的成員";
        fullest_about: "These are the fullest of the members who use most. From 80 % they are warned, from 95 % the next upload may fail.", "列出用量最多的成員。達 80% 時會收到警告，達 95% 時下次上傳可能失敗。";
        member: "Member", "成員";
        size: "Quota", "配額";
        used: "Used", "已用";
        share: "Full", "使用率";
        no_limit: "No limit", "不限容量";
        nobody: "Nobody stores anything yet", "還沒有人儲存檔案";
        nobody_text: "Members who upload a file appear here, with how full their quota is. Register a first video to see it.", "上傳檔案的成員會列在這裡並顯示配額使用率。請先登錄一部影片。";
        all_videos: "Videos", "影片";
        ceiling: "Ceiling of the organization", "組織的儲存上限";
        ceiling_hint: "For all members together, for example 2 TB or 500 GiB. Leave it empty for none.", "所有成員合計的上限，例如 2 TB 或 500 GiB。留空表示不設上限。";
        not_a_size: "This is no size: write a number and a unit, for example 2 TB.", "無法辨識的大小：請輸入數字與單位，例如 2 TB。";
        save: "Save the ceiling", "儲存上限";
        saved: "The ceiling of {} is {} now.", "{} 的儲存上限現在是 {}。";
        removed: "{} has no ceiling now.", "{} 已不設儲存上限。";
        organizations: "Organizations", "組織";
        organization: "Organization", "組織";
        no_organization: "No organization stores anything yet", "還沒有組織儲存檔案";
        no_organization_text: "Create an organization, and invite somebody who uploads.", "請建立組織，並邀請要上傳檔案的成員。";
        to_organizations: "Organizations", "組織";
    }
}

words! {
    pub Overview {
        title: "Overview", "總覽";
        members: "Members", "成員";
        to_members: "All members", "所有成員";
        plugins: "Plugins", "外掛";
        plugins_text: "{} in force", "{} 個生效中";
        quarantined: "In quarantine: {}", "已隔離：{}";
        quarantined_text: "What it covers is denied until somebody acts.", "其涵蓋的請求在處理前一律拒絕。";
        no_plugin: "No plugin decides here.", "這裡沒有外掛參與判定。";
        week: "In the last 7 days", "最近 7 天";
        denied: "Denied requests", "拒絕的請求";
        to_usage: "Usage", "用量";
        to_plugins: "Plugins", "外掛";
        denials: "Newest denials", "最新的拒絕";
        to_denied: "All denials", "所有拒絕";
        all_decisions: "All decisions", "所有判定";
        no_denials: "Nothing was denied yet. Each denial will be here, with its reason.", "尚無拒絕。每次拒絕及其原因會列在這裡。";
        audit: "Newest changes", "最新的變更";
        all_audit: "Audit log", "稽核紀錄";
        no_audit: "Nothing was changed yet.", "尚無變更。";
        when: "Time", "時間";
        who: "Who", "操作者";
        what: "What", "內容";
        reason: "Reason", "原因";
        first_steps: "First steps", "開始使用";
        first_steps_about: "Nobody else belongs to this organization yet. Three steps make it useful:", "這個組織還沒有其他成員。完成以下三個步驟即可開始使用：";
        step_invite: "Invite somebody", "邀請成員";
        step_roles: "Decide what roles may do", "決定各角色的權限";
        step_ask: "Ask why somebody may do something", "查詢成員為何有權限";
        open: "open", "未完成";
        organizations: "Organizations", "組織";
        to_organizations: "All organizations", "所有組織";
        first_organization: "There is no organization yet. Five steps lead to a working site.", "尚未建立組織。五個步驟即可讓站台開始運作。";
    }
}
