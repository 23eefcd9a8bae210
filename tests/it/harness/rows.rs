//! What a site stores and measures: its rows, its metrics, its memory.

use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::site::Site;

pub fn open_rows(data: &Path) -> rusqlite::Connection {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    rusqlite::Connection::open_with_flags(data.join("roster.db"), flags).expect("the file")
}

/// The value of a metric.
pub fn metric(metrics: &str, name: &str) -> u64 {
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("no {name}: {metrics}"))
}

/// A response from the server's local socket, read without an async runtime because it is needed in `drop`.
pub fn get_locally(data: &Path, path: &str) -> String {
    let mut stream = std::os::unix::net::UnixStream::connect(data.join("roster.sock")).expect("the local socket");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: local\r\nconnection: close\r\n\r\n").expect("a request");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    text
}

impl Site {
    /// Resident memory of the server.
    pub fn resident_kib(&self) -> u64 {
        let pid = self.process();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// The processor time that the server has used, in clock ticks (of 10 ms on Linux).
    pub fn processor_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process())).expect("its times");
        // After the name, which is in parentheses: the 12th and 13th field are the time of the program and of the
        // kernel.
        let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
        fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
    }

    /// The metrics, read from the local socket.
    pub fn metrics(&self) -> String {
        get_locally(self.path(), "/metrics")
    }

    /// The value of one metric.
    pub fn metric(&self, name: &str) -> u64 {
        metric(&self.metrics(), name)
    }

    /// The peak resident memory of the server, in kB.
    pub fn peak_memory_kb(&self) -> u64 {
        let pid = self.process();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// A read-only connection to the database beside the server.
    pub fn rows(&self) -> rusqlite::Connection {
        open_rows(self.path())
    }

    /// The number of rows of a table.
    pub fn count(&self, table: &str) -> i64 {
        self.number(&format!("select count(*) from {table}"))
    }

    /// The number that a query returns.
    pub fn number(&self, sql: &str) -> i64 {
        self.rows().query_row(sql, [], |row| row.get(0)).expect("a number")
    }

    /// The data of all events of one kind, the oldest first.
    pub fn events(&self, kind: &str) -> Vec<Value> {
        let rows = self.rows();
        let mut all = rows.prepare("select data from events where kind = ?1 order by id").expect("events");
        let found = all.query_map([kind], |row| row.get::<_, String>(0)).expect("rows");
        found.map(|data| serde_json::from_str(&data.expect("text")).expect("JSON")).collect()
    }

    /// Asserts that no change since the start of the server took many steps of SQLite: a thousand for each row of a
    /// batch. A change of all rows at once takes several times as many.
    pub fn require_small_changes(&self) {
        const STEPS_MAX: u64 = 200_000;
        let steps = self.metric("roster_writer_steps_largest");
        assert!(steps > 0 && steps < STEPS_MAX, "one change took {steps} steps");
    }

    /// Changes rows beside the running server, where no operation makes such rows.
    pub fn write_rows<T>(&self, change: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T>) -> T {
        let rows = rusqlite::Connection::open(self.path().join("roster.db")).expect("the file");
        rows.busy_timeout(Duration::from_secs(10)).expect("patience");
        rows.execute_batch("pragma foreign_keys = on; begin immediate").expect("a transaction");
        let answer = change(&rows).expect("a change");
        rows.execute_batch("commit").expect("a commit");
        answer
    }
}
