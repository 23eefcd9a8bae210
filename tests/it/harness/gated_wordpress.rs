//! A WordPress whose second list of users comes when the test allows it: a comparison with it runs as long as the test
//! needs.

use std::sync::{Arc, Condvar, Mutex, mpsc};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::stub_server::{self, StubRequest, StubServer};

/// The users of a full list.
pub const LISTED: u64 = 100;

type Gate = Arc<(Mutex<State>, Condvar)>;

#[derive(Default)]
struct State {
    is_open: bool,
    /// Requests that wait.
    waiting: usize,
}

pub struct GatedWordPress {
    url: String,
    gate: Gate,
    secrets: TempDir,
}

impl GatedWordPress {
    pub fn start() -> Self {
        Self::with_second_list(0)
    }

    /// The second list has this many users.
    pub fn with_second_list(users: u64) -> Self {
        let gate = Gate::default();
        let (sender, receiver) = mpsc::channel();
        let waiting = gate.clone();
        // On threads of its own, because an answer that waits blocks its thread.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let server = StubServer::start(move |asked| answer(&asked, users, &waiting));
                sender.send(server.url.clone()).expect("the test waits");
                std::future::pending::<()>().await;
            });
        });
        let (url, secrets) = (receiver.recv().expect("a URL"), tempfile::tempdir().expect("a directory"));
        std::fs::write(secrets.path().join("password"), "x").expect("a secret");
        Self { url, gate, secrets }
    }

    pub fn settings(&self) -> String {
        let file = self.secrets.path().join("password");
        format!(
            "wordpress.url = \"{}\"\nwordpress.username = \"admin\"\nwordpress.password_file = \"{}\"\n\
             neighbours.timeout_ms = 60000\n",
            self.url,
            file.display()
        )
    }

    /// Whether a request waits.
    pub fn is_waiting(&self) -> bool {
        self.gate.0.lock().expect("no panic").waiting > 0
    }

    /// From now on every answer comes at once.
    pub fn open(&self) {
        self.gate.0.lock().expect("no panic").is_open = true;
        self.gate.1.notify_all();
    }
}

impl Drop for GatedWordPress {
    fn drop(&mut self) {
        self.open();
    }
}

fn answer(asked: &StubRequest, second: u64, gate: &Gate) -> poem::Response {
    if asked.path.ends_with("/me") {
        return stub_server::json(200, &json!({"id": 1, "username": "admin", "email": "", "roles": []}));
    }
    let user = |id: u64| json!({"id": id, "username": format!("w{id}"), "name": "W", "roles": ["subscriber"]});
    let is_page = |number: &str| asked.query.iter().any(|(name, value)| name == "page" && value == number);
    if !is_page("1") {
        let mut state = gate.0.lock().expect("no panic");
        state.waiting += 1;
        let mut state = gate.1.wait_while(state, |state| !state.is_open).expect("no panic");
        state.waiting -= 1;
        let users = if is_page("2") { second } else { 0 };
        return stub_server::json(200, &Value::Array((0..users).map(|n| user(1_000 + n)).collect()));
    }
    stub_server::json(200, &Value::Array((2..2 + LISTED).map(user).collect()))
}
