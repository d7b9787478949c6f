//! Where commands read and write: standard output is data, standard error is talk.

use crate::error::Result;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io::{IsTerminal, Read, Write};
use std::time::{SystemTime, UNIX_EPOCH};
use warren_types::Timestamp;

/// Longest answer to a question.
const LINE_BYTES_MAX: usize = 1024;

/// Streams of a command, and the clock for ages.
pub struct Io {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    input: Box<dyn Read + Send>,
    /// Standard error is a terminal: progress is drawn over itself.
    pub err_tty: bool,
    /// Standard input is a terminal.
    pub in_tty: bool,
    /// The present moment.
    pub now: fn() -> Timestamp,
    live: bool,
}

impl std::fmt::Debug for Io {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Io")
            .field("err_tty", &self.err_tty)
            .finish_non_exhaustive()
    }
}

fn wall_clock() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

impl Io {
    /// The process's own streams.
    #[must_use]
    pub fn process() -> Self {
        Self {
            out: Box::new(std::io::stdout()),
            err: Box::new(std::io::stderr()),
            input: Box::new(std::io::stdin()),
            err_tty: std::io::stderr().is_terminal(),
            in_tty: std::io::stdin().is_terminal(),
            now: wall_clock,
            live: false,
        }
    }

    /// Given streams, none of them a terminal.
    #[must_use]
    pub fn with(
        out: Box<dyn Write + Send>,
        err: Box<dyn Write + Send>,
        input: Box<dyn Read + Send>,
    ) -> Self {
        Self {
            out,
            err,
            input,
            err_tty: false,
            in_tty: false,
            now: wall_clock,
            live: false,
        }
    }

    /// Writes data to standard output.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn print(&mut self, text: &str) -> Result<()> {
        self.print_bytes(text.as_bytes())
    }

    /// Writes data to standard output.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn print_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.clear()?;
        self.out.write_all(bytes)?;
        self.out.flush()?;
        Ok(())
    }

    /// Writes bytes to standard error as they are.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn err_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.clear()?;
        self.err.write_all(bytes)?;
        self.err.flush()?;
        Ok(())
    }

    /// Writes a line of talk to standard error.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn say(&mut self, line: &str) -> Result<()> {
        self.clear()?;
        writeln!(self.err, "{line}")?;
        Ok(())
    }

    /// Shows progress: on a terminal over the previous progress, elsewhere as a line of its own.
    /// The caller calls it only when something changed.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn progress(&mut self, line: &str) -> Result<()> {
        if !self.err_tty {
            return self.say(line);
        }
        let columns = rustix::termios::tcgetwinsize(std::io::stderr())
            .map_or(80, |size| usize::from(size.ws_col).max(20));
        let cut: String = line.chars().take(columns - 1).collect();
        write!(self.err, "\r\x1b[K{cut}")?;
        self.err.flush()?;
        self.live = true;
        Ok(())
    }

    /// Removes the progress that stands on the terminal.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn clear(&mut self) -> Result<()> {
        if self.live {
            self.live = false;
            write!(self.err, "\r\x1b[K")?;
            self.err.flush()?;
        }
        Ok(())
    }

    /// Reads one line of standard input.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read_line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        let mut byte = [0_u8];
        while line.len() < LINE_BYTES_MAX && self.input.read(&mut byte)? == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    /// Reads one line of the terminal that must not be seen: it is not shown while it is typed.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read_secret(&mut self, prompt: &str) -> Result<String> {
        self.err_bytes(prompt.as_bytes())?;
        let quiet = Quiet::begin();
        let line = self.read_line();
        drop(quiet);
        // The line end that was typed was not shown either.
        self.say("")?;
        Ok(line?.trim_end_matches('\r').to_owned())
    }

    /// Reads standard input to its end, but not more than `limit` bytes.
    ///
    /// # Errors
    /// When it cannot be read or is longer.
    pub fn read_input(&mut self, limit: usize, what: &str) -> Result<Vec<u8>> {
        read_limited(&mut self.input, limit, "standard input", what)
    }
}

/// The terminal shows nothing of what is typed while this lives.
struct Quiet(Option<Termios>);

impl Quiet {
    fn begin() -> Self {
        let stdin = std::io::stdin();
        let Ok(before) = tcgetattr(&stdin) else {
            return Self(None);
        };
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        let set = tcsetattr(&stdin, OptionalActions::Flush, &silent);
        Self(set.is_ok().then_some(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // There is nobody to tell; the shell sets its terminal up again by itself.
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Reads to the end, but not more than `limit` bytes.
///
/// # Errors
/// When it cannot be read or is longer.
pub fn read_limited(
    reader: &mut dyn Read,
    limit: usize,
    name: &str,
    what: &str,
) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader
        .take(limit as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| crate::CliError::general(format!("cannot read {name}: {e}")))?;
    if bytes.len() > limit {
        return Err(crate::CliError::usage(format!(
            "{name}: longer than {limit} bytes, the limit of {what}"
        )));
    }
    Ok(bytes)
}
