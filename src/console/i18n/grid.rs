//! The texts of the grid of roles and permissions.

use super::words;

words! {
    pub Grid {
        title: "Roles and permissions", "角色與權限";
        about: "Each column is a role. Change the boxes, look at the preview, then apply.", "每一欄是一個角色。勾選後先預覽，再套用。";
        permission: "Permission", "權限";
        roles: "Roles", "角色";
        roles_shown: "Roles shown: {} of {}", "顯示 {} / {} 個角色";
        all_roles: "First roles", "最前面的角色";
        show: "Show", "顯示";
        one_role: "Role", "角色";
        two_roles: "Compare or copy", "比較或複製";
        first_role: "First role", "第一個角色";
        second_role: "Second role", "第二個角色";
        differences: "Show what differs", "顯示差異";
        copy: "Copy the first into the second", "將第一個複製到第二個";
        copied: "{} is filled in like {}. Nothing is saved yet.", "「{}」已填入與「{}」相同的權限，尚未儲存。";
        legend_held: "held", "擁有";
        legend_asleep: "held, but asleep: it or a parent is closed", "擁有但休眠：本身或上層已停用";
        legend_implied: "implied, for menus only", "隱含，僅供選單顯示";
        legend_not: "not held", "未擁有";
        legend_locked: "not yours to change", "您無法變更";
        cell: "{} for {}", "{}（{}）";
        asleep: "asleep", "休眠";
        implied: "implied", "隱含";
        locked: "locked: {}", "已鎖定：{}";
        lock_protected: "this role is protected: it holds everything", "此角色受保護，擁有全部權限";
        lock_not_held: "you do not hold this permission yourself", "您自己沒有這項權限";
        lock_of_site: "only roles of the organization platform can have it", "只有 platform 組織的角色可以擁有";
        lock_of_application: "this organization does not have the application", "此組織沒有這個應用程式";
        lock_read_only: "you cannot change what roles hold", "您無法變更角色的權限";
        withheld: "You hold no permission of these applications, so you cannot give any. Owners of the organization and administrators of the site can: {}", "您沒有以下應用程式的任何權限，因此無法授予。可以授予的是組織的擁有者與站台管理員：{}";
        fold: "Fold {}", "收合 {}";
        closed: "Closed", "停用";
        nothing_found: "No permission fits", "沒有符合的權限";
        nothing_found_text: "Search for something else, or show all permissions.", "請換個關鍵字，或顯示全部權限。";
        no_difference: "These two roles hold the same", "這兩個角色的權限相同";
        no_difference_text: "Choose other roles, or show all permissions.", "請選擇其他角色，或顯示全部權限。";
        show_builtin: "Show the {} permissions of Roster itself", "顯示 Roster 本身的 {} 項權限";
        show_all: "Show all", "顯示全部";
        preview: "Preview", "預覽";
        discard: "Undo all", "全部復原";
        apply: "Apply to {} roles", "套用到 {} 個角色";
        apply_one: "Apply to 1 role", "套用到 1 個角色";
        preview_title: "Preview", "預覽";
        results_title: "What happened", "結果";
        no_change: "Nothing is changed yet. Check or clear a box first.", "尚未變更任何項目，請先勾選或取消勾選。";
        applied: "{} roles changed.", "已變更 {} 個角色。";
        applied_one: "1 role changed.", "已變更 1 個角色。";
        stale: "Somebody else changed this role meanwhile: look at the table below, which shows your changes on top of theirs, and apply again if they are still right.", "此角色已被其他人修改：下方表格顯示對方的變更加上您的變更，確認仍然正確後請再套用一次。";
        saved: "Saved", "已儲存";
        not_saved: "Not saved", "未儲存";
        is_implied: "implied", "隱含";
        stays_implied: "{} stays implied while the role holds something below it.", "只要角色擁有其下層權限，{} 就維持隱含。";
        gain: "Members who gain a right: {}", "獲得權限的成員：{}";
        lose: "Members who lose a right: {}", "失去權限的成員：{}";
        nobody: "No member gains or loses a right.", "沒有成員獲得或失去權限。";
        further: "and {} more", "另外 {} 位";
        why: "Why?", "為什麼？";
    }
}
