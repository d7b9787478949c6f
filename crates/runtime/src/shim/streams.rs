//! The two output streams of a container on their way into its log.

use super::create::set_nonblocking;
use crate::driver::LogSource;
use crate::logs::format::LineCutter;
use crate::logs::writer::LogWriter;
use crate::record::now;
use std::io;
use std::os::fd::OwnedFd;

/// Read at a time, in bytes: what a pipe holds.
const READ_BYTES: usize = 64 * 1024;

/// Reads pipes, writes the log.
#[derive(Debug)]
pub(super) struct Streams {
    pipes: [Option<OwnedFd>; 2],
    cutters: [LineCutter; 2],
    writer: LogWriter,
    buffer: Vec<u8>,
    records: Vec<u8>,
}

impl Streams {
    pub(super) fn new(pipes: [OwnedFd; 2], writer: LogWriter) -> io::Result<Self> {
        for pipe in &pipes {
            set_nonblocking(pipe)?;
        }
        Ok(Self {
            pipes: pipes.map(Some),
            cutters: [
                LineCutter::new(LogSource::Stdout),
                LineCutter::new(LogSource::Stderr),
            ],
            writer,
            buffer: vec![0; READ_BYTES],
            records: Vec::new(),
        })
    }

    /// The pipe of a stream while it is open.
    pub(super) fn pipe(&self, stream: usize) -> Option<&OwnedFd> {
        self.pipes[stream].as_ref()
    }

    /// Reads once; true when there may be more.
    pub(super) fn pump(&mut self, stream: usize) -> bool {
        let Some(pipe) = &self.pipes[stream] else {
            return false;
        };
        match nix::unistd::read(pipe, &mut self.buffer) {
            Ok(0) => {
                self.pipes[stream] = None;
                false
            }
            Ok(read) => {
                let time = now();
                self.records.clear();
                self.cutters[stream].push(&self.buffer[..read], time, &mut self.records);
                self.writer.append(&self.records, time);
                true
            }
            Err(nix::errno::Errno::EINTR) => true,
            Err(nix::errno::Errno::EAGAIN) => false,
            Err(_) => {
                self.pipes[stream] = None;
                false
            }
        }
    }

    /// Takes what is left when the container has ended.
    pub(super) fn finish(&mut self) {
        for stream in 0..self.pipes.len() {
            while self.pump(stream) {}
            let time = now();
            self.records.clear();
            self.cutters[stream].finish(time, &mut self.records);
            self.writer.append(&self.records, time);
        }
    }
}
