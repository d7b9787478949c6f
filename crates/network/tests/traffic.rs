//! Real connections through the kernel: every way traffic may take, and those it may not.

mod lab;

use lab::{HOST, OUTSIDE, address, ask, assert_silent, desired, nft, on_a_host, route, serve};
use nlink::netlink::nftables::Family;
use nlink::netlink::route::Ipv4Route;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;
use warren_types::Protocol::{self, Tcp, Udp};

const BOTH: [Protocol; 2] = [Tcp, Udp];
const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

#[test]
fn every_way_that_shall_be_open_is() {
    every_way("1");
}

/// The kernel's bridge filter runs the rules on what passes from port to port as well; hosts have it
/// on or off, by what else is installed.
#[test]
fn every_way_that_shall_be_open_is_without_the_bridge_filter() {
    every_way("0");
}

fn every_way(bridge_filter: &'static str) {
    on_a_host(move |lab| async move {
        const FILTER: &str = "net.bridge.bridge-nf-call-iptables";
        match lab.host.sysctl().set(FILTER, bridge_filter) {
            Err(error) if error.is_not_found() => eprintln!("this kernel has no bridge filter"),
            other => other.unwrap(),
        }
        let wanted = desired(&[2, 3], &[(Tcp, 8080, 80, &[2]), (Udp, 8080, 80, &[2])]);
        let containers = lab.bring_up(&wanted).await;
        for protocol in BOTH {
            let _inside = serve(&containers[0], protocol, ANY, 80, "two");
            let _outside = serve(&lab.outside, protocol, ANY, 7000, "outside");
            let ask = |from, to, port| {
                ask(from, protocol, to, port)
                    .unwrap_or_else(|e| panic!("{protocol:?} to {to}:{port}: {e}"))
            };
            // Out: carries the host's address.
            assert_eq!(
                ask(&containers[0], OUTSIDE, 7000),
                format!("outside saw {HOST}")
            );
            // In from another host: the client's address is kept.
            assert_eq!(ask(&lab.outside, HOST, 8080), format!("two saw {OUTSIDE}"));
            // In from the host itself.
            assert_eq!(
                ask(&lab.host, LOCALHOST, 8080),
                format!("two saw {}", address(1))
            );
            assert!(ask(&lab.host, HOST, 8080).starts_with("two saw "));
            assert!(ask(&lab.host, address(1), 8080).starts_with("two saw "));
            assert_eq!(
                ask(&lab.host, address(2), 80),
                format!("two saw {}", address(1))
            );
            // Container to container, directly and through the published port.
            assert_eq!(
                ask(&containers[1], address(2), 80),
                format!("two saw {}", address(3))
            );
            assert_eq!(
                ask(&containers[1], HOST, 8080),
                format!("two saw {}", address(1))
            );
            assert_eq!(
                ask(&containers[1], address(1), 8080),
                format!("two saw {}", address(1))
            );
            // A container to itself through the published port.
            assert_eq!(
                ask(&containers[0], HOST, 8080),
                format!("two saw {}", address(1))
            );
            // A container's own loopback is its own.
            assert_eq!(
                ask(&containers[0], LOCALHOST, 80),
                format!("two saw {LOCALHOST}")
            );
        }
    });
}

#[test]
fn what_is_not_published_is_closed() {
    on_a_host(|lab| async move {
        let wanted = desired(&[2], &[(Tcp, 8080, 80, &[2])]);
        let containers = lab.bring_up(&wanted).await;
        let to_subnet = Ipv4Route::from_addr(address(0), 24).gateway(HOST);
        route(&lab.outside).add_route(to_subnet).await.unwrap();
        let _published = serve(&containers[0], Tcp, ANY, 80, "two");
        let _private = serve(&containers[0], Tcp, ANY, 81, "two");
        // A neighbour that knows a route gets in through the published port only.
        assert!(ask(&lab.outside, Tcp, HOST, 8080).is_ok());
        assert_silent(&lab.outside, Tcp, address(2), 80);
        assert_silent(&lab.outside, Tcp, address(2), 81);
        assert_silent(&lab.outside, Tcp, HOST, 81);
        // The check bites: without the rule it would be open.
        let nft = nft(&lab.host);
        delete_rule(&nft, "closed").await;
        assert!(ask(&lab.outside, Tcp, address(2), 81).is_ok());
    });
}

#[test]
fn the_hosts_loopback_is_out_of_reach_for_containers() {
    on_a_host(|lab| async move {
        let wanted = desired(&[2], &[(Tcp, 8080, 80, &[2])]);
        let containers = lab.bring_up(&wanted).await;
        let _secret = serve(&lab.host, Tcp, LOCALHOST, 9999, "host");
        // A container that bends its own network so that 127.0.0.1 leads to the bridge.
        let inside = route(&containers[0]);
        inside.del_address("lo", LOCALHOST.into(), 8).await.unwrap();
        containers[0]
            .sysctl()
            .set("net.ipv4.conf.eth0.route_localnet", "1")
            .unwrap();
        inside
            .add_route(Ipv4Route::from_addr(LOCALHOST, 32).gateway(address(1)))
            .await
            .unwrap();
        assert_silent(&containers[0], Tcp, LOCALHOST, 9999);
        // The check bites: without the rule the container gets through.
        delete_rule(&nft(&lab.host), "to-loopback").await;
        assert_eq!(
            ask(&containers[0], Tcp, LOCALHOST, 9999).unwrap(),
            format!("host saw {}", address(2))
        );
    });
}

#[test]
fn a_foreign_source_address_is_dropped() {
    on_a_host(|lab| async move {
        let containers = lab.bring_up(&desired(&[2], &[])).await;
        let socket = lab
            .host
            .run(|| UdpSocket::bind("0.0.0.0:9000").unwrap())
            .unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(400)))
            .unwrap();
        let spoofed =
            nlink::netlink::addr::Ipv4Address::new("eth0", Ipv4Addr::new(10, 1, 1, 1), 32);
        route(&containers[0]).add_address(spoofed).await.unwrap();
        let send = |from: Ipv4Addr| {
            let sent = containers[0].run(|| {
                UdpSocket::bind((from, 0))
                    .unwrap()
                    .send_to(b"x", (address(1), 9000))
                    .unwrap()
            });
            assert_eq!(sent.unwrap(), 1);
        };
        send(Ipv4Addr::new(10, 1, 1, 1));
        send(address(2));
        let mut buffer = [0; 8];
        assert_eq!(socket.recv_from(&mut buffer).unwrap().1.ip(), address(2));
        assert!(socket.recv_from(&mut buffer).is_err());
    });
}

#[test]
fn replicas_take_turns_and_leave() {
    on_a_host(|lab| async move {
        let wanted = desired(
            &[2, 3, 4],
            &[(Tcp, 8080, 80, &[2, 3, 4]), (Udp, 8080, 80, &[2, 3, 4])],
        );
        let containers = lab.bring_up(&wanted).await;
        let servers: Vec<_> = BOTH
            .into_iter()
            .flat_map(|p| {
                containers
                    .iter()
                    .zip(["two", "three", "four"])
                    .map(move |(c, name)| serve(c, p, ANY, 80, name))
            })
            .collect();
        for protocol in BOTH {
            let answers: BTreeSet<String> = (0..3)
                .map(|_| ask(&lab.outside, protocol, HOST, 8080).unwrap())
                .collect();
            assert_eq!(answers.len(), 3, "{answers:?}");
        }
        let fewer = desired(
            &[2, 3, 4],
            &[(Tcp, 8080, 80, &[3, 4]), (Udp, 8080, 80, &[3, 4])],
        );
        assert!(!lab.network.apply(&fewer).await.unwrap().repaired.is_empty());
        lab.assert_matches(&fewer).await;
        let answers: Vec<String> = (0..6)
            .map(|_| ask(&lab.outside, Tcp, HOST, 8080).unwrap())
            .collect();
        assert!(answers.iter().all(|a| !a.starts_with("two")), "{answers:?}");
        let one = desired(&[2, 3, 4], &[(Tcp, 8080, 80, &[4])]);
        lab.network.apply(&one).await.unwrap();
        lab.assert_matches(&one).await;
        assert_eq!(
            ask(&lab.host, Tcp, LOCALHOST, 8080).unwrap(),
            format!("four saw {}", address(1))
        );
        assert_silent(&lab.outside, Udp, HOST, 8080);
        drop(servers);
    });
}

#[test]
fn a_udp_client_that_keeps_its_port_follows_to_the_new_backend() {
    on_a_host(|lab| async move {
        let wanted = desired(&[2, 3], &[(Udp, 5353, 53, &[2])]);
        let containers = lab.bring_up(&wanted).await;
        let _servers = [
            serve(&containers[0], Udp, ANY, 53, "two"),
            serve(&containers[1], Udp, ANY, 53, "three"),
        ];
        let client = lab
            .outside
            .run(|| UdpSocket::bind("0.0.0.0:4000").unwrap())
            .unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let talk = || {
            client.send_to(b"ask?", (HOST, 5353)).unwrap();
            let mut buffer = [0; 64];
            let length = client.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        };
        assert_eq!(talk(), format!("two saw {OUTSIDE}"));
        lab.network
            .apply(&desired(&[2, 3], &[(Udp, 5353, 53, &[3])]))
            .await
            .unwrap();
        assert_eq!(talk(), format!("three saw {OUTSIDE}"));
    });
}

#[test]
fn an_address_serves_its_next_container_at_once() {
    on_a_host(|lab| async move {
        let wanted = desired(&[2, 3], &[]);
        let containers = lab.bring_up(&wanted).await;
        let server = serve(&containers[0], Tcp, ANY, 80, "old");
        assert!(
            ask(&containers[1], Tcp, address(2), 80)
                .unwrap()
                .starts_with("old")
        );
        drop(server);
        assert!(lab.network.detach(lab::id(2)).await.unwrap());
        let next = warren_netplan::Endpoint::new(lab::id(9), address(2));
        let path = lab.network.attach(&wanted.bridge, &next).await.unwrap();
        let netns = nlink::netlink::namespace::Netns::from_path(path).unwrap();
        let _server = serve(&netns, Tcp, ANY, 80, "new");
        let started = std::time::Instant::now();
        for from in [&containers[1], &lab.host] {
            assert!(ask(from, Tcp, address(2), 80).unwrap().starts_with("new"));
        }
        assert!(
            started.elapsed() < Duration::from_millis(900),
            "{:?}",
            started.elapsed()
        );
    });
}

async fn delete_rule(nft: &nlink::netlink::Connection<nlink::netlink::Nftables>, key: &str) {
    let rules = nft.list_rules("warren", Family::Ip).await.unwrap();
    let rule = rules
        .iter()
        .find(|r| r.key.as_deref() == Some(key))
        .unwrap();
    nft.del_rule("warren", &rule.chain, Family::Ip, rule.handle)
        .await
        .unwrap();
}
