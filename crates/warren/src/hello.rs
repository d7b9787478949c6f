//! The hello service: a small web page that says which service, container and node answers. It runs
//! inside the hello image, which is made from this very program, so that the first container of a
//! new node needs no network.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

/// Port that the page is served on, inside the container.
pub(crate) const PORT: u16 = 8080;
/// Longest request head, in lines.
const HEAD_LINES_MAX: usize = 100;
/// Time limit of one request.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// Connections served at once.
const CONNECTIONS_MAX: usize = 64;

/// Serves until a signal ends the process.
pub(crate) fn serve() -> ExitCode {
    end_on_signal();
    let listener = match TcpListener::bind(("0.0.0.0", PORT)) {
        Ok(listener) => listener,
        Err(e) => {
            eprintln!("hello: port {PORT}: {e}");
            return ExitCode::FAILURE;
        }
    };
    eprintln!("hello: serving on port {PORT}");
    let open = std::sync::Arc::new(());
    for stream in listener.incoming().flatten() {
        if std::sync::Arc::strong_count(&open) > CONNECTIONS_MAX {
            continue;
        }
        let held = open.clone();
        std::thread::spawn(move || {
            // A visitor that goes away in the middle is its own affair.
            let _ = answer(stream);
            drop(held);
        });
    }
    ExitCode::SUCCESS
}

/// As process 1 of a container the default actions of signals do not apply, so they are asked for.
#[allow(unsafe_code, reason = "setting a signal handler is a raw system call")]
fn end_on_signal() {
    extern "C" fn end(_: libc::c_int) {
        // SAFETY: _exit is async-signal-safe.
        unsafe { libc::_exit(0) }
    }
    for signal in [libc::SIGTERM, libc::SIGINT] {
        // SAFETY: the handler only calls _exit.
        unsafe {
            libc::signal(
                signal,
                end as extern "C" fn(libc::c_int) as libc::sighandler_t,
            )
        };
    }
}

fn answer(stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(REQUEST_LIMIT))?;
    stream.set_write_timeout(Some(REQUEST_LIMIT))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    for line in lines.take(HEAD_LINES_MAX) {
        if line?.is_empty() {
            break;
        }
    }
    let plain = request.contains("/plain");
    let (kind, body) = if plain {
        ("text/plain", text())
    } else {
        ("text/html", page())
    };
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn fact(name: &str) -> String {
    let value = std::env::var(name).unwrap_or_else(|_| "unknown".to_owned());
    value.replace('&', "&amp;").replace('<', "&lt;")
}

fn text() -> String {
    format!(
        "Hello from Warren\nservice: {}\ncontainer: {}\nnode: {}\n",
        fact("WARREN_SERVICE"),
        fact("WARREN_CONTAINER_NAME"),
        fact("WARREN_NODE")
    )
}

fn page() -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Hello from Warren</title>\n\
         <style>body{{font:1.1rem system-ui,sans-serif;margin:4rem auto;max-width:34rem;color:#222}}\
         td{{padding:.2rem 1rem .2rem 0}}code{{background:#eee;padding:.1rem .3rem}}</style></head>\n\
         <body><h1>Hello from Warren</h1>\n<table>\n<tr><td>service</td><td><code>{}</code></td></tr>\n\
         <tr><td>container</td><td><code>{}</code></td></tr>\n<tr><td>node</td><td><code>{}</code></td></tr>\n</table>\n\
         <p>Next: <code>warren service ps hello</code>, <code>warren service scale hello --replicas 3</code>, \
         <code>warren service logs hello</code>.</p></body></html>\n",
        fact("WARREN_SERVICE"),
        fact("WARREN_CONTAINER_NAME"),
        fact("WARREN_NODE")
    )
}
