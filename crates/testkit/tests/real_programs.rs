//! nginx and redis from Debian's packages, with all that a service can be given.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::path::PathBuf;
use std::time::Duration;
use warren_testkit::{Host, Node, eventually, images, is_root, skipped};

const LOCAL: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Port of the host at which redis is published.
const REDIS_PORT: u16 = 16379;
/// Port of the host at which nginx is published.
const NGINX_PORT: u16 = 18080;
const PASSWORD: &str = "correct-horse-battery";
/// `--memory 64m` in bytes.
const MEMORY_BYTES: &str = "67108864";
const IO_LIMIT: Duration = Duration::from_secs(2);

/// Sends commands of the redis protocol in one connection from the host; the answers as text.
fn redis(host: &Host, commands: &[&[&str]]) -> Result<String, String> {
    let mut request = String::new();
    let all = [&[&["AUTH", PASSWORD][..]], commands, &[&["QUIT"]]].concat();
    for words in all {
        request.push_str(&format!("*{}\r\n", words.len()));
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
    }
    host.run(move || {
        let target = SocketAddrV4::new(LOCAL, REDIS_PORT).into();
        let mut stream =
            TcpStream::connect_timeout(&target, IO_LIMIT).map_err(|e| format!("connect: {e}"))?;
        stream
            .set_read_timeout(Some(IO_LIMIT))
            .map_err(|e| e.to_string())?;
        stream
            .write_all(request.as_bytes())
            .map_err(|e| format!("send: {e}"))?;
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .map_err(|e| format!("read: {e}"))?;
        if answer.is_empty() {
            Err("closed without an answer".to_owned())
        } else {
            Ok(answer)
        }
    })
}

fn expect_redis(host: &Host, commands: &[&[&str]], wanted: &str) {
    let what = format!("redis answers {wanted:?}");
    eventually(&what, || match redis(host, commands) {
        Ok(answer) if answer.contains(wanted) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// The running containers of a service.
fn containers(node: &Node, service: &str) -> Vec<serde_json::Value> {
    let list = node.json(&["container", "list", "--service", service, "-o", "json"]);
    let rows = list.as_array().cloned().unwrap_or_default();
    rows.into_iter()
        .filter(|c| c["state"] == "running" && c["desired"] == "running")
        .collect()
}

/// A file of the control group that a process of the node is in, for one resource; `names` are the
/// file's names in version 1 and version 2.
fn cgroup_file(pid: i64, controller: &str, names: [&str; 2]) -> String {
    let path = format!("/proc/{pid}/cgroup");
    let table = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    for line in table.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else {
            continue;
        };
        let group = group.trim_start_matches('/');
        let file: PathBuf = if controllers.split(',').any(|c| c == controller) {
            ["/sys/fs/cgroup", controllers, group, names[0]]
                .iter()
                .collect()
        } else if controllers.is_empty() {
            ["/sys/fs/cgroup", group, names[1]].iter().collect()
        } else {
            continue;
        };
        if let Ok(text) = std::fs::read_to_string(&file) {
            return text.trim().to_owned();
        }
    }
    panic!("no {names:?} for process {pid}: {table}");
}

fn pid_of(container: &serde_json::Value) -> i64 {
    container["pid"]
        .as_i64()
        .unwrap_or_else(|| panic!("no pid: {container}"))
}

fn import(node: &Node, archive: &str) {
    let _ = node.cli(&["image", "import", archive]).ok();
}

#[test]
fn redis_keeps_its_data_over_an_update() {
    if !is_root() {
        return skipped("redis_keeps_its_data_over_an_update", "needs root");
    }
    let mut node = Node::running();
    import(&node, &images::redis(node.directory()));
    let _ = node
        .cli_with_input(
            &["secret", "create", "redis-pass", "--from-stdin"],
            PASSWORD.as_bytes(),
        )
        .ok();
    let _ = node.cli(&["volume", "create", "redis-data"]).ok();
    let publish = format!("{REDIS_PORT}:6379");
    let words = [
        &[
            "service",
            "create",
            "redis",
            "--image",
            "test/redis",
            "-p",
            &publish,
            "--publish-mode",
            "host",
        ][..],
        &[
            "--env",
            "REDIS_PASSWORD_FILE=/run/secrets/redis-pass",
            "--secret",
            "redis-pass",
        ],
        &[
            "--volume",
            "redis-data:/data",
            "--memory",
            "64m",
            "--cpus",
            "0.5",
            "--order",
            "stop-first",
        ],
    ];
    let _ = node.cli(&words.concat()).ok();
    let host = node.host();
    expect_redis(host, &[&["PING"]], "+PONG");
    // The password of the secret is really in force.
    let refused = redis(host, &[&["AUTH", "wrong"]]).unwrap_or_default();
    assert!(refused.contains("WRONGPASS"), "{refused}");
    expect_redis(host, &[&["SET", "city", "Ljubljana"]], "+OK\r\n+OK");
    let before = containers(&node, "redis");
    assert_eq!(before.len(), 1);
    assert_eq!(
        cgroup_file(
            pid_of(&before[0]),
            "memory",
            ["memory.limit_in_bytes", "memory.max"]
        ),
        MEMORY_BYTES
    );

    let _ = node
        .cli(&["service", "update", "redis", "--env-add", "X=1"])
        .ok();
    let after = containers(&node, "redis");
    assert_eq!(after.len(), 1, "{after:?}");
    assert_ne!(
        after[0]["id"], before[0]["id"],
        "a changed environment needs a new container"
    );
    expect_redis(host, &[&["GET", "city"]], "Ljubljana");
    let env = node.cli(&["container", "exec", "redis.1", "env"]).ok();
    assert!(
        env.contains("X=1") && env.contains("REDIS_PASSWORD_FILE="),
        "{env}"
    );
    // stop-first: two redis on one directory would have spoilt it, so the old one ended before.
    let all = node.json(&[
        "container",
        "list",
        "--all",
        "--service",
        "redis",
        "-o",
        "json",
    ]);
    let old = all
        .as_array()
        .into_iter()
        .flatten()
        .find(|c| c["id"] == before[0]["id"]);
    if let Some(old) = old {
        assert!(
            old["finishedAt"].as_str() <= after[0]["startedAt"].as_str(),
            "{old} {}",
            after[0]
        );
    }

    // Who uses a volume or a secret keeps it.
    assert_ne!(node.cli(&["volume", "delete", "redis-data"]).code, 0);
    assert_ne!(node.cli(&["secret", "delete", "redis-pass"]).code, 0);
    let _ = node.cli(&["service", "delete", "redis"]).ok();
    let _ = node.cli(&["volume", "delete", "redis-data"]).ok();
    let _ = node.cli(&["secret", "delete", "redis-pass"]).ok();
    node.reset();
}

#[test]
fn nginx_serves_scales_and_tells_what_happened() {
    if !is_root() {
        return skipped("nginx_serves_scales_and_tells_what_happened", "needs root");
    }
    let mut node = Node::running();
    import(&node, &images::nginx(node.directory()));
    let _ = node
        .cli_with_input(
            &["secret", "create", "api-key", "--from-stdin"],
            b"k-0001\n",
        )
        .ok();
    let _ = node.cli(&["volume", "create", "web-logs"]).ok();
    let publish = format!("{NGINX_PORT}:80");
    let words = [
        &[
            "service",
            "create",
            "web",
            "--image",
            "test/nginx",
            "-p",
            &publish,
            "--publish-mode",
            "ingress",
        ][..],
        &[
            "--env",
            "STAGE=test",
            "--secret",
            "api-key",
            "--secret",
            "api-key:other-name",
        ],
        &[
            "--volume",
            "web-logs:/var/log/nginx",
            "--memory",
            "64m",
            "--cpus",
            "0.5",
        ],
    ];
    let _ = node.cli(&words.concat()).ok();
    let host = node.host();
    let page = eventually("nginx serves the host", || {
        host.http_get(LOCAL, NGINX_PORT, "/")
    });
    assert!(
        page.contains("200 OK") && page.contains("nginx") && page.contains(images::NGINX_PAGE),
        "{page}"
    );
    let page = eventually("nginx serves another machine", || {
        host.http_get_from_outside(NGINX_PORT, "/")
    });
    assert!(page.contains(images::NGINX_PAGE), "{page}");

    // Secrets, environment and limits, seen from inside and from the machine.
    for file in ["/run/secrets/api-key", "/run/secrets/other-name"] {
        assert_eq!(
            node.cli(&["container", "exec", "web.1", "cat", file]).ok(),
            "k-0001\n"
        );
    }
    assert_eq!(
        node.cli(&["container", "exec", "web.1", "sh", "-c", "echo $STAGE"])
            .ok(),
        "test\n"
    );
    let status = node.cli(&["container", "exec", "web.1", "sh", "-c", "exit 7"]);
    assert_eq!(status.code, 7, "exec ends as the command does: {status:?}");
    let pid = pid_of(&containers(&node, "web")[0]);
    assert_eq!(
        cgroup_file(pid, "memory", ["memory.limit_in_bytes", "memory.max"]),
        MEMORY_BYTES
    );
    let quota = cgroup_file(pid, "cpu", ["cpu.cfs_quota_us", "cpu.max"]);
    assert!(
        quota == "50000" || quota == "50000 100000",
        "half a core: {quota}"
    );

    // Logs.
    let _ = host.http_get(LOCAL, NGINX_PORT, "/this-shall-be-logged");
    eventually("the request is in the logs", || {
        let logs = node.cli(&["service", "logs", "web"]).ok();
        if logs.contains("/this-shall-be-logged") {
            Ok(())
        } else {
            Err(logs)
        }
    });

    scale(&node);
    events(&node);
    let _ = node.cli(&["service", "delete", "web"]).ok();
    assert!(
        host.http_get(LOCAL, NGINX_PORT, "/").is_err(),
        "the port stays open after the service is gone"
    );
    node.reset();
}

/// Three and back to one, on a service without a fixed port of the host.
fn scale(node: &Node) {
    let _ = node
        .cli(&["service", "create", "many", "--image", "test/nginx"])
        .ok();
    let first = containers(node, "many")[0].clone();
    let _ = node.cli(&["service", "scale", "many=3"]).ok();
    let three = containers(node, "many");
    assert_eq!(three.len(), 3, "{three:?}");
    let addresses: std::collections::BTreeSet<_> =
        three.iter().map(|c| c["address"].to_string()).collect();
    assert_eq!(
        addresses.len(),
        3,
        "each has an address of its own: {addresses:?}"
    );
    assert!(
        three
            .iter()
            .any(|c| c["id"] == first["id"] && c["startedAt"] == first["startedAt"]),
        "the first one stayed"
    );
    let _ = node
        .cli(&["service", "scale", "many", "--replicas", "1"])
        .ok();
    eventually("one is left", || match containers(node, "many").len() {
        1 => Ok(()),
        n => Err(format!("{n} run")),
    });
    let _ = node.cli(&["service", "delete", "many"]).ok();
}

/// What was done stands in the events, in its order.
fn events(node: &Node) {
    let text = node.cli(&["events", "--no-follow", "-o", "json"]).ok();
    let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    let list: Vec<serde_json::Value> = text.lines().map(read).collect();
    let at = |wanted: &str, about: &str| {
        let found = list.iter().position(|e| {
            let line = e.to_string();
            line.contains(wanted) && line.contains(about)
        });
        found.unwrap_or_else(|| panic!("no event {wanted} about {about} in\n{text}"))
    };
    let created = at("service.created", "many");
    let deleted = at("service.deleted", "many");
    assert!(created < deleted, "{text}");
    assert!(at("secret.created", "api-key") < created, "{text}");
}
