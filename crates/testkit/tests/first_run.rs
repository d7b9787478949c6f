//! The README's first command: from nothing to a container that answers, and back to nothing.

use warren_testkit::leaks::Traces;
use warren_testkit::{Host, Node, eventually, is_root, skipped};

const LOCAL: std::net::Ipv4Addr = std::net::Ipv4Addr::LOCALHOST;

#[test]
fn up_serves_hello_and_reset_leaves_nothing() {
    if !is_root() {
        return skipped("up_serves_hello_and_reset_leaves_nothing", "needs root");
    }
    let node = Node::new();
    let directory = node.directory().display().to_string();
    let before = Traces::take(node.host(), &[&directory]);
    let out = node.cli(&["up", "--hello-port", "8090"]).ok();
    assert!(out.contains("8090"), "up says where to look: {out}");
    let page = node
        .host()
        .http_get(LOCAL, 8090, "/plain")
        .unwrap_or_else(|e| panic!("{e}\n{}", node.log_tail()));
    assert!(
        page.contains("200 OK") && page.contains("service: hello"),
        "{page}"
    );
    let marks = node.marks();
    // From another machine too.
    let page = node
        .host()
        .http_get_from_outside(8090, "/plain")
        .unwrap_or_else(|e| panic!("{e}"));
    assert!(page.contains("service: hello"), "{page}");

    // Again: nothing changes, the container is not restarted.
    let first = node.json(&["container", "list", "-o", "json"]);
    let _ = node.cli(&["up", "--hello-port", "8090"]).ok();
    let again = node.json(&["container", "list", "-o", "json"]);
    assert_eq!(first[0]["startedAt"], again[0]["startedAt"]);
    assert_eq!(
        first.as_array().map(Vec::len),
        again.as_array().map(Vec::len)
    );

    // The daemon stops, the container stays.
    let _ = node.cli(&["node", "stop"]).ok();
    let _ = node.cli(&["node", "list"]).fails(3);
    let page = node
        .host()
        .http_get(LOCAL, 8090, "/plain")
        .unwrap_or_else(|e| panic!("after node stop: {e}"));
    assert!(page.contains("service: hello"), "{page}");

    // Up again adopts it.
    let _ = node.cli(&["up", "--hello-port", "8090"]).ok();
    let adopted = node.json(&["container", "list", "-o", "json"]);
    assert_eq!(
        first[0]["startedAt"], adopted[0]["startedAt"],
        "the container was restarted"
    );

    // Down takes the services away and leaves the node.
    let _ = node.cli(&["down"]).ok();
    assert_eq!(
        node.json(&["service", "list", "-o", "json"])
            .as_array()
            .map(Vec::len),
        Some(0)
    );
    assert!(node.host().http_get(LOCAL, 8090, "/plain").is_err());

    let _ = node.cli(&["node", "reset", "--yes"]).ok();
    let left = Traces::take(node.host(), &marks).beyond(&before);
    assert!(left.is_empty(), "left behind: {left:#?}");
    assert!(!node.data_dir().exists(), "data directory left behind");
}

#[test]
fn published_ports_tcp_and_udp_from_everywhere() {
    if !is_root() {
        return skipped("published_ports_tcp_and_udp_from_everywhere", "needs root");
    }
    let mut node = Node::running();
    for image in [
        warren_testkit::images::busybox(node.directory()),
        warren_testkit::images::udp_echo(node.directory()),
    ] {
        let _ = node.cli(&["image", "import", &image]).ok();
    }
    // One container answers on TCP and UDP.
    let script = "while true; do echo -e 'HTTP/1.0 200 OK\\r\\n\\r\\ntcp answer' | nc -l -p 80 >/dev/null; done";
    let _ = node
        .cli(&[
            "service",
            "create",
            "tcp",
            "--image",
            "test/busybox",
            "-p",
            "9080:80",
            "--",
            "sh",
            "-c",
            script,
        ])
        .ok();
    let _ = node
        .cli(&[
            "service",
            "create",
            "udp",
            "--image",
            "test/udp-echo",
            "-p",
            "9053:53/udp",
        ])
        .ok();
    let host = node.host();
    eventually("tcp from the host by loopback", || {
        host.http_get(LOCAL, 9080, "/")
    });
    eventually("tcp from the host by its address", || {
        host.http_get(Host::ADDRESS, 9080, "/")
    });
    eventually("tcp from another machine", || {
        host.http_get_from_outside(9080, "/")
    });
    eventually("udp from the host by loopback", || {
        match host.udp_ask(LOCAL, 9053, "ping\n") {
            Ok(answer) if answer == "ping\n" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    // From another container, by the host's address.
    let from_container = eventually("tcp from another container", || {
        let out = node.cli(&[
            "container",
            "exec",
            "udp.1",
            "wget",
            "-q",
            "-O",
            "-",
            "http://192.0.2.1:9080/",
        ]);
        if out.stdout.contains("tcp answer") {
            Ok(out.stdout)
        } else {
            Err(format!("{out:?}"))
        }
    });
    assert!(from_container.contains("tcp answer"));
    // Outbound: the container reaches the other machine with the host's address.
    let echo = host.run_outside(|| {
        std::net::TcpListener::bind((Host::OUTSIDE, 7000)).map_err(|e| e.to_string())
    });
    let listener = echo.unwrap_or_else(|e| panic!("{e}"));
    let peer = std::thread::spawn(move || listener.accept().map(|(_, peer)| peer.ip()));
    let _ = node.cli(&[
        "container",
        "exec",
        "udp.1",
        "nc",
        "-w",
        "2",
        "192.0.2.2",
        "7000",
    ]);
    let peer = peer
        .join()
        .unwrap_or_else(|_| panic!("listener"))
        .unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(
        peer,
        std::net::IpAddr::from(Host::ADDRESS),
        "masqueraded as the host"
    );

    // Somebody deletes the table: it is repaired.
    let deleted = node
        .host()
        .command("nft")
        .args(["delete", "table", "ip", "warren"])
        .output();
    if deleted.is_ok_and(|o| o.status.success()) {
        warren_testkit::eventually_within(
            std::time::Duration::from_secs(60),
            "the rules are repaired",
            || node.host().http_get(LOCAL, 9080, "/"),
        );
    }
    node.reset();
}
