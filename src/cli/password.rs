//! Reads passwords for commands.

use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;

use clap::Args;

use super::Failed;

/// The source of a password: a prompt, unless a flag names another source. Never an argument.
#[derive(Args)]
pub(super) struct PasswordSource {
    /// Read the password from the first line of standard input
    #[arg(long)]
    password_stdin: bool,
    /// Read the password from the first line of this file
    #[arg(long, value_name = "FILE", conflicts_with = "password_stdin")]
    password_file: Option<PathBuf>,
}

impl PasswordSource {
    /// Whether a flag names a source.
    pub(super) fn is_given(&self) -> bool {
        self.password_stdin || self.password_file.is_some()
    }

    pub(super) fn read(&self) -> Result<String, Failed> {
        if let Some(path) = &self.password_file {
            let text =
                std::fs::read_to_string(path).map_err(|e| Failed(format!("{} cannot be read: {e}", path.display())))?;
            return Ok(text.lines().next().unwrap_or_default().to_owned());
        }
        if self.password_stdin {
            let mut line = String::new();
            std::io::stdin().lock().read_line(&mut line)?;
            return Ok(line.trim_end_matches(['\r', '\n']).to_owned());
        }
        if !std::io::stdin().is_terminal() {
            return Err(Failed(
                "there is no terminal to prompt for the password: use --password-stdin or --password-file".into(),
            ));
        }
        let first = rpassword::prompt_password("Password: ")?;
        let second = rpassword::prompt_password("Repeat the password: ")?;
        if first == second { Ok(first) } else { Err(Failed("the two passwords differ".into())) }
    }
}
