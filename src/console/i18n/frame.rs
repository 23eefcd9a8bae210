//! The texts of the frame that every page has.

use super::words;

words! {
    pub Frame {
        console: "Console", "主控台";
        skip: "Skip to the content", "跳到內容";
        sign_in: "Sign in", "登入";
        sign_out: "Sign out", "登出";
        account: "Account", "帳號";
        language: "Language", "語言";
        english: "English", "English";
        chinese: "中文", "中文";
        theme: "Theme", "外觀";
        theme_auto: "Automatic", "自動";
        theme_light: "Light", "淺色";
        theme_dark: "Dark", "深色";
        keys: "Keyboard shortcuts", "鍵盤快速鍵";
        apply: "Apply", "套用";
        menu: "Menu", "選單";
        navigation: "Navigation", "導覽";
        switch_place: "Switch organization", "切換組織";
        own: "Me", "我的";
        organization: "Organization", "組織";
        people: "People", "成員";
        rights: "Rights", "權限";
        content: "Content", "內容";
        integration: "Integration", "整合";
        administration: "Administration", "管理";
        site: "Site", "站台";
        manual: "Manual", "使用手冊";
        api_docs: "API documentation", "API 文件";
        undo: "Undo", "復原";
        copy: "Copy", "複製";
        copied: "Copied", "已複製";
        cancel: "Cancel", "取消";
        save: "Save", "儲存";
        close: "Close", "關閉";
        back: "Back", "返回";
        details: "Details", "詳細資料";
        code: "Code", "代碼";
        request_id: "Request id", "請求編號";
        optional: "optional", "選填";
        faults_title: "Please correct this", "請修正以下項目";
        failed_title: "This does not work", "無法完成";
        not_found_title: "There is nothing here", "找不到這個頁面";
        not_found_text: "This page does not exist, or you cannot see it.", "這個頁面不存在，或您無權查看。";
        denied_title: "You cannot do this", "您沒有權限";
        denied_text: "You need the permission {} for this. Somebody who can change roles can give it to you.", "您需要權限 {}。可以請能變更角色的人授予您。";
        denied_who: "Ask an administrator of the organization.", "請洽組織的管理員。";
        cross_site_text: "This form was not sent from a page of this site. Open the page again and send the form there.", "這份表單並非來自本站頁面。請重新開啟頁面再送出。";
        operation_used: "This page as an API request", "這個頁面的 API 請求";
        home: "To your overview", "回到您的總覽";
        conflict_title: "Somebody else changed this meanwhile", "這筆資料已被其他人修改";
        conflict_text: "Look at the present state below, and save again if your change is still right.", "請確認下方的目前狀態，若您的變更仍然正確再儲存一次。";
        previous: "Previous", "上一頁";
        next: "Next", "下一頁";
        first: "First", "第一頁";
        last: "Last", "最後一頁";
        newest: "Newest", "最新";
        older: "Older", "較舊";
        rows: "Rows", "筆數";
        pages: "Pages", "頁次";
        of_many: "{}–{} of {}", "第 {}–{} 筆，共 {} 筆";
        none: "None", "無";
        search: "Search", "搜尋";
        filter: "Filter", "篩選";
        all: "All", "全部";
        yes: "Yes", "是";
        no: "No", "否";
        selected: "{} selected", "已選 {} 筆";
        task_runs: "1 task runs in the background.", "有 1 項工作在背景進行中。";
        tasks_run: "{} tasks run in the background.", "有 {} 項工作在背景進行中。";
        tasks_show: "Show", "查看";
        loading: "Loading", "載入中";
        done: "Done.", "完成。";
    }
}
