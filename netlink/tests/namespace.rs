//! Interfaces of a network namespace of the test's own, beside what iproute2 says of them.

use std::process::Command;

use netlink::{Address, Netlink};

/// Set where a test runs in a namespace of its own.
const INSIDE: &str = "NETLINK_TEST_INSIDE";

/// Runs the test called `name` again, as root of new user and network namespaces; whether this is that run.
fn in_namespace(name: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let own = std::env::current_exe().expect("its own path");
    let mut again = Command::new("unshare");
    again.args(["--map-root-user", "--net"]).arg(own);
    again
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1");
    let output = again.output().expect("unshare(1) of util-linux");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{told}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(told.contains("1 passed"), "{told}");
    false
}

/// What a program of iproute2 says; each line of `script` is a command of its own.
fn run(script: &str) -> String {
    let output = Command::new("sh")
        .args(["-ec", script])
        .output()
        .expect("sh");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

const SETUP: &str = "ip link add one address 02:00:00:00:00:01 mtu 1400 type veth peer name two
    ip link set one up
    ip link set two up";

#[test]
fn addresses_and_routes_of_one_interface_can_be_given_to_another() {
    if !in_namespace("addresses_and_routes_of_one_interface_can_be_given_to_another") {
        return;
    }
    run(SETUP);
    run("ip address add 192.0.2.2/24 dev one
        ip address add 198.51.100.7 peer 198.51.100.1 dev one
        ip -6 address add 2001:db8::2/64 dev one nodad
        ip route add default via 192.0.2.1 dev one src 192.0.2.2
        ip route add 203.0.113.0/24 via 192.0.2.9 dev one metric 7
        ip route add 203.0.113.0/25 via 169.254.1.1 dev one onlink mtu 1280
        ip route add 203.0.113.128/25 via inet6 2001:db8::9 dev one
        ip -6 route add default via 2001:db8::1 dev one mtu 1300 window 30000
        ip neighbour add 169.254.1.1 lladdr 02:00:00:00:00:09 dev one nud permanent
        ip neighbour add 2001:db8::9 lladdr 02:00:00:00:00:0a dev one nud permanent
        ip neighbour add 192.0.2.77 lladdr 02:00:00:00:00:0b dev one nud reachable");
    let shown = || {
        let show = "ip -o route show dev $i; ip -o -6 route show dev $i; ip -o address show dev $i scope global";
        move |name: &str| run(&show.replace("$i", name))
    };
    let routes = |name: &str| -> Vec<String> {
        let shown = shown()(name);
        let routes = shown
            .lines()
            .filter(|line| !line.contains(": ") && !line.starts_with("fe80"));
        // Who made a route is said, and differs.
        let words = routes.map(|line| {
            line.split_whitespace()
                .filter(|word| !["proto", "kernel", "static", "linkdown"].contains(word))
        });
        let mut routes: Vec<_> = words
            .map(|words| words.collect::<Vec<_>>().join(" "))
            .collect();
        routes.sort();
        routes
    };
    let netlink = Netlink::open().expect("a socket");
    let one = netlink.interface("one").expect("interface one");
    assert_eq!((one.mac, one.mtu), ([2, 0, 0, 0, 0, 1], 1400));
    let addresses = netlink.addresses(one.index).expect("addresses");
    let ips: Vec<_> = addresses
        .iter()
        .map(|Address { ip, prefix }| format!("{ip}/{prefix}"))
        .collect();
    assert_eq!(ips, ["192.0.2.2/24", "198.51.100.7/32", "2001:db8::2/64"]);
    let listed = netlink.routes().expect("routes");
    assert!(listed.iter().all(|(by, _)| *by == one.index));
    let neighbours = netlink.neighbours(one.index).expect("neighbours");
    let told = |name: &str| run(&format!("ip neighbour show dev {name} nud permanent"));
    let expected_neighbours = told("one");
    assert_eq!(expected_neighbours.lines().count(), 2);
    let expected = routes("one");
    assert!(expected.len() >= 8, "{expected:?}");
    run("ip link delete one
        ip link add other type veth peer name two");
    let other = netlink.interface("other").expect("interface other");
    netlink.set_up(other.index).expect("up");
    for address in addresses {
        netlink
            .add_address(other.index, address)
            .expect("an address");
    }
    for neighbour in neighbours {
        netlink
            .add_neighbour(other.index, neighbour)
            .expect("a neighbour");
    }
    assert_eq!(told("other"), expected_neighbours);
    for (_, route) in &listed {
        netlink.add_route(other.index, route).expect("a route");
    }
    assert_eq!(routes("other"), expected);
    let again = netlink.add_route(other.index, &listed[0].1);
    assert!(format!("{:#}", again.expect_err("it is there")).contains("File exists"));
}

#[test]
fn joined_interfaces_redirect_every_packet_to_each_other() {
    if !in_namespace("joined_interfaces_redirect_every_packet_to_each_other") {
        return;
    }
    run(SETUP);
    run("ip link add three type veth peer name four
        ip link set three up
        ip link set four up");
    let netlink = Netlink::open().expect("a socket");
    let index = |name: &str| netlink.interface(name).expect("an interface").index;
    netlink.join(index("two"), index("three")).expect("a joint");
    for (from, to) in [("two", "three"), ("three", "two")] {
        let filters = run(&format!("tc filter show dev {from} ingress"));
        assert!(filters.contains("protocol all pref 1 u32"), "{filters}");
        assert!(
            filters.contains(&format!("Egress Redirect to device {to}")),
            "{filters}"
        );
    }
    assert!(netlink.interface("five").is_err());
    let none = netlink.join(index("two"), 999);
    assert!(none.is_err());
}
