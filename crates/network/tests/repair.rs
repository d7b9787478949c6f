//! The kernel is compared and repaired, and what was made is taken away again.

mod lab;

use lab::{HOST, Lab, address, ask, bridge, desired, id, nft, on_a_host, route, serve};
use nlink::netlink::addr::Ipv4Address;
use nlink::netlink::link::{BridgeLink, VethLink};
use nlink::netlink::nftables::{BaseChain, Chain, Family, FilterHook, Policy, Priority, Rule};
use nlink::netlink::route::Ipv4Route;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use warren_netplan::{BridgeNetwork, Endpoint, HostPort, NodeNetwork, names};
use warren_network::{Difference, HostNetwork, NetworkError};
use warren_types::Protocol::{Tcp, Udp};

const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

fn web() -> NodeNetwork {
    desired(&[2, 3], &[(Tcp, 8080, 80, &[2]), (Udp, 8081, 80, &[2, 3])])
}

/// Checks that the damage is seen, in these words, and repaired, so that traffic flows again.
async fn assert_repaired(lab: &Lab, network: &NodeNetwork, words: &str) {
    let seen = lab.network.verify(network).await.unwrap();
    let text = seen
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ");
    assert!(text.contains(words), "expected {words:?} in: {text}");
    let report = lab.network.apply(network).await.unwrap();
    assert!(
        !report.repaired.is_empty() && report.failed.is_empty() && report.missing.is_empty(),
        "{report:?}"
    );
    lab.assert_matches(network).await;
    assert!(
        ask(&lab.outside, Tcp, HOST, 8080)
            .unwrap()
            .starts_with("two"),
        "after {words}"
    );
    assert!(
        ask(&lab.host, Tcp, Ipv4Addr::LOCALHOST, 8080)
            .unwrap()
            .starts_with("two"),
        "after {words}"
    );
}

#[test]
fn damage_to_the_table_is_repaired() {
    on_a_host(|lab| async move {
        let wanted = web();
        let containers = lab.bring_up(&wanted).await;
        let _server = serve(&containers[0], Tcp, ANY, 80, "two");
        let nft = nft(&lab.host);
        let rules = nft.list_rules("warren", Family::Ip).await.unwrap();
        assert!(rules.len() > 10);
        for rule in &rules {
            let key = rule.key.as_deref().unwrap();
            let now = nft.list_rules("warren", Family::Ip).await.unwrap();
            let handle = now
                .iter()
                .find(|r| r.key.as_deref() == Some(key))
                .unwrap()
                .handle;
            nft.del_rule("warren", &rule.chain, Family::Ip, handle)
                .await
                .unwrap();
            assert_repaired(&lab, &wanted, "firewall").await;
        }
        nft.add_rule(Rule::new("warren", "forward").family(Family::Ip).accept())
            .await
            .unwrap();
        assert_repaired(&lab, &wanted, "firewall").await;
        nft.flush_chain("warren", "publish", Family::Ip)
            .await
            .unwrap();
        assert_repaired(&lab, &wanted, "publish").await;
        nft.flush_table("warren", Family::Ip).await.unwrap();
        assert_repaired(&lab, &wanted, "firewall").await;
        nft.add_chain(Chain::new("warren", "mine").unwrap().family(Family::Ip))
            .await
            .unwrap();
        assert_repaired(&lab, &wanted, "mine").await;
        nft.del_table("warren", Family::Ip).await.unwrap();
        assert_repaired(&lab, &wanted, "table").await;
    });
}

#[test]
fn damage_to_links_addresses_and_settings_is_repaired() {
    on_a_host(|lab| async move {
        let wanted = web();
        let containers = lab.bring_up(&wanted).await;
        let _server = serve(&containers[0], Tcp, ANY, 80, "two");
        let host = route(&lab.host);
        let inside = route(&containers[0]);
        let veth = names::host_interface(id(2));
        let veth = veth.as_str();

        host.del_link(veth).await.unwrap();
        assert_repaired(&lab, &wanted, "interface pair was missing").await;
        host.set_link_down(veth).await.unwrap();
        assert_repaired(&lab, &wanted, "was down").await;
        host.set_link_nomaster(veth).await.unwrap();
        assert_repaired(&lab, &wanted, "not in the bridge").await;
        host.set_link_mtu(veth, 1400).await.unwrap();
        assert_repaired(&lab, &wanted, "MTU").await;
        inside.flush_addresses("eth0").await.unwrap();
        assert_repaired(&lab, &wanted, "address 10.89.0.2 was missing").await;
        inside
            .add_address(Ipv4Address::new("eth0", address(77), 24))
            .await
            .unwrap();
        assert_repaired(&lab, &wanted, "not the only one").await;
        inside
            .del_route(Ipv4Route::from_addr(Ipv4Addr::UNSPECIFIED, 0).gateway(address(1)))
            .await
            .unwrap();
        assert_repaired(&lab, &wanted, "default route").await;
        inside.set_link_down("eth0").await.unwrap();
        assert_repaired(&lab, &wanted, "eth0 was down").await;
        inside.set_link_down("lo").await.unwrap();
        assert_repaired(&lab, &wanted, "lo was down").await;

        host.flush_addresses("warren0").await.unwrap();
        assert_repaired(&lab, &wanted, "address 10.89.0.1/24 was missing").await;
        host.add_address(Ipv4Address::new("warren0", Ipv4Addr::new(10, 77, 0, 1), 24))
            .await
            .unwrap();
        assert_repaired(&lab, &wanted, "had address 10.77.0.1/24").await;
        host.set_link_down("warren0").await.unwrap();
        assert_repaired(&lab, &wanted, "bridge: was down").await;
        lab.host.sysctl().set("net.ipv4.ip_forward", "0").unwrap();
        assert_repaired(&lab, &wanted, "net.ipv4.ip_forward").await;
        lab.host
            .sysctl()
            .set("net.ipv4.conf.warren0.route_localnet", "0")
            .unwrap();
        assert_repaired(&lab, &wanted, "route_localnet").await;
        host.del_link("warren0").await.unwrap();
        assert_repaired(&lab, &wanted, "bridge was missing").await;
    });
}

#[test]
fn teardown_leaves_nothing() {
    on_a_host(|lab| async move {
        let before = lab.inventory().await;
        let wanted = web();
        let containers = lab.bring_up(&wanted).await;
        assert_ne!(lab.inventory().await, before);
        // Something of ours that no container belongs to any more, and something of somebody else.
        lab.network
            .attach(&bridge(), &Endpoint::new(id(7), address(7)))
            .await
            .unwrap();
        route(&lab.host)
            .add_link(BridgeLink::new("other0"))
            .await
            .unwrap();
        nft(&lab.host).add_table("other", Family::Ip).await.unwrap();
        drop(containers);
        lab.network.teardown().await.unwrap();
        lab.network.teardown().await.unwrap();
        let mut expected = before;
        expected.extend(["link other0".to_owned(), "table other".to_owned()]);
        expected.sort();
        assert_eq!(lab.inventory().await, expected);
    });
}

#[test]
fn a_new_process_finds_everything_in_place() {
    on_a_host(|lab| async move {
        let wanted = web();
        let containers = lab.bring_up(&wanted).await;
        let server = serve(&containers[0], Tcp, ANY, 80, "two");
        let next = HostNetwork::open(lab::config(&lab.dir)).unwrap();
        assert_eq!(next.verify(&wanted).await.unwrap(), []);
        assert!(next.apply(&wanted).await.unwrap().is_clean());
        let list = next.list().await.unwrap();
        let addresses: Vec<_> = list.iter().map(|a| (a.container, a.address)).collect();
        assert_eq!(
            addresses,
            [(id(2), Some(address(2))), (id(3), Some(address(3)))]
        );
        assert_eq!(list[0].netns, next.netns_path(id(2)));
        drop(server);
        assert!(next.detach(id(2)).await.unwrap());
        assert!(!next.detach(id(2)).await.unwrap());
        assert_eq!(next.list().await.unwrap().len(), 1);
        let missing = next.apply(&wanted).await.unwrap().missing;
        assert_eq!(missing, [Difference::NotAttached(id(2))]);
    });
}

#[test]
fn attaching_again_changes_nothing_and_follows_a_new_address() {
    on_a_host(|lab| async move {
        let mut wanted = web();
        lab.bring_up(&wanted).await;
        let links = |lab: &Lab| {
            let host = route(&lab.host);
            async move {
                host.get_links()
                    .await
                    .unwrap()
                    .iter()
                    .map(|l| l.ifindex())
                    .collect::<Vec<_>>()
            }
        };
        let before = links(&lab).await;
        for endpoint in wanted.endpoints.values() {
            lab.network.attach(&wanted.bridge, endpoint).await.unwrap();
        }
        assert_eq!(links(&lab).await, before);
        lab.assert_matches(&wanted).await;
        let moved = Endpoint::new(id(2), address(42));
        lab.network.attach(&wanted.bridge, &moved).await.unwrap();
        wanted.endpoints.insert(id(2), moved);
        wanted.published.clear();
        lab.network.apply(&wanted).await.unwrap();
        lab.assert_matches(&wanted).await;
        assert_eq!(links(&lab).await, before);
    });
}

#[test]
fn a_port_in_use_is_refused_and_named() {
    on_a_host(|lab| async move {
        let wanted = web();
        let taken = serve(&lab.host, Tcp, Ipv4Addr::LOCALHOST, 8080, "host");
        let port = HostPort {
            protocol: Tcp,
            port: 8080,
        };
        let error = lab.network.check_port(port).await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, NetworkError::PortInUse { .. }), "{text}");
        assert!(
            text.contains("8080/tcp") && text.contains(&format!("process {}", std::process::id())),
            "{text}"
        );
        lab.network
            .check_port(HostPort {
                protocol: Udp,
                port: 8080,
            })
            .await
            .unwrap();
        for endpoint in wanted.endpoints.values() {
            lab.network.attach(&wanted.bridge, endpoint).await.unwrap();
        }
        // The rest is done all the same, and the listener keeps its port.
        let report = lab.network.apply(&wanted).await.unwrap();
        assert!(
            matches!(report.failed.as_slice(), [NetworkError::PortInUse { .. }]),
            "{report:?}"
        );
        assert_eq!(
            ask(&lab.host, Tcp, Ipv4Addr::LOCALHOST, 8080).unwrap(),
            "host saw 127.0.0.1"
        );
        drop(taken);
        let report = lab.network.apply(&wanted).await.unwrap();
        assert!(
            report.failed.is_empty() && report.repaired.len() == 1,
            "{report:?}"
        );
        // Ours now: neither our own check nor a new process sees a conflict.
        lab.network.check_port(port).await.unwrap();
        HostNetwork::open(lab::config(&lab.dir))
            .unwrap()
            .check_port(port)
            .await
            .unwrap();
    });
}

#[test]
fn what_is_in_the_way_is_named_and_left_alone() {
    on_a_host(|lab| async move {
        let host = route(&lab.host);
        let endpoint = Endpoint::new(id(2), address(2));
        // A link with the bridge's name that is no bridge.
        host.add_link(VethLink::new("warren0", "peer0"))
            .await
            .unwrap();
        let error = lab.network.attach(&bridge(), &endpoint).await.unwrap_err();
        assert!(
            error
                .to_string()
                .contains("warren0 exists and is of kind veth"),
            "{error}"
        );
        assert!(lab.network.teardown().await.is_err());
        host.del_link("warren0").await.unwrap();
        // A subnet that the host uses.
        let same = BridgeNetwork::new("warren0", "192.0.2.0/24".parse().unwrap());
        let error = lab
            .network
            .attach(&same, &Endpoint::new(id(2), Ipv4Addr::new(192, 0, 2, 9)))
            .await
            .unwrap_err();
        assert!(matches!(error, NetworkError::SubnetInUse { .. }), "{error}");
        assert!(error.to_string().contains("up0"), "{error}");
        // A file where the namespace should be.
        let path = lab.network.netns_path(id(2));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "precious").unwrap();
        let error = lab.network.attach(&bridge(), &endpoint).await.unwrap_err();
        assert!(matches!(error, NetworkError::ForeignFile { .. }), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        // An empty one is what a crash or a reboot left.
        std::fs::write(&path, "").unwrap();
        lab.network.attach(&bridge(), &endpoint).await.unwrap();
        // A desired network for another bridge, or not valid.
        let other = NodeNetwork::empty(BridgeNetwork::new(
            "other0",
            "10.90.0.0/24".parse().unwrap(),
        ));
        assert!(matches!(
            lab.network.apply(&other).await,
            Err(NetworkError::OtherBridge { .. })
        ));
        let outside = Endpoint::new(id(3), Ipv4Addr::new(10, 90, 0, 9));
        assert!(matches!(
            lab.network.attach(&bridge(), &outside).await,
            Err(NetworkError::Invalid(_))
        ));
    });
}

#[test]
fn a_firewall_of_others_that_drops_is_reported() {
    on_a_host(|lab| async move {
        let wanted = web();
        lab.bring_up(&wanted).await;
        assert_eq!(lab.network.apply(&wanted).await.unwrap().warnings, [""; 0]);
        let nft = nft(&lab.host);
        nft.add_table("strict", Family::Ip).await.unwrap();
        let base = BaseChain::filter(FilterHook::Forward, Priority::Filter).policy(Policy::Drop);
        nft.add_chain(
            Chain::new("strict", "FORWARD")
                .unwrap()
                .family(Family::Ip)
                .base(base),
        )
        .await
        .unwrap();
        let warnings = lab.network.apply(&wanted).await.unwrap().warnings;
        assert!(
            matches!(warnings.as_slice(), [w] if w.contains("strict") && w.contains("warren0")),
            "{warnings:?}"
        );
        nft.add_rule(
            Rule::new("strict", "FORWARD")
                .family(Family::Ip)
                .match_iif("warren0")
                .accept(),
        )
        .await
        .unwrap();
        assert_eq!(lab.network.apply(&wanted).await.unwrap().warnings, [""; 0]);
    });
}

#[test]
fn the_table_of_before_a_crash_is_brought_over() {
    on_a_host(|lab| async move {
        // A table with our name and something else in it, as an older release may have left.
        let nft = nft(&lab.host);
        nft.add_table("warren", Family::Ip).await.unwrap();
        nft.add_chain(Chain::new("warren", "raw").unwrap().family(Family::Ip))
            .await
            .unwrap();
        nft.add_rule(Rule::new("warren", "raw").family(Family::Ip).drop())
            .await
            .unwrap();
        lab.bring_up(&web()).await;
    });
}

#[test]
fn many_containers_at_once() {
    /// Containers attached at once.
    const COUNT: u8 = 50;
    on_a_host(|lab| async move {
        let numbers: Vec<u8> = (2..2 + COUNT).collect();
        let wanted = desired(&numbers, &[(Tcp, 8080, 80, &[2])]);
        let started = Instant::now();
        let first = wanted.endpoints.values().next().unwrap();
        lab.network.attach(&wanted.bridge, first).await.unwrap();
        eprintln!("first attach, bridge included: {:?}", started.elapsed());
        let started = Instant::now();
        let mut times = Vec::new();
        for endpoint in wanted.endpoints.values().skip(1).take(9) {
            let one = Instant::now();
            lab.network.attach(&wanted.bridge, endpoint).await.unwrap();
            times.push(one.elapsed());
        }
        times.sort();
        eprintln!(
            "one attach: p50 {:?}, largest {:?}",
            times[times.len() / 2],
            times[times.len() - 1]
        );
        let all = Instant::now();
        futures_join(
            wanted
                .endpoints
                .values()
                .map(|e| lab.network.attach(&wanted.bridge, e)),
        )
        .await;
        eprintln!("{COUNT} at once: {:?}", all.elapsed());
        let one = Instant::now();
        lab.network.apply(&wanted).await.unwrap();
        eprintln!("apply: {:?}", one.elapsed());
        let one = Instant::now();
        assert_eq!(lab.network.verify(&wanted).await.unwrap(), []);
        eprintln!("verify of {COUNT}: {:?}", one.elapsed());
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "{:?}",
            started.elapsed()
        );
        let one = Instant::now();
        for endpoint in wanted.endpoints.values() {
            assert!(lab.network.detach(endpoint.container).await.unwrap());
        }
        eprintln!("detach of {COUNT} one by one: {:?}", one.elapsed());
        assert_eq!(lab.network.list().await.unwrap(), []);
    });
}

/// Polls all futures to their end within this task.
async fn futures_join<T>(
    futures: impl Iterator<Item = impl Future<Output = Result<T, NetworkError>>>,
) {
    let mut pending: Vec<_> = futures.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        pending.retain_mut(|f| match f.as_mut().poll(context) {
            std::task::Poll::Ready(result) => {
                result.map(drop).unwrap();
                false
            }
            std::task::Poll::Pending => true,
        });
        if pending.is_empty() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
}
