//! The real program as a node on a test host: started, killed, asked through its own command line.

use crate::{Host, eventually_within};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// How long a node may take until its socket answers.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Path of the program under test: `WARREN_BIN`, which `cargo xtask test` sets, else the one that
/// cargo has built next to this test.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn program() -> PathBuf {
    if let Some(given) = std::env::var_os("WARREN_BIN") {
        return PathBuf::from(given);
    }
    let own = std::env::current_exe().unwrap_or_else(|e| panic!("own path: {e}"));
    let found = own
        .ancestors()
        .map(|dir| dir.join("warren"))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!("the program is not built: run `cargo xtask test`, or `cargo build -p warren` first")
    })
}

/// One call of the command line.
#[derive(Debug, Clone)]
pub struct CliOutput {
    /// Exit status; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl CliOutput {
    /// Standard output of a call that had to succeed.
    ///
    /// # Panics
    /// When it failed.
    #[must_use]
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(
            self.code, 0,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        self.stdout
    }

    /// Both outputs of a call that had to fail with this status.
    ///
    /// # Panics
    /// When it succeeded or failed otherwise.
    #[must_use]
    #[track_caller]
    pub fn fails(self, code: i32) -> String {
        assert_eq!(
            self.code, code,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// A node on a host.
#[derive(Debug)]
pub struct Node {
    host: Host,
    directory: TempDir,
    daemon: Option<Child>,
    starts: u32,
}

impl Node {
    /// A host with directories, nothing started.
    ///
    /// # Panics
    /// When the host cannot be made.
    #[must_use]
    pub fn new() -> Self {
        Self::on(Host::new())
    }

    /// Directories on this host, nothing started.
    ///
    /// # Panics
    /// When the directory cannot be made.
    #[must_use]
    pub fn on(host: Host) -> Self {
        let directory = tempfile::Builder::new().prefix("warren-test-").tempdir();
        let directory = directory.unwrap_or_else(|e| panic!("temporary directory: {e}"));
        Self {
            host,
            directory,
            daemon: None,
            starts: 0,
        }
    }

    /// A node that runs and answers.
    #[must_use]
    pub fn running() -> Self {
        let mut node = Self::new();
        node.start();
        node
    }

    /// The host.
    #[must_use]
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// Directory of everything of this node.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The run directory: what a reboot empties.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// Texts that what this node makes on the machine is named by: its directory, and the id that its
    /// control groups carry. It must be running.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn marks(&self) -> Vec<String> {
        let nodes = self.json(&["node", "list", "-o", "json"]);
        let ids = nodes
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|n| n["id"].as_str());
        let marks: Vec<String> = ids.map(str::to_owned).collect();
        assert!(!marks.is_empty(), "no node: {nodes}");
        marks
            .into_iter()
            .chain([self.directory().display().to_string()])
            .collect()
    }

    /// The socket of the daemon.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("warren.sock")
    }

    /// A call of the program on the host with this node's directories.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = self.host.command(&program().display().to_string());
        command
            .env("WARREN_DATA_DIR", self.data_dir())
            .env("WARREN_RUN_DIR", self.run_dir())
            .env("WARREN_SOCKET", self.socket())
            .env_remove("WARREN_MANAGER")
            .stdin(Stdio::null());
        command
    }

    /// Starts the daemon in the foreground of its own process and waits until it answers.
    ///
    /// # Panics
    /// When it does not answer in time; the message holds the end of its log.
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// As [`Self::start`], with more environment.
    ///
    /// # Panics
    /// When it does not answer in time.
    pub fn start_with(&mut self, environment: &[(&str, &str)]) {
        let fresh = !self.data_dir().exists();
        let words: &[&str] = if fresh {
            &["cluster", "init", "--node-id", "n1"]
        } else {
            &["node", "run"]
        };
        self.spawn(words, environment);
        eventually_within(START_LIMIT, "the node answers and is ready", || {
            self.must_run();
            let nodes = self.try_cli(&["node", "list", "-o", "json"]);
            if nodes.code == 0 && nodes.stdout.contains("\"ready\"") {
                return Ok(());
            }
            Err(format!(
                "{}{}\n{}",
                nodes.stdout,
                nodes.stderr,
                self.log_tail()
            ))
        });
    }

    /// Starts the daemon with this command and waits for nothing.
    ///
    /// # Panics
    /// When it runs already or cannot be started.
    pub fn spawn(&mut self, words: &[&str], environment: &[(&str, &str)]) {
        assert!(self.daemon.is_none(), "the node runs already");
        self.starts += 1;
        let log = self.log_file();
        let file = File::create(&log).unwrap_or_else(|e| panic!("{}: {e}", log.display()));
        let copy = file
            .try_clone()
            .unwrap_or_else(|e| panic!("{}: {e}", log.display()));
        let mut command = self.command();
        command
            .args(words)
            .envs(environment.iter().copied())
            .stdout(file)
            .stderr(copy);
        self.daemon = Some(command.spawn().unwrap_or_else(|e| panic!("daemon: {e}")));
    }

    /// Looks whether the daemon has ended by itself; its exit status then.
    pub fn ended(&mut self) -> Option<i32> {
        let status = self.daemon.as_mut()?.try_wait().ok().flatten()?;
        self.daemon = None;
        Some(status.code().unwrap_or(-1))
    }

    /// # Panics
    /// When the daemon has ended; the message holds the end of its log.
    pub fn must_run(&mut self) {
        if let Some(status) = self.ended() {
            panic!("the daemon ended with {status}:\n{}", self.log_tail());
        }
    }

    /// Sends the daemon a signal.
    ///
    /// # Panics
    /// When it does not run.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = self.pid().unwrap_or_else(|| panic!("no daemon to signal"));
        let sent = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), signal);
        sent.unwrap_or_else(|e| panic!("{signal} to {pid}: {e}"));
    }

    /// Process id of the daemon.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Child::id)
    }

    /// Kills the daemon as a power cut of that one process would: no chance to tidy up.
    pub fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            // It may have ended by itself; either way it is gone afterwards.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }

    /// Asks the daemon to stop and waits for it.
    ///
    /// # Panics
    /// When it does not stop.
    pub fn stop(&mut self) {
        let _ = self.cli(&["node", "stop"]).ok();
        if let Some(mut daemon) = self.daemon.take() {
            let status = daemon.wait();
            assert!(
                status.as_ref().is_ok_and(std::process::ExitStatus::success),
                "{status:?}\n{}",
                self.log_tail()
            );
        }
    }

    /// One call of the command line on the host.
    #[must_use]
    pub fn cli(&self, words: &[&str]) -> CliOutput {
        self.try_cli(words)
    }

    /// One call of the command line with these variables besides.
    ///
    /// # Panics
    /// When the program cannot be started.
    #[must_use]
    pub fn cli_with_environment(&self, words: &[&str], environment: &[(&str, &str)]) -> CliOutput {
        let mut command = self.command();
        command.args(words).envs(environment.iter().copied());
        output(
            command
                .output()
                .unwrap_or_else(|e| panic!("warren {}: {e}", words.join(" "))),
        )
    }

    /// One call of the command line with this standard input.
    ///
    /// # Panics
    /// When the program cannot be started.
    #[must_use]
    pub fn cli_with_input(&self, words: &[&str], input: &[u8]) -> CliOutput {
        let mut command = self.command();
        command
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|e| panic!("warren {}: {e}", words.join(" ")));
        if let Some(mut stdin) = child.stdin.take() {
            // A program that does not read its input closes it; its answer counts, not this.
            let _ = std::io::Write::write_all(&mut stdin, input);
        }
        output(
            child
                .wait_with_output()
                .unwrap_or_else(|e| panic!("warren {}: {e}", words.join(" "))),
        )
    }

    /// Standard output, as JSON.
    ///
    /// # Panics
    /// When the call fails or prints something else.
    #[must_use]
    #[track_caller]
    pub fn json(&self, words: &[&str]) -> serde_json::Value {
        let text = self.cli(words).ok();
        serde_json::from_str(&text)
            .unwrap_or_else(|e| panic!("warren {}: {e}: {text}", words.join(" ")))
    }

    /// Writes a file below the node's directory and returns its path as text.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn file(&self, name: &str, content: &[u8]) -> String {
        let path = self.directory.path().join(name);
        std::fs::write(&path, content).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        path.display().to_string()
    }

    /// The end of the daemon's log, without the record of calls.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = std::fs::read(self.log_file()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines = text.lines().filter(|line| !line.contains(" audit: "));
        let lines: Vec<&str> = lines.collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Log of the present or last run of the daemon.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.directory
            .path()
            .join(format!("daemon-{}.log", self.starts))
    }

    /// Removes everything that the node made.
    ///
    /// # Panics
    /// When the reset fails.
    pub fn reset(&mut self) {
        self.kill();
        let _ = self.cli(&["node", "reset", "--yes"]).ok();
    }

    fn try_cli(&self, words: &[&str]) -> CliOutput {
        let mut command = self.command();
        command.args(words);
        output(
            command
                .output()
                .unwrap_or_else(|e| panic!("warren {}: {e}", words.join(" "))),
        )
    }
}

impl Default for Node {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        let reset = self.try_cli(&["node", "reset", "--yes"]);
        if std::thread::panicking() {
            let log = self.log_tail();
            eprintln!("--- end of the daemon's log\n{log}\n--- reset: {reset:?}");
        }
    }
}

fn output(out: Output) -> CliOutput {
    CliOutput {
        code: out.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}
