//! Health checks of a service: the forms of the fact sheet, and the three kinds apart.

use super::walk::{Obj, Val};
use crate::flags;
use warren_types::{Duration, HealthCheck, HealthProbe, HealthSpec};

/// Default time between two health checks.
pub const HEALTH_INTERVAL_DEFAULT: Duration = Duration::from_secs(30);
/// Default limit of one health check.
pub const HEALTH_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// Default number of failures in a row that count.
pub const HEALTH_RETRIES_DEFAULT: u32 = 3;

/// `healthCheck` gates traffic and restarts; `health` names the three kinds apart.
pub(super) fn read(spec: &Obj<'_>) -> HealthSpec {
    let one = spec.any(&["healthCheck", "healthcheck"]);
    let three = spec.get("health");
    if let (Some(_), Some(value)) = (&one, &three) {
        value.fail("healthCheck and health exclude each other; write one of them");
    }
    if let Some(value) = one {
        return both(read_check(&value.at("container.health")));
    }
    let Some(object) = three.and_then(|v| v.at("container.health").object()) else {
        return HealthSpec::default();
    };
    let health = HealthSpec {
        startup: object
            .get("startup")
            .and_then(|v| read_check(&v.at("container.health.startup"))),
        readiness: object
            .get("readiness")
            .and_then(|v| read_check(&v.at("container.health.readiness"))),
        liveness: object
            .get("liveness")
            .and_then(|v| read_check(&v.at("container.health.liveness"))),
    };
    object.finish();
    health
}

/// One check that gates traffic and, failing, restarts.
pub(crate) fn both(check: Option<HealthCheck>) -> HealthSpec {
    HealthSpec {
        startup: None,
        readiness: check.clone(),
        liveness: check,
    }
}

fn read_check(value: &Val<'_>) -> Option<HealthCheck> {
    let object = value.object()?;
    let probe = read_probe(value, &object);
    let check = probe.map(|probe| HealthCheck {
        probe,
        interval: object
            .any(&["interval", "intervalSeconds"])
            .and_then(|v| v.duration())
            .unwrap_or(HEALTH_INTERVAL_DEFAULT),
        timeout: object
            .any(&["timeout", "timeoutSeconds"])
            .and_then(|v| v.duration())
            .unwrap_or(HEALTH_TIMEOUT_DEFAULT),
        retries: object
            .get("retries")
            .and_then(|v| v.count())
            .unwrap_or(HEALTH_RETRIES_DEFAULT),
        start_period: object
            .any(&["startPeriod", "startPeriodSeconds"])
            .and_then(|v| v.duration())
            .unwrap_or_default(),
    });
    // A broken probe is reported; its other keys must not be called unknown on top.
    if check.is_some() {
        object.finish();
    }
    check
}

fn read_probe(value: &Val<'_>, object: &Obj<'_>) -> Option<HealthProbe> {
    let kind = object
        .get("type")
        .and_then(|v| v.text())
        .map(|t| t.to_ascii_lowercase());
    let http = object.any(&["http", "httpGet"]);
    let tcp = object.any(&["tcp", "tcpSocket"]);
    let exec = object.get("exec");
    let endpoint = object.get("endpoint");
    let command = object.any(&["command", "test"]);
    let kind = kind.as_deref().unwrap_or_else(|| {
        match (&http, &tcp, exec.as_ref().or(command.as_ref())) {
            (Some(_), _, _) => "http",
            (_, Some(_), _) => "tcp",
            (_, _, Some(_)) => "exec",
            _ => "",
        }
    });
    match kind {
        "http" | "https" => match (http, endpoint) {
            (Some(nested), None) => {
                let nested = nested.object()?;
                let probe = read_http(&nested, kind == "https");
                nested.finish();
                probe
            }
            (None, Some(url)) => url.parsed("a URL such as http://localhost:8080/health", |t| {
                flags::http_endpoint(t, None)
            }),
            (None, None) => read_http(object, kind == "https"),
            (Some(_), Some(url)) => {
                url.fail("endpoint and http exclude each other");
                None
            }
        },
        "tcp" => read_tcp(value, object, tcp, endpoint),
        "exec" => {
            let words = match exec {
                Some(nested) => {
                    let nested = nested.object()?;
                    let command = nested.need(&["command"], "a list of words")?.words();
                    nested.finish();
                    command
                }
                None => command.map(|c| c.words()).unwrap_or_default(),
            };
            if words.is_empty() {
                value.fail("command is missing; expected a list of words");
                return None;
            }
            Some(HealthProbe::Exec { command: words })
        }
        "" => {
            value.fail("type is missing; use http, tcp or exec");
            None
        }
        other => {
            value.fail(format!(
                "{other:?} is not a type of check; use http, tcp or exec"
            ));
            None
        }
    }
}

fn read_http(object: &Obj<'_>, https: bool) -> Option<HealthProbe> {
    let path = object
        .get("path")
        .and_then(|v| v.text())
        .unwrap_or_else(|| "/".to_owned());
    let port = object
        .need(&["port"], "the port inside the container")
        .and_then(|v| v.port(1));
    let scheme = object
        .get("scheme")
        .and_then(|v| v.text())
        .map(|s| s.to_ascii_lowercase());
    let headers = object
        .get("headers")
        .map(|v| v.text_map())
        .unwrap_or_default();
    let status = |key: &'static str, default: u16| {
        let value = object.get(key).and_then(|v| v.integer(100, 599));
        value.and_then(|n| u16::try_from(n).ok()).unwrap_or(default)
    };
    Some(HealthProbe::Http {
        path,
        https: https || scheme.as_deref() == Some("https"),
        headers: headers.into_iter().collect(),
        status_min: status("statusMin", 200),
        status_max: status("statusMax", 399),
        port: port?,
    })
}

fn read_tcp(
    value: &Val<'_>,
    object: &Obj<'_>,
    tcp: Option<Val<'_>>,
    endpoint: Option<Val<'_>>,
) -> Option<HealthProbe> {
    let direct = object.get("port");
    let port = match (tcp, endpoint, direct) {
        (Some(nested), _, _) => {
            let nested = nested.object()?;
            let port = nested
                .need(&["port"], "the port inside the container")?
                .port(1);
            nested.finish();
            port?
        }
        (_, Some(address), _) => address.parsed("an address such as localhost:5432", |text| {
            flags::port_number(text.rsplit_once(':').map_or(text, |(_, port)| port))
        })?,
        (_, _, Some(port)) => port.port(1)?,
        _ => {
            value.fail("endpoint is missing; expected an address such as localhost:5432");
            return None;
        }
    };
    Some(HealthProbe::Tcp { port })
}
