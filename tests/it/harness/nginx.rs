//! A real nginx in front of a site, which strips a path.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use rustix::io::{FdFlags, fcntl_setfd};
use tempfile::TempDir;

/// A running nginx, until its standard input closes.
pub struct Nginx {
    child: Child,
    folder: TempDir,
}

impl Nginx {
    /// Passes requests below `stripped` to `upstream`, without this prefix; a front end answers all others. `host` is a
    /// line of settings that chooses the `Host` header.
    pub fn start(listener: TcpListener, stripped: &str, upstream: &str, host: &str) -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let (port, at) = (port(&listener), folder.path().display().to_string());
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|part| format!("{part}_temp_path {at}/{part};"))
            .concat();
        let settings = format!(
            "{user} daemon off; worker_processes 1; pid {at}/pid; error_log {at}/log;
            events {{ }}
            http {{
              access_log off; {temporary}
              server {{
                listen 127.0.0.1:{port};
                location {stripped}/ {{ {host} proxy_pass {upstream}/; }}
                location / {{ return 200 'the front end'; }}
              }}
            }}"
        );
        std::fs::write(folder.path().join("nginx.conf"), settings).expect("written");
        // nginx inherits the listening socket, so that it answers from now on and no other program gets the port.
        listener.set_nonblocking(true).expect("a socket for events");
        fcntl_setfd(&listener, FdFlags::empty()).expect("inherited");
        let unpacked = concat!(env!("CARGO_MANIFEST_DIR"), "/target/nginx/usr/sbin");
        let nginx = "PATH=$PATH:/usr/sbin:$1; nginx -e log -p \"$0\" -c nginx.conf & cat; kill $!";
        let child = Command::new("sh")
            .args(["-c", nginx, &at, unpacked])
            .env("NGINX", format!("{};", std::os::fd::AsRawFd::as_raw_fd(&listener)))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("a shell");
        Self { child, folder }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("nginx: {}", std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default());
        }
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// The port of a listener, which stays the same when nginx inherits it.
pub fn port(listener: &TcpListener) -> u16 {
    listener.local_addr().expect("an address").port()
}
