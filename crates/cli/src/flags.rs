//! Parsers of the small texts in flags: ports, mounts, secrets, words, durations. The short forms of
//! ports and mounts in manifests are the same.

use warren_types::{
    Bytes, DeployStrategy, Duration, FailureAction, FileRef, HealthProbe, Mount, PortMapping,
    Protocol, PublishMode, RestartCondition, UpdateOrder,
};

const PORT_HINT: &str =
    "write HOST:CONTAINER, such as 8080:80 or 5353:53/udp, with ports from 1 to 65535";

/// One `--publish`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishArg {
    /// The port; its mode is the default one.
    pub mapping: PortMapping,
    /// The mode, when the text named it.
    pub mode: Option<PublishMode>,
}

/// Words of a command line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Words(pub Vec<String>);

/// `HOST:CONTAINER[/tcp|/udp]` or `published=…,target=…[,protocol=…][,mode=…]`.
///
/// # Errors
/// In words, with the right form.
pub fn port(text: &str) -> Result<PublishArg, String> {
    if text.contains('=') {
        return port_pairs(text);
    }
    let (ports, protocol) = match text.split_once('/') {
        Some((ports, name)) => (ports, protocol(name)?),
        None => (text, Protocol::Tcp),
    };
    let parts: Vec<&str> = ports.split(':').collect();
    match parts.as_slice() {
        [host, container] => Ok(PublishArg {
            mapping: PortMapping {
                container_port: port_number(container)?,
                host_port: port_number(host)?,
                protocol,
                ..PortMapping::default()
            },
            mode: None,
        }),
        [_] => Err(format!("the port on the node is missing; {PORT_HINT}")),
        _ => Err(format!(
            "an address before the ports is not supported, ports open on all addresses of the node; {PORT_HINT}"
        )),
    }
}

fn port_pairs(text: &str) -> Result<PublishArg, String> {
    let mut mapping = PortMapping::default();
    let mut mode = None;
    for pair in text.split(',') {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| format!("{pair:?} is not KEY=VALUE; {PORT_HINT}"))?;
        match key.trim() {
            "published" | "host" => mapping.host_port = port_number(value)?,
            "target" | "container" => mapping.container_port = port_number(value)?,
            "protocol" => mapping.protocol = protocol(value)?,
            "mode" => mode = Some(publish_mode(value)?),
            "name" => mapping.name = Some(value.to_owned()),
            other => {
                return Err(format!(
                    "unknown key {other:?}; use published, target, protocol, mode, name"
                ));
            }
        }
    }
    if mapping.host_port == 0 || mapping.container_port == 0 {
        return Err("both published= and target= are needed".to_owned());
    }
    Ok(PublishArg { mapping, mode })
}

/// `HOST[/tcp|/udp]`.
///
/// # Errors
/// In words, with the right form.
pub fn published_port(text: &str) -> Result<(u16, Option<Protocol>), String> {
    match text.split_once('/') {
        Some((number, name)) => Ok((port_number(number)?, Some(protocol(name)?))),
        None => Ok((port_number(text)?, None)),
    }
}

/// A port number from 1.
///
/// # Errors
/// In words, with the right form.
pub fn port_number(text: &str) -> Result<u16, String> {
    match text.trim().parse::<u16>() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("{text:?} is not a port; {PORT_HINT}")),
    }
}

/// `tcp` or `udp`, in either case.
///
/// # Errors
/// In words.
pub fn protocol(text: &str) -> Result<Protocol, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        _ => Err(format!("{text:?} is not a protocol; use tcp or udp")),
    }
}

/// `host` or `ingress`.
///
/// # Errors
/// In words.
pub fn publish_mode(text: &str) -> Result<PublishMode, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "host" => Ok(PublishMode::Host),
        "ingress" => Ok(PublishMode::Ingress),
        _ => Err(format!(
            "{text:?} is not a publish mode; use host or ingress"
        )),
    }
}

/// `NAME[:FILE]`.
///
/// # Errors
/// In words.
pub fn secret(text: &str) -> Result<FileRef, String> {
    let (source, target) = match text.split_once(':') {
        Some((source, target)) => (source, Some(target)),
        None => (text, None),
    };
    if source.is_empty() || target == Some("") {
        return Err("write NAME or NAME:FILE".to_owned());
    }
    Ok(FileRef {
        source: source.to_owned(),
        target: target.map(str::to_owned),
        ..FileRef::default()
    })
}

/// `NAME:PATH[:ro|:rw]`; a source that begins with `/` is a path of the node.
///
/// # Errors
/// In words.
pub fn volume(text: &str) -> Result<Mount, String> {
    let (source, target, read_only) = source_target(text, "NAME:PATH[:ro]")?;
    if source.starts_with('/') {
        return Ok(Mount::Bind {
            source,
            target,
            read_only,
        });
    }
    if source.starts_with('.') || source.starts_with('~') {
        return Err(format!(
            "{source:?} is a relative path; use an absolute one, or the name of a volume"
        ));
    }
    Ok(Mount::Volume {
        source,
        target,
        read_only,
    })
}

/// `SOURCE:PATH[:ro|:rw]`.
///
/// # Errors
/// In words.
pub fn bind(text: &str) -> Result<Mount, String> {
    let (source, target, read_only) = source_target(text, "SOURCE:PATH[:ro]")?;
    if !source.starts_with('/') {
        return Err(format!("{source:?} is not an absolute path of the node"));
    }
    Ok(Mount::Bind {
        source,
        target,
        read_only,
    })
}

fn source_target(text: &str, form: &str) -> Result<(String, String, bool), String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, read_only) = match parts.as_slice() {
        [source, target] | [source, target, "rw"] => (source, target, false),
        [source, target, "ro"] => (source, target, true),
        [_, _, other] => return Err(format!("{other:?} is neither ro nor rw; write {form}")),
        _ => return Err(format!("write {form}")),
    };
    if source.is_empty() || target.is_empty() {
        return Err(format!("write {form}"));
    }
    if !target.starts_with('/') {
        return Err(format!(
            "{target:?} is not an absolute path inside the container"
        ));
    }
    Ok(((*source).to_owned(), (*target).to_owned(), read_only))
}

/// `PATH[:SIZE]`.
///
/// # Errors
/// In words.
pub fn tmpfs(text: &str) -> Result<Mount, String> {
    let (target, size) = match text.split_once(':') {
        Some((target, size)) => {
            let size = size.strip_prefix("size=").unwrap_or(size);
            (
                target,
                Some(size.parse::<Bytes>().map_err(|e| e.to_string())?),
            )
        }
        None => (text, None),
    };
    if !target.starts_with('/') {
        return Err(format!(
            "{target:?} is not an absolute path; write PATH or PATH:SIZE"
        ));
    }
    Ok(Mount::Tmpfs {
        target: target.to_owned(),
        size,
    })
}

/// A duration, or a bare number of seconds.
///
/// # Errors
/// In words, with the right form.
pub fn seconds_or_duration(text: &str) -> Result<Duration, String> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        let seconds: u64 = text.parse().map_err(|_| format!("{text:?} is too large"))?;
        return Ok(Duration::from_secs(seconds));
    }
    text.parse::<Duration>().map_err(|e| e.to_string())
}

/// Both families of names of the wire.
///
/// # Errors
/// In words.
pub fn restart_condition(text: &str) -> Result<RestartCondition, String> {
    match text.to_ascii_lowercase().as_str() {
        "none" | "never" | "no" => Ok(RestartCondition::None),
        "on-failure" | "onfailure" => Ok(RestartCondition::OnFailure),
        "any" | "always" => Ok(RestartCondition::Any),
        _ => Err(format!(
            "{text:?} is not a restart condition; use any (always), on-failure or none (never)"
        )),
    }
}

/// `rolling`, `blue-green` or `canary`.
///
/// # Errors
/// In words.
pub fn strategy(text: &str) -> Result<DeployStrategy, String> {
    match text.to_ascii_lowercase().as_str() {
        "rolling" => Ok(DeployStrategy::Rolling),
        "blue-green" | "bluegreen" => Ok(DeployStrategy::BlueGreen),
        "canary" => Ok(DeployStrategy::Canary),
        _ => Err(format!(
            "{text:?} is not a strategy; use rolling, blue-green or canary"
        )),
    }
}

/// `stop-first` or `start-first`.
///
/// # Errors
/// In words.
pub fn order(text: &str) -> Result<UpdateOrder, String> {
    match text.to_ascii_lowercase().as_str() {
        "stop-first" => Ok(UpdateOrder::StopFirst),
        "start-first" => Ok(UpdateOrder::StartFirst),
        _ => Err(format!(
            "{text:?} is not an order; use stop-first or start-first"
        )),
    }
}

/// `pause`, `continue` or `rollback`.
///
/// # Errors
/// In words.
pub fn failure_action(text: &str) -> Result<FailureAction, String> {
    match text.to_ascii_lowercase().as_str() {
        "pause" => Ok(FailureAction::Pause),
        "continue" => Ok(FailureAction::Continue),
        "rollback" => Ok(FailureAction::Rollback),
        _ => Err(format!(
            "{text:?} is not a failure action; use pause, continue or rollback"
        )),
    }
}

/// What an HTTP check asks: `/path` with the given port, `[:]PORT/path`, or a URL of localhost.
///
/// # Errors
/// In words, with the right form.
pub fn http_endpoint(text: &str, default_port: Option<u16>) -> Result<HealthProbe, String> {
    const HINT: &str = "write PATH, PORT/PATH or http://localhost:PORT/PATH";
    let (https, rest) = match text.split_once("://") {
        Some(("http", rest)) => (false, rest),
        Some(("https", rest)) => (true, rest),
        Some((other, _)) => return Err(format!("{other:?} is neither http nor https; {HINT}")),
        None => (false, text),
    };
    let is_url = rest.len() != text.len();
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let port = match authority.rsplit_once(':') {
        Some((host, number)) if host.is_empty() || is_local(host) => port_number(number)?,
        Some((host, _)) => return Err(elsewhere(host)),
        None if authority.is_empty() => {
            default_port.ok_or_else(|| format!("the port is missing in {text:?}; {HINT}"))?
        }
        None if is_url && is_local(authority) => {
            if https {
                443
            } else {
                80
            }
        }
        None if is_url => return Err(elsewhere(authority)),
        None => {
            port_number(authority).map_err(|_| format!("{text:?} is no place to check; {HINT}"))?
        }
    };
    Ok(HealthProbe::Http {
        path: path.to_owned(),
        port,
        https,
        headers: Vec::new(),
        status_min: 200,
        status_max: 399,
    })
}

fn is_local(host: &str) -> bool {
    matches!(host, "localhost" | "127.0.0.1" | "[::1]" | "0.0.0.0")
}

fn elsewhere(host: &str) -> String {
    format!("{host:?} is not the container; checks run inside its network, so write localhost")
}

/// Splits a command line into words as a shell would, without expanding anything.
///
/// # Errors
/// When a quote is not closed or a backslash ends the text.
pub fn words(text: &str) -> Result<Words, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => words.extend(word.take()),
            '\'' => quoted(&mut chars, '\'', word.get_or_insert_default())?,
            '"' => quoted(&mut chars, '"', word.get_or_insert_default())?,
            '\\' => word
                .get_or_insert_default()
                .push(chars.next().ok_or("a backslash ends the text")?),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(Words(words))
}

fn quoted(chars: &mut std::str::Chars<'_>, quote: char, word: &mut String) -> Result<(), String> {
    while let Some(c) = chars.next() {
        match c {
            c if c == quote => return Ok(()),
            '\\' if quote == '"' => match chars.next() {
                Some(c @ ('"' | '\\' | '$' | '`')) => word.push(c),
                Some(c) => word.extend(['\\', c]),
                None => break,
            },
            c => word.push(c),
        }
    }
    Err(format!("the quote {quote} is not closed"))
}

/// Splits `A=1,B=2` in two, as upstream's `--env` does, but leaves a comma within a value alone:
/// every part must be NAME=VALUE with a plain name, and the first value must have no `=` itself.
#[must_use]
pub fn split_env(text: &str) -> Vec<&str> {
    let parts: Vec<&str> = text.split(',').collect();
    let named = |part: &&str| {
        part.split_once('=').is_some_and(|(name, value)| {
            let mut chars = name.chars();
            chars
                .next()
                .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
                && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
                && !value.contains('=')
        })
    };
    if parts.len() > 1 && parts.iter().all(named) {
        parts
    } else {
        vec![text]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ports() {
        let p = |t: &str| {
            port(t).map(|p| {
                (
                    p.mapping.host_port,
                    p.mapping.container_port,
                    p.mapping.protocol,
                )
            })
        };
        assert_eq!(p("8080:80"), Ok((8080, 80, Protocol::Tcp)));
        assert_eq!(p("53:5353/udp"), Ok((53, 5353, Protocol::Udp)));
        assert_eq!(p("1:65535/TCP"), Ok((1, 65535, Protocol::Tcp)));
        let pairs = port("published=80,target=8080,protocol=udp,mode=ingress").unwrap();
        assert_eq!(pairs.mode, Some(PublishMode::Ingress));
        assert_eq!(pairs.mapping.container_port, 8080);
        for bad in [
            "",
            "80",
            "0:80",
            "80:0",
            "65536:1",
            "a:b",
            "1:2:3",
            "80:80/sctp",
            "127.0.0.1:80:80",
            "target=1",
            "x=1,y=2",
            "80:80/",
        ] {
            assert!(port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn mounts() {
        assert_eq!(
            volume("data:/var").unwrap(),
            Mount::Volume {
                source: "data".into(),
                target: "/var".into(),
                read_only: false
            }
        );
        assert_eq!(
            volume("data:/var:ro").unwrap(),
            Mount::Volume {
                source: "data".into(),
                target: "/var".into(),
                read_only: true
            }
        );
        assert_eq!(
            volume("/srv:/var:rw").unwrap(),
            Mount::Bind {
                source: "/srv".into(),
                target: "/var".into(),
                read_only: false
            }
        );
        assert_eq!(
            tmpfs("/tmp:16m").unwrap(),
            Mount::Tmpfs {
                target: "/tmp".into(),
                size: Some(Bytes(16 << 20))
            }
        );
        assert_eq!(
            tmpfs("/tmp").unwrap(),
            Mount::Tmpfs {
                target: "/tmp".into(),
                size: None
            }
        );
        for bad in [
            "",
            "data",
            ":/x",
            "data:",
            "data:x",
            "data:/x:rx",
            "./a:/b",
            "a:/b:ro:ro",
        ] {
            assert!(volume(bad).is_err(), "{bad}");
        }
        for bad in ["data:/x", "srv:/x", "/x"] {
            assert!(bind(bad).is_err(), "{bad}");
        }
        for bad in ["tmp", "/tmp:0", "/tmp:x"] {
            assert!(tmpfs(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn word_splitting() {
        let w = |t: &str| words(t).map(|w| w.0);
        assert_eq!(
            w(r#"sh -c 'echo "a b"' "c\"d" e\ f """#).unwrap(),
            ["sh", "-c", "echo \"a b\"", "c\"d", "e f", ""]
        );
        assert!(w("a 'b").is_err());
        assert!(w("a\\").is_err());
        assert_eq!(w("  ").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn env_commas() {
        assert_eq!(split_env("A=1,B=2"), ["A=1", "B=2"]);
        for whole in [
            "A=1,2,3",
            "OPTS=x=1,y=2",
            "A=http://h/?a=1,b",
            "A",
            "A=x, B=2",
        ] {
            assert_eq!(split_env(whole), [whole]);
        }
    }

    #[test]
    fn http_endpoints() {
        let h = |t: &str| match http_endpoint(t, Some(80)) {
            Ok(HealthProbe::Http {
                path, port, https, ..
            }) => Ok((https, port, path)),
            Ok(other) => Err(format!("{other:?}")),
            Err(e) => Err(e),
        };
        assert_eq!(h("/health?x=1"), Ok((false, 80, "/health?x=1".into())));
        assert_eq!(h(":8080/h"), Ok((false, 8080, "/h".into())));
        assert_eq!(h("8080"), Ok((false, 8080, "/".into())));
        assert_eq!(h("https://localhost/h"), Ok((true, 443, "/h".into())));
        assert_eq!(h("http://127.0.0.1:81"), Ok((false, 81, "/".into())));
        for bad in [
            "ftp://localhost/",
            "http://example.com/",
            "example.com:80/",
            "health",
            "http://localhost:0/",
        ] {
            assert!(h(bad).is_err(), "{bad}");
        }
        assert!(http_endpoint("/h", None).is_err());
    }

    #[test]
    fn durations() {
        assert_eq!(seconds_or_duration("30"), Ok(Duration(30_000)));
        assert_eq!(seconds_or_duration("1m30s"), Ok(Duration(90_000)));
        assert!(seconds_or_duration("99999999999999999999").is_err());
        assert!(seconds_or_duration("").is_err());
    }

    proptest! {
        #[test]
        fn no_parser_panics(text in ".{0,40}") {
            let _ = port(&text);
            let _ = volume(&text);
            let _ = bind(&text);
            let _ = tmpfs(&text);
            let _ = secret(&text);
            let _ = http_endpoint(&text, None);
            let _ = words(&text);
            let _ = split_env(&text);
            let _ = seconds_or_duration(&text);
        }
    }
}
