//! A sentence about each kind of event, for those who choose what a webhook is told.

use super::Language;
use crate::kernel::outbox::EventKind;

/// The sentences in Chinese.
const CHINESE: &[(EventKind, &str)] = &[
    (EventKind::MemberCreated, "建立了成員。"),
    (EventKind::MemberUpdated, "成員的名稱已變更。"),
    (EventKind::MemberSuspended, "成員已停權。"),
    (EventKind::MemberActivated, "成員已重新啟用。"),
    (EventKind::MemberDeleted, "成員已刪除。"),
    (EventKind::MemberWelcomed, "成員收到設定第一組密碼的一次性連結。"),
    (EventKind::PasswordForgotten, "成員要求設定新密碼的連結。"),
    (EventKind::QuotaChanged, "成員的配額已變更。"),
    (EventKind::QuotaWarning, "成員的用量超過 80% 或 95%。"),
    (EventKind::CeilingWarning, "組織的用量超過上限的 80% 或 95%。"),
    (EventKind::QuotaFull, "配額或其上層的配額已滿。"),
    (EventKind::QuotaExceeded, "有內容超過配額而無法存入。"),
    (EventKind::QuotaFreed, "已滿的配額恢復可用空間。"),
    (EventKind::VideoRegistered, "登錄了影片。"),
    (EventKind::VideoChanged, "影片被取代、移動或重新命名。"),
    (EventKind::VideoDeleted, "影片已刪除。"),
    (EventKind::VideoTransferred, "影片移轉給另一位擁有者。"),
    (EventKind::JobDead, "工作失敗次數過多。"),
    (EventKind::PluginQuarantined, "外掛失敗次數過多。"),
];

/// When the event happens, as a sentence.
pub fn about(kind: EventKind, language: Language) -> String {
    let chinese = CHINESE.iter().find(|(known, _)| *known == kind).map(|(_, text)| *text);
    match (language, chinese) {
        (Language::Chinese, Some(text)) => text.to_owned(),
        _ => format!("{}.", kind.about()),
    }
}

#[cfg(test)]
mod tests {
    use super::{CHINESE, EventKind, Language, about};

    #[test]
    fn every_kind_has_one_sentence_in_both_languages() {
        let known: Vec<EventKind> = CHINESE.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(known, EventKind::ALL);
        for kind in EventKind::ALL {
            assert!(about(*kind, Language::English).ends_with('.'), "{}", kind.as_str());
            assert!(about(*kind, Language::Chinese).ends_with('。'), "{}", kind.as_str());
        }
    }
}
