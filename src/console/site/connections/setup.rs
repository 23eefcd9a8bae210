//! How a connection is set up: its secret in a file, its lines in `roster.toml`, a check, the restart and the test.

use maud::{Markup, html};

use crate::console::components::copyable_block;
use crate::console::i18n::connections::Connections;
use crate::console::visit::Visit;
use crate::kernel::config::FILE_NAME;

/// What sets a connection up.
pub struct Example {
    pub kind: &'static str,
    /// The name of the file with the secret.
    file: &'static str,
    /// The lines of `roster.toml`. The folder of the file is written as `FOLDER`.
    lines: &'static str,
}

const FOLDER: &str = "/etc/roster";

pub const EXAMPLES: [Example; 5] = [
    Example {
        kind: "wordpress",
        file: "wordpress.password",
        lines: "[wordpress]\nurl = \"https://www.example.org\"\nusername = \"roster\"\npassword_file = \"/etc/roster/wordpress.password\"",
    },
    Example {
        kind: "sftpgo",
        file: "sftpgo.secret",
        lines: "[sftpgo]\nurl = \"http://127.0.0.1:8080/api/v2\"\nusername = \"roster\"\nsecret_file = \"/etc/roster/sftpgo.secret\"\nhome = \"/srv/media/{username}\"",
    },
    Example {
        kind: "oidc",
        file: "company.secret",
        lines: "[[oidc]]\nname = \"company\"\nissuer = \"https://id.example.org\"\nclient_id = \"roster\"\nclient_secret_file = \"/etc/roster/company.secret\"",
    },
    Example {
        kind: "authentik",
        file: "authentik.token",
        lines: "[authentik]\nurl = \"https://id.example.org\"\ntoken_file = \"/etc/roster/authentik.token\"",
    },
    Example {
        kind: "mail",
        file: "mail.password",
        lines: "[mail]\nhost = \"mail.example.org\"\nport = 587\nsecurity = \"starttls\"\nusername = \"roster@example.org\"\npassword_file = \"/etc/roster/mail.password\"\nfrom = \"Roster <roster@example.org>\"",
    },
];

impl Example {
    /// The lines with the secret in the data directory.
    fn lines_in(&self, data: &str) -> String {
        self.lines.replace(FOLDER, &data.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

/// The steps that set up a connection of this kind, with the paths of this site; `None` for webhooks. The secret comes
/// before the lines, and a check before the restart, because Roster does not start with a setting that is wrong.
pub fn steps(visit: &Visit, kind: &str) -> Option<Markup> {
    let example = EXAMPLES.iter().find(|one| one.kind == kind)?;
    let (t, frame) = (Connections::of(visit.language), visit.frame());
    let data = &visit.config().data;
    let data = std::path::absolute(data).unwrap_or_else(|_| data.clone()).display().to_string();
    let block = |text: &str| copyable_block(text, frame.copy, frame.copied);
    Some(html! {
        ol {
            li { p { (t.step_secret) } (block(&format!("install -m 600 /dev/stdin {}", quoted(&format!("{data}/{}", example.file))))) }
            li { p { (t.step_lines) " " code { (data) "/" (FILE_NAME) } } (block(&example.lines_in(&data))) }
            li { p { (t.step_check) } (block(&format!("roster config check --data {}", quoted(&data)))) }
            li { (t.step_restart) }
            li { (t.step_test) }
        }
    })
}

/// The text as one word of a shell.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(is_plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::{EXAMPLES, quoted};
    use crate::kernel::config::Config;

    #[test]
    fn the_lines_to_copy_are_settings_and_name_the_file_of_the_secret() {
        let known: Vec<&str> = Config::described().iter().map(|setting| setting.name).collect();
        for example in EXAMPLES {
            let lines = example.lines_in("/srv/my \"site\"");
            let table: toml::Table = lines.parse().unwrap_or_else(|e| panic!("{}: {e}", example.kind));
            let file = format!("/srv/my \"site\"/{}", example.file);
            let is_named = |inner: &toml::Table| inner.values().any(|value| value.as_str() == Some(&file));
            for (section, inner) in table.iter().filter(|(section, _)| *section != "oidc") {
                let inner = inner.as_table().expect("a section");
                assert!(is_named(inner), "{lines}");
                for key in inner.keys() {
                    assert!(known.contains(&format!("{section}.{key}").as_str()), "{section}.{key}");
                }
            }
        }
        let mut faults = Vec::new();
        let table: toml::Table = EXAMPLES[2].lines.parse().expect("a block");
        assert_eq!(crate::kernel::config::providers::read(&table["oidc"], &mut faults).len(), 1);
        assert_eq!(faults, [""; 0]);
    }

    #[test]
    fn a_path_is_one_word_of_a_shell() {
        for (path, word) in [("/srv/roster", "/srv/roster"), ("/srv/my site", "'/srv/my site'"), ("/o'x", "'/o'\\''x'")]
        {
            assert_eq!(quoted(path), word);
        }
    }
}
