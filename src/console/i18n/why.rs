//! The texts of *Why?* and of the decision log.

use super::words;

words! {
    pub Why {
        title: "Why?", "為什麼？";
        about: "Ask whether a member may do something in this organization, and see what the answer rests on.", "查詢成員在這個組織中能否執行某個動作，以及這個判定的依據。";
        member: "Member", "成員";
        member_hint: "name, e-mail or id", "姓名、電子郵件或編號";
        method: "Method", "方法";
        path: "Path", "路徑";
        ask: "Ask", "查詢";
        other_kinds: "Ask by permission or grant, or compare", "依權限或直接授權查詢，或比較兩位成員";
        permission: "Permission", "權限";
        scope_type: "Scope type", "範圍類型";
        scope_id: "Scope id", "範圍編號";
        module: "Module", "模組";
        action: "Action", "動作";
        compare_with: "Compare with", "與另一位成員比較";
        empty_title: "Ask a question", "提出問題";
        empty_text: "Choose a member, a method and a path. The answer is the one that the services of this site get.", "選擇成員、方法與路徑。答案與本站服務得到的判定相同。";
        example_route: "May I GET /videos?", "我可以 GET /videos 嗎？";
        example_permission: "Do I hold roster.user.list?", "我有 roster.user.list 權限嗎？";
        plugin_said: "The plugin says: “{}”", "外掛的說明：「{}」";
        stage_gate: "Preconditions", "前提條件";
        stage_base: "Roles and grants", "角色與授權";
        stage_plugin: "Plugins", "外掛";
        passed: "passed", "通過";
        refused: "refused", "拒絕";
        not_asked: "not asked", "未詢問";
        none_bound: "no plugin", "沒有外掛";
        not_covered: "not covered", "不在範圍內";
        abstained: "abstained", "棄權";
        route: "Route", "路由";
        answered_by: "Needs one of", "需要其中之一";
        holds: "Roles held", "擁有的角色";
        allowed_by: "Allowed by", "允許者";
        grants: "Direct grants", "直接授權";
        rests_on: "What it rests on", "判定依據";
        plugins: "Plugins", "外掛";
        would_change: "What would change it", "怎樣才會改變";
        nothing_would: "No role of this organization allows this. Give a role the permission in the grid, or import a catalog that has this path.", "這個組織沒有任何角色允許此動作。請在權限表中將權限加入角色，或匯入包含此路徑的目錄。";
        assign: "Assign", "指派";
        assigned: "The role was assigned.", "已指派角色。";
        revoked: "The role was taken back.", "已收回角色。";
        share: "Link and API request", "連結與 API 請求";
        epoch: "Policy epoch {}", "權限規則版本 {}";
        ok_role: "{} may: a role allows it.", "{}可以：角色允許此動作。";
        ok_grant: "{} may: a direct grant allows it.", "{}可以：直接授權允許此動作。";
        ok_plugin: "{} may: a plugin of the organization allows it.", "{}可以：組織的外掛允許此動作。";
        no_permission: "No role of {} holds the permission.", "{}的角色都沒有這個權限。";
        unmapped_route: "The catalog has no such path, so nobody may, also not {}.", "目錄中沒有這個路徑，因此任何人（包括{}）都不可以。";
        method_not_mapped: "The path exists, but not with this method, so {} may not.", "這個路徑存在，但沒有這個方法，因此{}不可以。";
        path_not_canonical: "The path can be read in more than one way, so it is refused for {}.", "這個路徑有多種解讀方式，因此拒絕{}。";
        member_inactive: "{} is suspended.", "{}已停權。";
        not_a_member: "{} does not belong to this organization.", "{}不屬於這個組織。";
        tenant_inactive: "The organization is not active, so {} may not.", "這個組織已停用，因此{}不可以。";
        plugin_denied: "A plugin of the organization denies it for {}.", "組織的外掛拒絕了{}。";
        plugin_failed: "A plugin of the organization failed, so the request of {} is denied.", "組織的外掛執行失敗，因此拒絕{}。";
        snapshot_unavailable: "The policy is not loaded, so everything is denied, also for {}.", "權限規則尚未載入，因此一切請求（包括{}的）都被拒絕。";
    }
}

words! {
    pub Decisions {
        title: "Decisions", "判定紀錄";
        about: "Denials, and a sample of what was allowed, newest first.", "拒絕的判定，以及部分允許的判定，由新到舊。";
        empty_title: "No decision yet", "尚無判定";
        empty_text: "Decisions are recorded when a service asks whether a member may do something: every denial, and some of the rest.", "當服務查詢成員的權限時會記錄判定：所有拒絕，以及部分允許。";
        empty_filtered: "No decision fits the filters. Remove some of them.", "沒有符合篩選條件的判定，請減少條件。";
        when: "Time", "時間";
        who: "Member", "成員";
        what: "Request", "請求";
        outcome: "Decision", "判定";
        reason: "Reason", "原因";
        allowed: "Allowed", "允許";
        denied: "Denied", "拒絕";
        differed: "Only where a shadow plugin differed", "僅顯示影子外掛結果不同者";
        why: "Why?", "為什麼？";
    }
}
