//! Health probes: one look at one container. What the result means is decided by `lifecycle`.

use crate::actions::Work;
use crate::anytls;
use std::net::{Ipv4Addr, SocketAddrV4};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use warren_lifecycle::{Observation, ProbeKind};
use warren_runtime::ExecSpec;
use warren_types::{Duration, HealthProbe};

/// Longest head of an HTTP answer that is read, in bytes: only the status line counts.
const ANSWER_BYTES_MAX: usize = 4096;
/// Longest output of a failed command that is told, in bytes.
const OUTPUT_BYTES_MAX: usize = 200;
/// Limit of a probe whose check names none.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// Runs one probe; its time limit is part of it.
pub(crate) async fn run(work: &Work, attempt: u32, kind: ProbeKind) -> Observation {
    let check = work
        .desired
        .as_ref()
        .and_then(|a| kind.check(&a.spec.health));
    let result = match check {
        None => Err("the check was taken away".to_owned()),
        Some(check) => {
            let limit = if check.timeout.0 == 0 {
                TIMEOUT_DEFAULT
            } else {
                check.timeout
            };
            let probe = one(work, &check.probe);
            let within = tokio::time::timeout(limit.to_std(), probe).await;
            within.unwrap_or_else(|_| Err(format!("no result within {limit}")))
        }
    };
    let (healthy, message) = match result {
        Ok(()) => (true, String::new()),
        Err(message) => (false, message),
    };
    Observation::Probe {
        attempt,
        kind,
        healthy,
        message,
    }
}

async fn one(work: &Work, probe: &HealthProbe) -> Result<(), String> {
    let address = || {
        work.local
            .address
            .ok_or_else(|| "the container has no address".to_owned())
    };
    match probe {
        HealthProbe::Tcp { port } => connect(address()?, *port).await.map(drop),
        HealthProbe::Http {
            path,
            port,
            https,
            headers,
            status_min,
            status_max,
        } => {
            let ask = Ask {
                address: address()?,
                port: *port,
                path,
                headers,
            };
            let stream = connect(ask.address, ask.port).await?;
            let status = if *https {
                ask.over(anytls::connect(stream, ask.address).await?)
                    .await?
            } else {
                ask.over(stream).await?
            };
            if (*status_min..=*status_max).contains(&status) {
                Ok(())
            } else {
                Err(format!(
                    "GET {path} on port {port} answered {status}, wanted {status_min} to {status_max}"
                ))
            }
        }
        HealthProbe::Exec { command } => exec(work, command).await,
    }
}

async fn connect(address: Ipv4Addr, port: u16) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(SocketAddrV4::new(address, port)).await;
    stream.map_err(|e| format!("connect to port {port}: {e}"))
}

/// One HTTP request.
struct Ask<'a> {
    address: Ipv4Addr,
    port: u16,
    path: &'a str,
    headers: &'a [(String, String)],
}

impl Ask<'_> {
    /// Sends it and returns the status of the answer.
    async fn over(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<u16, String> {
        let Self {
            address,
            port,
            path,
            headers,
        } = self;
        let mut request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}:{port}\r\nUser-Agent: warren-health\r\nConnection: close\r\n"
        );
        for (name, value) in *headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        let sent = stream.write_all(request.as_bytes()).await;
        sent.map_err(|e| format!("send to port {port}: {e}"))?;
        let mut answer = Vec::with_capacity(256);
        let mut piece = [0_u8; 512];
        while !answer.contains(&b'\n') && answer.len() < ANSWER_BYTES_MAX {
            match stream.read(&mut piece).await {
                Ok(0) => break,
                Ok(length) => answer.extend_from_slice(&piece[..length]),
                Err(e) => return Err(format!("read from port {port}: {e}")),
            }
        }
        status_of(&answer).ok_or_else(|| format!("port {port} did not answer in HTTP"))
    }
}

/// Status of an HTTP/1 status line.
fn status_of(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|b| *b == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split_whitespace();
    words
        .next()
        .filter(|version| version.starts_with("HTTP/1"))?;
    words.next()?.parse().ok()
}

async fn exec(work: &Work, command: &[String]) -> Result<(), String> {
    let run = work
        .shared
        .driver
        .exec(work.id, ExecSpec::new(command.iter().cloned()))
        .await;
    let mut run = run.map_err(|e| e.to_string())?;
    let mut output = Vec::new();
    let mut limited = (&mut run.stdout).take(OUTPUT_BYTES_MAX as u64);
    // The output only explains a failure; the status decides.
    let _ = limited.read_to_end(&mut output).await;
    let exit = run.exit.await.map_err(|e| e.to_string())?;
    if exit.code == 0 {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output).trim().to_owned();
    Err(format!(
        "{} ended with status {}{}{said}",
        command.join(" "),
        exit.code,
        if said.is_empty() { "" } else { ": " }
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An HTTPS probe makes the handshake: a port that only accepts is not healthy.
    #[tokio::test]
    async fn https_needs_tls() {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        });
        let stream = connect(Ipv4Addr::LOCALHOST, port).await.unwrap();
        let problem = anytls::connect(stream, Ipv4Addr::LOCALHOST)
            .await
            .unwrap_err();
        assert!(problem.contains("TLS"), "{problem}");
        server.await.unwrap();
    }

    #[test]
    fn status_lines() {
        assert_eq!(status_of(b"HTTP/1.1 204 No Content\r\n\r\n"), Some(204));
        assert_eq!(status_of(b"HTTP/1.0 503\r\n"), Some(503));
        for wrong in [
            &b"SSH-2.0-x\r\n"[..],
            b"",
            b"HTTP/1.1\r\n",
            b"HTTP/1.1 abc\r\n",
            b"\xff\xfe",
        ] {
            assert_eq!(status_of(wrong), None);
        }
    }
}
