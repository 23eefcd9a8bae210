//! The texts of the pages of the site.

use super::words;

words! {
    pub Organizations {
        title: "Organizations", "組織";
        about: "Each organization has its own members, roles, plugins and quota, and sees nothing of the others.", "每個組織有自己的成員、角色、外掛與配額，彼此互不可見。";
        empty_title: "No organization fits", "沒有符合的組織";
        empty_text: "Change the search, or create an organization below.", "請變更搜尋條件，或在下方建立組織。";
        name: "Name", "名稱";
        code: "Code", "代碼";
        status: "State", "狀態";
        created_at: "Created", "建立時間";
        second_factor: "second factor", "第二因素驗證";
        new: "New organization", "新增組織";
        create: "Create organization", "建立組織";
        created: "The organization was created. Now invite its first member.", "已建立組織。現在可以邀請第一位成員。";
        settings: "Settings", "設定";
        saved: "The organization was saved.", "已儲存組織。";
        open: "Open its console", "開啟此組織的主控台";
        state: "Access", "使用狀態";
        ceiling: "Ceiling of its storage", "儲存上限";
        no_ceiling: "none", "沒有上限";
        ceiling_change: "Change the ceiling", "變更上限";
        activate: "Activate", "啟用";
        deactivate: "Deactivate", "停用";
        activate_about: "Its members can work in it again.", "成員可以再次使用這個組織。";
        deactivate_about: "While it is not active, every request in it is denied. Nothing is deleted.", "停用期間，組織中的所有請求都會被拒絕；不會刪除任何資料。";
        activated: "The organization is active.", "已啟用組織。";
        deactivated: "The organization is not active.", "已停用組織。";
    }
}

words! {
    pub FirstSteps {
        title: "First steps", "開始使用";
        entry: "First steps", "開始使用";
        about: "Five steps to a working site. Each can be left out and done later.", "五個步驟讓站台開始運作。每一步都可以略過，之後再做。";
        step_site: "Your site", "您的站台";
        step_organization: "First organization", "第一個組織";
        step_invite: "Invite somebody", "邀請成員";
        step_connect: "Connect", "連接系統";
        step_protect: "What to protect", "要保護的服務";
        state_done: "done", "已完成";
        state_current: "now", "進行中";
        state_waiting: "open", "未完成";
        public_url: "Public address", "公開網址";
        address_right: "You reached this page under the public address of the site.", "您正透過站台的公開網址瀏覽本頁。";
        other_address: "You came by {}, but links of this site begin with {}. Set public_url to the address that people use, and restart.", "您使用的位址是 {}，但本站連結以 {} 開頭。請將 public_url 設為大家使用的網址並重新啟動。";
        plain_http: "This address is plain http: browsers then keep no session. Set tls.mode, or put a proxy with https in front.", "這個網址是未加密的 http，瀏覽器不會保留工作階段。請設定 tls.mode，或在前方使用 https 代理。";
        organization_about: "People belong to organizations. Create the first one.", "成員屬於組織。請建立第一個組織。";
        all_organizations: "All organizations", "所有組織";
        invite_about: "An invitation is a link. Who opens it chooses a password and belongs to the organization.", "邀請是一個連結：開啟連結的人設定密碼後即加入組織。";
        invite_into: "Invite into {}", "邀請加入 {}";
        organization_first: "Create an organization first.", "請先建立組織。";
        connect_about: "Open each system that you have, and follow its steps.", "請開啟您使用的系統，並依步驟設定。";
        connect_test: "See the connections, and test them", "查看並測試連線";
        connect_manual: "The manual explains each of them", "使用手冊有各系統的說明";
        protect_about: "Each operation of a service becomes a permission that roles can hold.", "服務的每個操作都會成為角色可擁有的權限。";
        later: "Later: to my overview", "稍後再做：前往總覽";
    }
}
