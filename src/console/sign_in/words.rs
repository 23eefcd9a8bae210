//! The texts of the pages for people who are not signed in.

use crate::console::i18n::words;

words! {
    pub(super) Words {
        // Sign-in.
        sign_in_title: "Sign in", "登入";
        sign_in: "Sign in", "登入";
        login: "E-mail or username", "電子郵件或使用者名稱";
        password: "Password", "密碼";
        forgot_link: "Forgot your password?", "忘記密碼？";
        register_link: "Create an account", "建立帳號";
        other_ways: "Or sign in with", "或使用其他方式登入";
        with_provider: "Sign in with {}", "使用 {} 登入";
        with_wordpress: "Sign in with WordPress", "使用 WordPress 登入";
        only_other_ways: "This site has no passwords of its own. Choose how you sign in:", "本站不使用密碼登入，請選擇登入方式：";
        no_way: "No way to sign in is set up. Ask the people who run this site.", "尚未設定任何登入方式，請洽站台管理員。";
        too_many_seconds: "Too many failed attempts. Try again in {} seconds.", "失敗次數過多，請在 {} 秒後再試。";
        too_many_minutes: "Too many failed attempts. Try again in {} minutes.", "失敗次數過多，請在 {} 分鐘後再試。";
        signed_in_title: "You are signed in", "您已登入";
        signed_in_text: "There is nothing to do here. To use another account, sign out first.", "您不需要再做任何事。若要使用其他帳號，請先登出。";
        go_on: "Continue", "繼續";
        return_expired: "You are signed in. The page that you came from is no longer known, so this is your start page.", "您已登入。由於原本的頁面已失效，因此回到起始頁。";
        // What must be right before anybody can sign in.
        wrong_host_title: "Please use the right address", "請使用正確的網址";
        wrong_host_text: "You can sign in to this site only at its own address:", "您只能在本站的正式網址登入：";
        plain_title: "This connection is not encrypted", "這個連線沒有加密";
        plain_text: "Over plain http, others on the network could read your password, and browsers do not keep the session. So there is no form for passwords at this address.", "在沒有加密的 http 連線上，同一網路的其他人可能讀到您的密碼，瀏覽器也不會保存工作階段，所以這個網址不提供輸入密碼的表單。";
        plain_todo: "The people who run this site can do one of these:", "站台管理員可以採取下列任一方式：";
        plain_tls: "Let the server use https itself: set tls.mode in roster.toml, to local or with your own certificate.", "讓伺服器直接使用 https：在 roster.toml 設定 tls.mode，可設為 local 或使用自己的憑證。";
        plain_proxy: "Put a reverse proxy with https before it, and set public_url to its https address.", "在前面加上使用 https 的反向代理，並將 public_url 設為它的 https 網址。";
        plain_tunnel: "For a quick look, open a tunnel and use the address on your own computer:", "只想先看看的話，可以建立通道，並改用自己電腦上的網址：";
        no_administrator_title: "This site has no administrator yet", "本站尚未設定管理員";
        no_administrator_text: "Nobody can sign in before the first administrator is created. The server printed a one-time link for this when it started. If it is gone or has expired, make a new one on the computer that runs Roster:", "在建立第一位管理員之前，沒有人能登入。伺服器啟動時會顯示一次性的設定連結。若連結遺失或已過期，請在執行 Roster 的電腦上產生新的連結：";
        no_administrator_data: "DIR is the data directory of the server, as in its `roster serve --data DIR`.", "DIR 是伺服器的資料目錄，與啟動時 `roster serve --data DIR` 的目錄相同。";
        // Second factor.
        factor_title: "Second step", "第二因素驗證";
        factor_text: "Enter the six digits that your authenticator app shows now.", "請輸入驗證器應用程式目前顯示的六位數字。";
        code: "Code", "驗證碼";
        recovery_summary: "I cannot use my authenticator app", "我無法使用驗證器應用程式";
        recovery_label: "Recovery code", "備用碼";
        recovery_about: "One of the codes that you were given when you set up the second factor. Each works once.", "設定第二因素驗證時取得的其中一組備用碼，每組只能使用一次。";
        recovery_lost: "No code left? An administrator can take the second factor away, after making sure that it is you.", "沒有可用的備用碼嗎？管理員確認您的身分後，可以移除第二因素驗證。";
        remember: "Remember this device", "記住這部裝置";
        remember_about: "Then this browser asks only for the first step for a while. Not on a shared computer.", "之後一段時間內，這個瀏覽器只需要第一步驟。請勿在共用電腦上勾選。";
        confirm: "Confirm", "確認";
        start_again: "Start again", "重新開始";
        // Enrolment.
        enrol_title: "Set up your second factor", "設定第二因素驗證";
        enrol_text: "Your organization requires a second factor. You need an authenticator app on your phone, such as Aegis, Google Authenticator or 2FAS.", "您的組織要求使用第二因素驗證。您需要在手機上安裝驗證器應用程式，例如 Aegis、Google Authenticator 或 2FAS。";
        enrol_scan: "Scan this code with the app:", "用應用程式掃描這個 QR 碼：";
        enrol_qr: "QR code for your authenticator app", "供驗證器應用程式掃描的 QR 碼";
        enrol_open: "Open in the authenticator app", "在驗證器應用程式中開啟";
        enrol_type: "Or enter this key in the app:", "或在應用程式中輸入這組金鑰：";
        enrol_code: "Then enter the six digits that the app shows:", "接著輸入應用程式顯示的六位數字：";
        codes_title: "Keep your recovery codes", "請保存您的備用碼";
        codes_text: "Your second factor is set up, and you are signed in. If you lose your phone, each of these codes works once instead of it. They are shown only now.", "第二因素驗證已設定完成，您也已登入。若手機遺失，可以用下列備用碼代替，每組只能使用一次。備用碼只會顯示這一次。";
        codes_kept: "I have kept these codes in a safe place", "我已將這些備用碼保存在安全的地方";
        codes_not_kept: "Check the box when you have kept the codes. If you can no longer see them, make new ones under “Security” in your account.", "保存備用碼後請勾選方塊。若已看不到備用碼，可以在帳號的「安全性」頁面重新產生。";
        copy_codes: "Copy the codes", "複製備用碼";
        // Providers.
        provider_title: "Sign in with {}", "使用 {} 登入";
        provider_text: "You continue at {} and come back when you are signed in there.", "接下來會前往 {}，在那裡登入後就會回到這裡。";
        provider_refused: "The provider did not sign you in. Try again, or choose another way.", "登入提供者沒有完成登入，請再試一次或改用其他方式。";
        wordpress_title: "Sign in with WordPress", "使用 WordPress 登入";
        wordpress_text: "Use your name at WordPress and an application password. You make one in your WordPress profile, under “Application Passwords”.", "請輸入您的 WordPress 名稱與應用程式密碼。應用程式密碼可在 WordPress 個人資料的「應用程式密碼」建立。";
        wordpress_username: "WordPress username or e-mail", "WordPress 使用者名稱或電子郵件";
        wordpress_password: "Application password", "應用程式密碼";
        wordpress_browser: "I am signed in at WordPress in this browser", "我已在這個瀏覽器登入 WordPress";
        // Sign-out.
        sign_out_title: "Sign out", "登出";
        sign_out_text: "This ends the session in this browser.", "這會結束這個瀏覽器的工作階段。";
        signed_out_title: "You are signed out", "您已登出";
        signed_out_text: "The session in this browser has ended. If you signed in with a provider, you may still be signed in there.", "這個瀏覽器的工作階段已結束。若您是透過登入提供者登入，可能仍在該處保持登入。";
        sign_in_again: "Sign in again", "重新登入";
        // Forgotten password.
        forgot_title: "Forgot your password", "忘記密碼";
        forgot_text: "Enter your e-mail or username. If there is an account with an e-mail address, it gets a link to set a new password.", "請輸入電子郵件或使用者名稱。若有相符且設有電子郵件的帳號，就會收到設定新密碼的連結。";
        forgot_submit: "Send the link", "寄送連結";
        forgot_done_title: "Look into your mailbox", "請查看信箱";
        forgot_done_text: "If there is an account with this name and an e-mail address, a link is on its way. It works once and for a limited time. Nothing arrived after some minutes? Look into the spam folder, or ask an administrator.", "若有這個名稱的帳號且設有電子郵件，連結已經寄出。連結只能使用一次，且有時間限制。若幾分鐘後仍未收到，請檢查垃圾郵件，或洽管理員。";
        forgot_no_mail: "This site sends no mail. Ask an administrator for a password link.", "本站不寄送電子郵件，請向管理員索取設定密碼的連結。";
        // Registration.
        register_title: "Create an account", "建立帳號";
        register_text: "You get a code by mail to confirm your address.", "您會收到一封含有驗證碼的郵件，用來確認電子郵件。";
        username_about: "Letters, digits and . _ - without blanks. Others can see it.", "可使用字母、數字與 . _ -，不含空白。其他人看得到這個名稱。";
        verify_title: "Confirm your e-mail", "確認電子郵件";
        verify_text: "If this address can be registered, a mail with six digits is on its way.", "若這個電子郵件可以註冊，含有六位數字的郵件已經寄出。";
        verify_done: "Your account is ready. Sign in with it.", "您的帳號已建立完成，請登入。";
        // New passwords.
        new_password: "Password", "密碼";
        again: "Repeat the password", "再次輸入密碼";
        display_name: "Your name", "您的姓名";
        password_rule: "At least 8 characters, with an upper-case letter, and also a digit or a sign. Not a common one.", "至少 8 個字元，包含大寫字母，以及數字或符號，且不可使用常見的密碼。";
        differing: "The two passwords differ.", "兩次輸入的密碼不同。";
        // Set-up.
        setup_title: "Welcome to Roster", "歡迎使用 Roster";
        setup_text: "Create the first administrator of this site. This link works once.", "請建立本站的第一位管理員。這個連結只能使用一次。";
        setup_submit: "Create administrator", "建立管理員";
        setup_done: "The administrator is created. Sign in with the name and password that you chose.", "管理員已建立，請用您設定的名稱與密碼登入。";
        // Invitation.
        invitation_title: "{} invites you", "{} 邀請您加入";
        invitation_text: "Create your account. This link works once.", "請建立您的帳號。這個連結只能使用一次。";
        invitation_submit: "Create account", "建立帳號";
        invitation_taken: "If that is you, join with your account, as described below.", "如果那是您的帳號，請依下方說明用它加入。";
        invitation_known_title: "Do you already have an account here?", "您在這裡已經有帳號了嗎？";
        invitation_known_text: "Then do not create a second one: sign in, and join {} with it.", "那就不需要再建立：請登入，並用該帳號加入 {}。";
        invitation_sign_in: "Sign in and join", "登入並加入";
        invitation_join_text: "You are signed in. Join {} with your account. This link works once.", "您已登入，可以用您的帳號加入 {}。這個連結只能使用一次。";
        invitation_join: "Join", "加入";
        invitation_joined: "You have joined {}.", "您已加入 {}。";
        invitation_program: "I use another page to sign in", "我使用其他頁面登入";
        invitation_program_text: "Give this code to the people who run that page, or send it yourself while signed in, as {} to {}.", "請將這組代碼交給該頁面的管理者，或在登入後自行將 {} 送到 {}。";
        invitation_done: "Your account is ready. Sign in with it.", "您的帳號已建立完成，請登入。";
        // Password link.
        reset_title: "Set a new password", "設定新密碼";
        reset_text: "This link works once. All your sessions will end.", "這個連結只能使用一次，您所有的工作階段都會結束。";
        reset_submit: "Set password", "設定密碼";
        reset_done: "Your new password is set, and all your other sessions have ended.", "新密碼已設定，您其他的工作階段都已結束。";
        reset_done_sign_in: "Your new password is set. Sign in with it.", "新密碼已設定，請用新密碼登入。";
        // A form that was sent too late.
        interrupted_title: "Your session has ended", "您的工作階段已結束";
        interrupted_text: "Nothing was saved. Sign in, then send the form again.", "資料尚未儲存。請先登入，再重新送出表單。";
        interrupted_copy: "Copy it first: the sign-in opens in a new tab, where the form is empty.", "請先複製下列內容：登入頁面會在新分頁開啟，那裡的表單是空白的。";
        interrupted_typed: "What you typed", "您輸入的內容";
    }
}
