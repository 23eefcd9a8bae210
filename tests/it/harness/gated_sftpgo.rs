//! An SFTPGo without users whose first creation of a user comes when the test allows it: a reconciliation with it runs as
//! long as the test needs.

use std::sync::{Arc, Condvar, Mutex, mpsc};

use serde_json::json;
use tempfile::TempDir;

use super::stub_server::{self, StubRequest, StubServer};

type Gate = Arc<(Mutex<State>, Condvar)>;

#[derive(Default)]
struct State {
    is_open: bool,
    /// Creations so far, the one that waits included.
    created: usize,
}

pub struct GatedSftpgo {
    url: String,
    gate: Gate,
    secrets: TempDir,
}

impl GatedSftpgo {
    pub fn start() -> Self {
        let gate = Gate::default();
        let (sender, receiver) = mpsc::channel();
        let waiting = gate.clone();
        // On threads of its own, because an answer that waits blocks its thread.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let server = StubServer::start(move |asked| answer(&asked, &waiting));
                sender.send(server.url.clone()).expect("the test waits");
                std::future::pending::<()>().await;
            });
        });
        let (url, secrets) = (receiver.recv().expect("a URL"), tempfile::tempdir().expect("a directory"));
        std::fs::write(secrets.path().join("key"), "labkeyid.labsecret").expect("a secret");
        Self { url, gate, secrets }
    }

    pub fn settings(&self) -> String {
        let file = self.secrets.path().join("key");
        format!(
            "sftpgo.url = \"{}\"\nsftpgo.secret_file = \"{}\"\nsftpgo.home = \"/srv/{{username}}\"\n\
             neighbours.timeout_ms = 60000\n",
            self.url,
            file.display()
        )
    }

    /// How many users were created, the one that waits included.
    pub fn created(&self) -> usize {
        self.gate.0.lock().expect("no panic").created
    }

    /// From now on every answer comes at once.
    pub fn open(&self) {
        self.gate.0.lock().expect("no panic").is_open = true;
        self.gate.1.notify_all();
    }
}

impl Drop for GatedSftpgo {
    fn drop(&mut self) {
        self.open();
    }
}

fn answer(asked: &StubRequest, gate: &Gate) -> poem::Response {
    match (asked.method.as_str(), asked.path.as_str()) {
        ("GET", "/users") => stub_server::json(200, &json!([])),
        ("POST", "/users") => {
            let mut state = gate.0.lock().expect("no panic");
            state.created += 1;
            drop(gate.1.wait_while(state, |state| !state.is_open).expect("no panic"));
            stub_server::json(201, &json!({}))
        }
        _ => stub_server::json(404, &json!({"message": "", "error": "Not Found"})),
    }
}
