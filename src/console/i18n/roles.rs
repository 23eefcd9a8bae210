//! The names of the roles that Roster itself creates, in the reader's language.

use super::Language;

/// The name of a role: that of Roster's own roles in the reader's language unless somebody renamed them, else the display
/// name, else the key. An empty display name is one that is not known.
pub fn name<'r>(display_name: &'r str, key: &'r str, language: Language) -> &'r str {
    let builtin = BUILTIN.iter().find(|(known, ..)| *known == key);
    match builtin {
        Some((_, english, chinese)) if display_name.is_empty() || display_name == *english => {
            language.pick(english, chinese)
        }
        _ if display_name.is_empty() => key,
        _ => display_name,
    }
}

/// Key, name at its creation, and the Chinese name.
const BUILTIN: [(&str, &str, &str); 6] = [
    ("tenant_owner", "Owner", "擁有者"),
    ("tenant_admin", "Administrator", "管理員"),
    ("member_manager", "Member manager", "成員管理員"),
    ("member", "Member", "成員"),
    ("viewer", "Viewer", "檢視者"),
    ("platform_admin", "Platform administrator", "平台管理員"),
];

#[cfg(test)]
mod tests {
    use super::{BUILTIN, name};
    use crate::console::i18n::Language::{Chinese, English};
    use crate::kernel::authz::permission::{PLATFORM_ADMIN, SYSTEM_ROLES};

    #[test]
    fn system_roles_have_a_chinese_name_until_they_are_renamed() {
        for (key, display_name, _) in SYSTEM_ROLES {
            assert!(BUILTIN.iter().any(|(known, english, _)| *known == key && *english == display_name), "{key}");
        }
        assert!(BUILTIN.iter().any(|(known, ..)| *known == PLATFORM_ADMIN));
        for (display_name, key, english, chinese) in [
            ("Owner", "tenant_owner", "Owner", "擁有者"),
            ("", "tenant_owner", "Owner", "擁有者"),
            ("Boss", "tenant_owner", "Boss", "Boss"),
            ("Owner", "cutter", "Owner", "Owner"),
            ("", "cutter", "cutter", "cutter"),
        ] {
            assert_eq!([name(display_name, key, English), name(display_name, key, Chinese)], [english, chinese]);
        }
    }
}
