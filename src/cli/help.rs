//! The help beyond the descriptions of clap: an example of each command, and the pages of the manual. Also maps fields
//! of the API to flags, for failures that name a field.

use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Command, CommandFactory};

use super::{Arguments, process};
use crate::console::manual;
use crate::kernel::nearest::did_you_mean;

/// Each command with an example.
#[rustfmt::skip]
const EXAMPLES: &[(&str, &str)] = &[
    ("serve", "roster serve --data /srv/roster --listen 0.0.0.0:8480"),
    ("init", "roster init --data /srv/roster --admin admin@example.org"),
    ("setup-link", "roster setup-link --data /srv/roster"),
    ("config check", "roster config check --data /srv/roster"),
    ("config show", "roster config show --json"),
    ("member list", "roster member list --keyword example.org"),
    ("member create", "roster member create --username kim --email kim@example.org --name 'Kim Lee'"),
    ("member show", "roster member show kim"),
    ("member activate", "roster member activate kim"),
    ("member deactivate", "roster member deactivate kim@example.org"),
    ("member password", "roster member password kim"),
    ("member password-link", "roster member password-link kim"),
    ("member link", "roster member link kim acme --role member --role viewer"),
    ("member reset-second-factor", "roster member reset-second-factor kim"),
    ("member sessions", "roster member sessions kim"),
    ("member end-sessions", "roster member end-sessions kim"),
    ("member import", "roster member import members.csv --dry-run"),
    ("member delete", "roster member delete kim"),
    ("org list", "roster org list --keyword studio"),
    ("org create", "roster org create acme 'Acme Studios'"),
    ("org show", "roster org show acme"),
    ("org activate", "roster org activate acme"),
    ("org deactivate", "roster org deactivate acme"),
    ("org second-factor", "roster org second-factor acme on"),
    ("invite create", "roster invite create acme --role member --expires-at 14d"),
    ("invite list", "roster invite list acme"),
    ("invite withdraw", "roster invite withdraw acme 019abcde-0000-7000-8000-000000000001"),
    ("client list", "roster client list"),
    ("client create", "roster client create portal --scopes members:read,permissions:check --expires-at 2027-12-31"),
    ("client rotate", "roster client rotate rc_3q2-7w"),
    ("client disable", "roster client disable rc_3q2-7w"),
    ("client enable", "roster client enable rc_3q2-7w"),
    ("client delete", "roster client delete rc_3q2-7w"),
    ("key list", "roster key list --member kim"),
    ("key create", "roster key create upload-station --service transcoder --scopes jobs:write --expires-at 180d"),
    ("key import", "roster key import laptop --member kim --hash 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"),
    ("key rotate", "roster key rotate 019abcde-0000-7000-8000-000000000004"),
    ("key revoke", "roster key revoke 019abcde-0000-7000-8000-000000000004"),
    ("job list", "roster job list --state dead --member kim"),
    ("job counts", "roster job counts"),
    ("job retry", "roster job retry 019abcde-0000-7000-8000-000000000005"),
    ("signing-key list", "roster signing-key list"),
    ("signing-key rotate", "roster signing-key rotate"),
    ("encryption-key rotate", "roster encryption-key rotate"),
    ("outbox list", "roster outbox list --state dead --kind member.created"),
    ("outbox retry", "roster outbox retry 42.mail.019abcde-0000-7000-8000-000000000002"),
    ("connection list", "roster connection list"),
    ("connection test", "roster connection test sftpgo"),
    ("task list", "roster task list"),
    ("task show", "roster task show 019abcde-0000-7000-8000-000000000006"),
    ("task cancel", "roster task cancel 019abcde-0000-7000-8000-000000000006"),
    ("sync wordpress", "roster sync wordpress --dry-run"),
    ("sftpgo drift", "roster sftpgo drift"),
    ("sftpgo reconcile", "roster sftpgo reconcile --dry-run"),
    ("catalog import", "roster catalog import gitea.yaml --app gitea --prefix gitea"),
    ("catalog diff", "roster catalog diff catalog.yaml"),
    ("catalog export", "roster catalog export --app gitea"),
    ("video list", "roster video list --keyword harbour"),
    ("video import", "roster video import --dry-run --prefix kim"),
    ("video claim", "roster video claim --dry-run"),
    ("quota list", "roster quota list --keyword kim"),
    ("quota set", "roster quota set kim 20GB"),
    ("quota recount", "roster quota recount --repair"),
    ("tls local", "roster tls local --host nas.local --host 192.168.1.5"),
    ("search", "roster search kim --org acme"),
    ("statistics", "roster statistics --since 30d --org acme"),
    ("audit verify", "roster audit verify"),
    ("plugin new", "roster plugin new --lang rust hours"),
    ("plugin wit", "roster plugin wit"),
    ("plugin pack", "roster plugin pack core.wasm --vectors vectors.yaml -o hours.wasm"),
    ("plugin check", "roster plugin check hours.wasm"),
    ("plugin test", "roster plugin test hours.wasm vectors.yaml"),
    ("plugin bench", "roster plugin bench hours.wasm --calls 10000"),
    ("plugin replay", "roster plugin replay --from 7d --org acme --candidate hours.wasm"),
    ("plugin upload", "roster plugin upload hours.wasm --name hours --org acme"),
    ("plugin list", "roster plugin list --org acme"),
    ("plugin show", "roster plugin show hours --org acme"),
    ("plugin log", "roster plugin log hours --org acme"),
    ("plugin dry-run", "roster plugin dry-run hours question.json --org acme"),
    ("plugin activate", "roster plugin activate hours 1 --mode shadow --org acme"),
    ("plugin deactivate", "roster plugin deactivate hours --org acme"),
    ("plugin rollback", "roster plugin rollback hours --org acme"),
    ("plugin delete", "roster plugin delete hours --version 1 --org acme"),
    ("openapi", "roster openapi"),
    ("help", "roster help sign-in"),
    ("version", "roster version --json"),
];

/// The clap command with examples and Roster's own `help` command.
pub fn command() -> Command {
    let help = Command::new(HELP).about("Print a page of the manual, or the help of a command").arg(
        Arg::new(TOPIC)
            .value_name("TOPIC")
            .num_args(..)
            .help("A page of the manual, such as `sign-in`, or a command, such as `member create`; none lists all"),
    );
    // The help command of clap cannot print pages of the manual.
    let program = Arguments::command().disable_help_subcommand(true).subcommand(help);
    program.mut_subcommands(|command| with_examples(command, ""))
}

const HELP: &str = "help";
const TOPIC: &str = "topic";

/// The topic words of `roster help …` or `roster member help …`; `None` for other commands.
pub(super) fn requested_topic(matches: &ArgMatches) -> Option<Vec<String>> {
    let (mut topic, mut matches) = (Vec::new(), matches);
    while let Some((name, inner)) = matches.subcommand() {
        if name == HELP {
            let words = inner.get_many::<String>(TOPIC).into_iter().flatten().cloned();
            topic.extend(words);
            return Some(topic);
        }
        topic.push(name.to_owned());
        matches = inner;
    }
    None
}

/// Prints the list of topics, a page of the manual, or the help of a command. Exits with clap's usage error if the
/// words name none of them.
pub(super) fn print(words: &[String]) {
    let mut program = command();
    program.build();
    let found = words.iter().try_fold(&program, |command, word| command.find_subcommand(word));
    let page = match words {
        [] => {
            say!("{}\n\n{}", program.clone().render_long_help().to_string().trim_end(), topics());
            return;
        }
        [name] => manual::find(name),
        _ => Err(String::new()),
    };
    match (page, found) {
        (Ok(page), command) => {
            say!("{}", manual::plain(page, process::terminal_width()).trim_end());
            if command.is_some() {
                say!("\nThe commands: roster {} --help", words.join(" "));
            }
        }
        (Err(_), Some(found)) => say!("{}", found.clone().render_long_help()),
        (Err(suggestion), None) => {
            let named = words.join(" ");
            let suggestion = if suggestion.is_empty() {
                did_you_mean(&named, program.get_subcommands().map(Command::get_name))
            } else {
                suggestion
            };
            let message = format!("there is no page and no command {named}{suggestion}: `roster help` lists them\n");
            program.error(ErrorKind::InvalidSubcommand, message).exit();
        }
    }
}

/// The list of the manual's pages, by the names that `roster help` accepts.
fn topics() -> String {
    let width = manual::PAGES.iter().map(|page| page.name.len()).max().unwrap_or_default();
    let line = |page: &manual::Page| format!("  {:width$}  {}", page.name, page.title());
    let lines: Vec<String> = manual::PAGES.iter().map(line).collect();
    format!("Topics of the manual, also served at {}:\n{}", manual::PATH, lines.join("\n"))
}

fn with_examples(command: Command, above: &str) -> Command {
    let path = format!("{above}{}", command.get_name());
    if command.has_subcommands() {
        let below = format!("{path} ");
        let help = Command::new(HELP).hide(true).arg(Arg::new(TOPIC).num_args(..));
        return command.mut_subcommands(|inner| with_examples(inner, &below)).subcommand(help);
    }
    match EXAMPLES.iter().find(|(of, _)| *of == path) {
        Some((_, example)) => command.after_help(format!("Example:\n  {example}")),
        None => command,
    }
}

/// The placeholder of an argument without a flag.
pub(super) fn placeholder(argument: &Arg) -> String {
    let named = argument.get_value_names().and_then(<[_]>::first).map(ToString::to_string);
    named.unwrap_or_else(|| argument.get_id().as_str().to_uppercase())
}

/// Fields of the API whose flag has a different name: (field, argument id).
const OTHER_NAMES: [(&str, &str); 10] = [
    ("allowed_ips", "ips"),
    ("allowed_origins", "origins"),
    ("allowed_paths", "paths"),
    ("display_name", "name"),
    ("key_hash", "hash"),
    ("login", "admin"),
    ("rate_limit_per_min", "rate_limit"),
    ("role_key", "role"),
    ("service_name", "service"),
    ("type", "kind"),
];

/// The arguments of the command of this run: the id of each, and how it is written on the command line.
#[derive(Debug, Clone, Default)]
pub(super) struct Spelling(Vec<(String, String)>);

impl Spelling {
    pub(super) fn of(matches: &ArgMatches) -> Self {
        let program = Arguments::command();
        let (mut command, mut matches) = (&program, matches);
        while let Some((name, inner)) = matches.subcommand()
            && let Some(found) = command.find_subcommand(name)
        {
            (command, matches) = (found, inner);
        }
        let written = command.get_arguments().map(|argument| {
            let id = argument.get_id().as_str();
            let text = argument.get_long().map_or_else(|| placeholder(argument), |long| format!("--{long}"));
            (id.to_owned(), text)
        });
        Self(written.collect())
    }

    /// The flag or placeholder for a field of the API; the field's name with spaces if there is none.
    pub(super) fn field(&self, name: &str) -> String {
        let other = OTHER_NAMES.iter().find(|(field, _)| *field == name).map(|(_, argument)| *argument);
        let find = |wanted: &str| self.0.iter().find(|(id, _)| id == wanted).map(|(_, text)| text.clone());
        find(name).or_else(|| other.and_then(find)).unwrap_or_else(|| name.replace('_', " "))
    }
}
