//! Pods on networks of the host, made by the CNI plugins that Debian has.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::home::{Home, USER, kvm_group};
use tests::random::Random;
use tests::running::Running;
use tests::{
    Finished, fairing_in, finish, image_id, proved, rounds, tell, temporary, test_image, wait_until,
};

/// Where host-local keeps who has which address: Debian's own folder, and that of the built-in networks.
const LEASES: [&str; 2] = ["/var/lib/cni/networks", "/run/fairing/networks"];

/// A store and a configuration of the test's own.
struct Host(tempfile::TempDir);

impl Host {
    fn new(networks: &[Value]) -> Self {
        let host = Self(temporary("fairing-networks-"));
        let folder = host.0.path().join("etc/net.d");
        fs::create_dir_all(&folder).expect("a folder");
        for (number, network) in networks.iter().enumerate() {
            let path = folder.join(format!("{number}.conflist"));
            fs::write(path, network.to_string()).expect("a configuration");
        }
        let image = test_image("busybox");
        let mut import = host.fairing(&["image", "import", "--name=busybox"]);
        finish(import.arg(image)).expect_code(0);
        host
    }

    fn fairing(&self, words: &[&str]) -> Command {
        let mut command = fairing_in(&self.0.path().join("store"));
        let etc = self.0.path().join("etc");
        command.arg("--local-config").arg(etc).args(words);
        command
    }

    /// From now on its pods are on the network that nobody has chosen.
    fn asks_for_nothing(&self) {
        fs::write(self.0.path().join("etc/config.toml"), "net = \"default\"\n")
            .expect("a configuration");
    }

    /// A pod on the networks `net` that runs `script`, and what its shell prints.
    fn pod(&self, net: &str, script: &str) -> Command {
        self.pod_with(&[&format!("--net={net}")], script)
    }

    fn pod_with(&self, flags: &[&str], script: &str) -> Command {
        let mut command = self.fairing(&["run", "--rm"]);
        command.args(flags).args(["busybox", "--"]);
        command.args(["/bin/sh", "-c", &proved(script)]);
        command
    }

    /// A pod on the networks `net` by a manifest, whose app has these ports and the pod these isolators.
    fn web(&self, net: &str, script: &str, ports: &Value, isolators: &Value) -> Command {
        let id = image_id(&self.0.path().join("store"));
        let app = json!({"exec": ["/bin/sh", "-c", proved(script)], "user": "0", "group": "0", "ports": ports});
        let apps = json!([{"name": "web", "image": {"id": id}, "app": app}]);
        let manifest = json!({"acVersion": "0.8.11", "acKind": "PodManifest", "apps": apps, "isolators": isolators});
        let path = self.0.path().join("pod");
        fs::write(&path, manifest.to_string()).expect("room for a manifest");
        let net = format!("--net={net}");
        let mut pod = self.fairing(&["run", "--rm", &net, "--pod-manifest"]);
        pod.arg(path);
        pod
    }

    /// The UUID of the pod that it has.
    #[track_caller]
    fn only_pod(&self) -> String {
        let list = finish(&mut self.fairing(&["list", "--no-legend", "--full"]));
        let list = list.expect_code(0).out();
        let uuid = list.split_whitespace().next().expect("a pod");
        uuid.to_owned()
    }

    #[track_caller]
    fn run(&self, net: &str, script: &str) -> Finished {
        finish(&mut self.pod(net, script))
    }
}

/// What networks leave on a host: interfaces but for bridges, namespaces and addresses.
fn made() -> BTreeSet<String> {
    let mut made = BTreeSet::new();
    let links = sh("ip -j link");
    let links: Vec<Value> = serde_json::from_str(&links).expect("JSON");
    let names = links
        .iter()
        .map(|link| link["ifname"].as_str().expect("a name"));
    made.extend(
        names
            .filter(|name| !name.starts_with("testbr"))
            .map(|name| format!("link {name}")),
    );
    let list = |folder: &Path| -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.path().display().to_string())
            .collect()
    };
    made.extend(list(Path::new("/run/netns")));
    for network in LEASES.iter().flat_map(|folder| list(Path::new(folder))) {
        let leases = list(Path::new(&network)).into_iter();
        made.extend(
            leases.filter(|path| !path.contains("last_reserved") && !path.ends_with("/lock")),
        );
    }
    made
}

/// All that tools tell of a host's networks, but for counters and what is numbered anew.
fn state() -> String {
    sh("ip -j address | jq -c '.[] | [.ifname, [.addr_info[] | select(.scope != \"link\") | .local]]' | sort
        ip -j route show table all; tc -j qdisc
        nft -s -j list ruleset | jq -c '.nftables[] | walk(if type == \"object\" then del(.handle) else . end)'
        find /run/netns /var/lib/cni /run/fairing/networks -type f -not -name lock -not -name 'last_reserved*' || true")
}

/// What a script prints on the host.
#[track_caller]
fn sh(script: &str) -> String {
    finish(Command::new("sh").args(["-ec", script]))
        .expect_code(0)
        .out()
}

fn ipam(subnets: &[&str]) -> Value {
    let ranges: Vec<_> = subnets
        .iter()
        .map(|subnet| json!([{"subnet": subnet}]))
        .collect();
    json!({"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]})
}

fn bridge(name: &str, subnets: &[&str]) -> Value {
    let plugin = json!({"type": "bridge", "bridge": format!("testbr-{name}"), "isGateway": true, "ipam": ipam(subnets)});
    json!({"cniVersion": "1.0.0", "name": name, "plugins": [plugin]})
}

fn ptp(name: &str, subnets: &[&str]) -> Value {
    let plugin = json!({"type": "ptp", "mtu": 1400, "ipam": ipam(subnets)});
    json!({"cniVersion": "0.4.0", "name": name, "plugins": [plugin]})
}

/// The network with more plugins, which come after its own.
fn chained<const N: usize>(mut network: Value, plugins: [Value; N]) -> Value {
    let list = network["plugins"].as_array_mut().expect("a list");
    list.extend(plugins);
    network
}

/// A bridge with masquerade, from whose host ports lead to pods.
fn ported(name: &str, subnets: &[&str]) -> Value {
    let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}});
    let firewall = json!({"type": "firewall", "backend": "iptables"});
    let mut network = bridge(name, subnets);
    network["plugins"][0]["ipMasq"] = json!(true);
    chained(network, [portmap, firewall])
}

/// Serves many numbers, after it has printed its hardware address, its MTU and its addresses of both families.
const SERVER: &str = "cd /sys/class/net/eth0; echo $(cat address mtu); mkdir /www; seq 1 400000 >/www/numbers; \
    ip -o address show dev eth0 scope global | awk '{sub(\"/.*\", \"\", $4); print $4}'; exec httpd -f -p 80 -h /www";

#[test]
fn pods_on_a_bridge_talk_to_each_other_and_to_their_host() {
    // The other pod has another part of the same subnets, and its own hardware address.
    let mut plain = bridge("bridged", &[]);
    plain["name"] = json!("plain");
    plain["plugins"][0]["ipam"]["ranges"] = json!([
        [{"subnet": "10.98.1.0/24", "rangeStart": "10.98.1.100"}],
        [{"subnet": "fd98:1::/64", "rangeStart": "fd98:1::100"}],
    ]);
    let tuning = json!({"type": "tuning", "mac": "02:98:00:00:00:07", "mtu": 1300});
    let rates = json!({"type": "bandwidth", "ingressRate": 800_000_000, "ingressBurst": 8_000_000,
        "egressRate": 800_000_000, "egressBurst": 8_000_000});
    let network = bridge("bridged", &["10.98.1.0/24", "fd98:1::/64"]);
    let network = chained(network, [tuning, rates]);
    let host = Host::new(&[network, plain]);
    let before = made();
    let mut server = Running::start(&mut host.pod("bridged", SERVER));
    assert_eq!(server.line(), "02:98:00:00:00:07 1300");
    let addresses = [server.line(), server.line()];
    assert_eq!(addresses, ["10.98.1.2", "fd98:1::2"]);
    let listed = finish(&mut host.fairing(&["list", "--no-legend"]))
        .expect_code(0)
        .out();
    assert!(listed.contains("bridged:ip4=10.98.1.2"), "{listed}");
    // As it was made, and as it was not.
    let status = |uuid: &str| finish(&mut host.fairing(&["status", "--check-networks", uuid]));
    let uuid = host.only_pod();
    status(&uuid).expect_code(0);
    let inside = format!("ip -n fairing-{uuid} address");
    sh(&format!("{inside} delete 10.98.1.2/24 dev eth0"));
    let broken = status(&uuid).expect_code(254);
    assert!(
        broken.err().contains("bridge (CHECK) failed"),
        "{}",
        broken.err()
    );
    sh(&format!("{inside} add 10.98.1.2/24 dev eth0"));
    let numbers = sh("seq 1 400000 | sha256sum");
    let fetch = |program: &str| {
        format!(
            "for url in http://10.98.1.2 'http://[fd98:1::2]'; do {program} $url/numbers | sha256sum; done"
        )
    };
    let curl = "curl --silent --show-error --retry 9 --retry-connrefused -g";
    assert_eq!(sh(&fetch(curl)), format!("{numbers}{numbers}"));
    let script = format!(
        "{}; ping -c 2 -s 60000 10.98.1.1 | grep 'packet loss'",
        fetch("wget -qO -")
    );
    let client = host.run("plain", &script).expect_code(0);
    let told =
        format!("{numbers}{numbers}2 packets transmitted, 2 packets received, 0% packet loss\n");
    assert_eq!(client.out(), told, "{}", client.err());
    let status = finish(&mut host.fairing(&["list", "--format=json"]))
        .expect_code(0)
        .out();
    let pods: Value = serde_json::from_str(&status).expect("JSON");
    let id = pods[0]["name"].as_str().expect("a UUID").to_owned();
    finish(&mut host.fairing(&["stop", &id])).expect_code(0);
    server.finish();
    finish(&mut host.fairing(&["gc"])).expect_code(0);
    assert_eq!(made(), before);
}

#[test]
fn pod_has_what_each_of_its_networks_says_in_order() {
    let networks = [
        ptp("first", &["10.98.2.0/24"]),
        bridge("second", &["10.98.3.0/24"]),
        ptp("other", &["10.98.9.0/24"]),
        ptp("six", &["fd98:9::/64"]),
    ];
    let host = Host::new(&networks);
    let before = made();
    let script = "cat /sys/class/net/*/mtu; ip -o route; ping -c 1 10.98.2.1 | grep -c 'bytes from'; \
        ping -c 1 10.98.3.1 | grep -c 'bytes from'";
    let out = host.run("first,second", script).expect_code(0).out();
    let lines: Vec<_> = out.lines().map(str::trim).collect();
    let expected = [
        "1400",
        "1500",
        "65536",
        // In the order that the plugins' own kernel has them.
        "default via 10.98.3.1 dev eth1",
        "default via 10.98.2.1 dev eth0",
        "10.98.2.0/24 via 10.98.2.1 dev eth0  src 10.98.2.2",
        "10.98.2.1 dev eth0 scope link  src 10.98.2.2",
        "10.98.3.0/24 dev eth1 scope link  src 10.98.3.2",
        "1",
        "1",
    ];
    assert_eq!(lines, expected, "{out}");
    let script = "ip -o address show dev eth0 scope global | grep -c inet; ping -c 1 fd98:9::1 | grep -c 'bytes from'";
    assert_eq!(host.run("six", script).expect_code(0).out(), "1\n1\n");
    assert_eq!(made(), before);
}

/// Interfaces of every kind that a plugin makes out of another: `outside` is at the other end of its cable, in a namespace of its own.
#[test]
fn pod_on_an_interface_made_of_a_hosts_is_on_the_link_of_that() {
    let subnets = ["10.98.4.0/24", "fd98:4::/64"];
    let of_master = |kind: &str, more: Value| {
        let mut plugin = json!({"type": kind, "master": "test-inner", "ipam": ipam(&subnets)});
        let plugin_object = plugin.as_object_mut().expect("an object");
        plugin_object.extend(more.as_object().expect("an object").clone());
        json!({"cniVersion": "0.3.1", "name": kind, "plugins": [plugin]})
    };
    let host = Host::new(&[
        of_master("macvlan", json!({})),
        of_master("ipvlan", json!({})),
        of_master("vlan", json!({"vlanId": 7})),
        of_master("host-device", json!({"device": "test-inner"})),
    ]);
    let outside = "ip -n test-outside";
    sh(&format!(
        "ip netns add test-outside
        ip link add test-inner type veth peer name eth0 netns test-outside; ip link set test-inner up
        {outside} link set eth0 up; {outside} address add 10.98.4.1/24 dev eth0; {outside} address add fd98:4::1/64 dev eth0 nodad
        {outside} link add link eth0 name eth0.7 type vlan id 7; {outside} link set eth0.7 up"
    ));
    let before = made();
    let kinds = ["macvlan", "ipvlan", "vlan", "host-device"];
    for kind in &kinds[..rounds("kinds of interfaces made of a host's", 2, 4)] {
        if *kind == "vlan" {
            sh(&format!(
                "for ip in 10.98.4.1/24 fd98:4::1/64; do
                    {outside} address delete $ip dev eth0; {outside} address add $ip dev eth0.7 nodad
                done"
            ));
        }
        if *kind == "host-device" {
            sh(&format!(
                "for ip in 10.98.4.1/24 fd98:4::1/64; do
                    {outside} address delete $ip dev eth0.7; {outside} address add $ip dev eth0 nodad
                done"
            ));
        }
        let script =
            "for ip in 10.98.4.1 fd98:4::1; do ping -c 1 -s 3000 $ip | grep -c 'bytes from'; done";
        let pod = host.run(kind, script).expect_code(0);
        assert_eq!(pod.out(), "1\n1\n", "{kind}: {}", pod.err());
        wait_until("the host has its interface again", || made() == before);
    }
    sh("ip netns delete test-outside");
}

#[test]
fn network_that_cannot_be_made_is_told_and_what_was_made_before_it_is_gone() {
    let tuning = json!({"type": "tuning", "sysctl": {"net.ipv4.conf.none.forwarding": "1"}});
    let failing = chained(bridge("failing", &["10.98.5.0/24"]), [tuning]);
    let missing = bridge("missing", &["10.98.6.0/24"]);
    let missing = chained(missing, [json!({"type": "nobody"})]);
    let good = bridge("good", &["10.98.7.0/24"]);
    let full = ptp("full", &["10.98.8.0/29"]);
    let host = Host::new(&[failing, missing, good, full]);
    let before = made();
    let leases = Path::new(LEASES[0]).join("full");
    fs::create_dir_all(&leases).expect("a folder");
    let taken: Vec<_> = (2..=6)
        .map(|last| leases.join(format!("10.98.8.{last}")))
        .collect();
    for path in &taken {
        fs::write(path, "another\r\neth0").expect("a lease");
    }
    for (net, told) in [
        ("unknown", "no network unknown is described"),
        ("good,failing", "net/ipv4/conf/none/forwarding"),
        ("good,missing", "there is no network plugin nobody"),
        ("good,full", "no IP addresses available"),
    ] {
        let refused = host.run(net, "true").expect_code(254);
        assert!(
            refused.err().contains(told),
            "{told} not in {}",
            refused.err()
        );
    }
    taken
        .iter()
        .for_each(|path| fs::remove_file(path).expect("a lease"));
    finish(&mut host.fairing(&["gc", "--grace-period=0s"])).expect_code(0);
    assert_eq!(made(), before);
}

#[test]
fn networks_of_a_killed_pod_are_taken_down_by_the_next_command() {
    let networks = [("killed", "10.98.10.0/24"), ("too", "10.98.11.0/24")];
    let networks = networks.map(|(name, subnet)| match name {
        "too" => ptp(name, &[subnet]),
        name => bridge(name, &[subnet]),
    });
    let host = Host::new(&networks);
    let before = made();
    // Its namespace is there or, as after a restart of the host, it is not.
    for is_unmounted in [false, true] {
        let mut pod = host.fairing(&["run", "-d", "--net=killed,too", "busybox", "--"]);
        pod.args(["/bin/sh", "-c", &proved("sleep 9999")]);
        let uuid = finish(&mut pod).expect_code(0).out();
        let uuid = uuid.trim();
        assert!(made().len() > before.len());
        let status = finish(&mut host.fairing(&["status", uuid])).expect_code(0);
        let addresses = status.value("networks");
        assert!(addresses.contains("killed:ip4=10.98.10."), "{addresses}");
        let pid = status.value("pid");
        sh(&format!(
            "kill -9 {pid}; while kill -0 {pid} 2>/dev/null; do :; done"
        ));
        if is_unmounted {
            sh(&format!("umount --lazy /run/netns/fairing-{uuid}"));
        }
        let listed = finish(&mut host.fairing(&["list"])).expect_code(0);
        assert_eq!(listed.err(), "");
        assert_eq!(made(), before);
        finish(&mut host.fairing(&["rm", uuid])).expect_code(0);
    }
}

#[test]
fn ports_of_the_host_lead_to_the_pod_and_its_network_names_its_name_servers() {
    let mut network = ported("ported", &["10.98.12.0/24", "fd98:12::/64"]);
    network["plugins"][0]["dns"] = json!({"nameservers": ["10.98.12.1"], "search": ["a.example"]});
    let host = Host::new(&[network, bridge("closed", &["10.98.13.0/24"])]);
    let before = made();
    // Those that are the pod's own; chains that lead to these stay.
    let rules = || sh("iptables-save | grep -c '^-A.*10[.]98[.]12[.]2' || true");
    let script = "cat /etc/resolv.conf; mkdir /www; echo reached >/www/index.html; exec httpd -f -p 80 -h /www";
    let ports = ["-p=18080:80", "-p=127.0.0.1:18081:80/tcp"];
    let pod = |net: &str| host.pod_with(&[&[net], &ports[..]].concat(), script);
    let refused = finish(&mut pod("--net=closed")).expect_code(254);
    assert!(
        refused.err().contains("has the capability portMappings"),
        "{}",
        refused.err()
    );
    let mut server = Running::start(&mut pod("--net=ported"));
    assert_eq!(
        [server.line(), server.line()],
        ["nameserver 10.98.12.1", "search a.example"]
    );
    let curl = "curl --silent --show-error --max-time 60 --retry 9 --retry-connrefused -g";
    for place in [
        "127.0.0.1:18080",
        "127.0.0.1:18081",
        "10.98.12.1:18080",
        "[fd98:12::1]:18080",
    ] {
        let page = sh(&format!("{curl} http://{place}/"));
        assert_eq!(page, "reached\n", "{place}");
    }
    assert_ne!(rules(), "0\n");
    let second = finish(&mut pod("--net=ported")).expect_code(254);
    let told = "take port 0.0.0.0:18080/tcp of the host: Address already in use";
    assert!(second.err().contains(told), "{}", second.err());
    server.signal("TERM");
    server.finish();
    finish(&mut host.fairing(&["gc"])).expect_code(0);
    assert_eq!((made(), &*rules()), (before, "0\n"));
}

/// What lies behind the host: a namespace with the host's way to everywhere, whose server tells by HTTP whom it sees, and many numbers.
struct Outside {
    servers: Vec<Running>,
    answer: tempfile::TempDir,
}

impl Outside {
    fn new() -> Self {
        sh("ip netns add test-outside
            ip link add test-inner type veth peer name eth0 netns test-outside
            ip address add 10.99.0.2/24 dev test-inner; ip link set test-inner up
            ip address add fd99::2/64 dev test-inner nodad
            ip -n test-outside address add 10.99.0.1/24 dev eth0
            ip -n test-outside address add 10.99.0.9/24 dev eth0
            ip -n test-outside address add fd99::1/64 dev eth0 nodad
            ip -n test-outside link set eth0 up
            # Who is outside is told of no less than an Ethernet, and the host finds that less passes.
            ip link set test-inner mtu 1300; ip -n test-outside link set eth0 mtu 1300
            ip -n test-outside route replace 10.99.0.0/24 dev eth0 advmss 1460
            # Of all that the host has, the last to be taken.
            ip route add default via 10.99.0.1 metric 4000000
            ip route add default via fd99::1 metric 4000000");
        let folder = temporary("fairing-outside-");
        let answer = folder.path().join("answer");
        let text = "#!/bin/sh\nwhile read -r key value && [ ${#key} -gt 1 ]; do\n\
            [ $key != Content-Length: ] || bytes=${value%?}\ndone\n\
            printf 'HTTP/1.0 200 OK\\r\\n\\r\\n'; echo $SOCAT_PEERADDR\n\
            head -c $bytes | sha256sum; exec seq 1 400000\n";
        fs::write(&answer, text).expect("a script");
        fs::set_permissions(&answer, PermissionsExt::from_mode(0o755)).expect("executable");
        let serve = |kind: &str| {
            let socat = format!(
                "exec ip netns exec test-outside socat -d -d {kind},fork,reuseaddr EXEC:{} 2>&1",
                answer.display()
            );
            listening(&socat)
        };
        let servers = ["TCP4-LISTEN:80", "TCP6-LISTEN:80,ipv6-v6only"].map(serve);
        Self {
            servers: servers.into(),
            answer: folder,
        }
    }
}

/// A server of socat's, once it listens.
fn listening(script: &str) -> Running {
    let mut server = Running::start(Command::new("sh").args(["-c", script]));
    while !server.line().contains("listening on") {}
    server
}

impl Drop for Outside {
    fn drop(&mut self) {
        for server in self.servers.drain(..) {
            server.signal("TERM");
            server.finish();
        }
        sh("ip netns delete test-outside");
        wait_until("the host's end of the cable is gone", || {
            !Path::new("/sys/class/net/test-inner").exists()
        });
    }
}

/// Posts many numbers to the server outside, and prints whom that has seen, the sum of what came there, and of what came back.
const FETCH: &str = "seq 1 200000 >/tmp/posted; fetch() { wget -qO /tmp/fetched --post-file=/tmp/posted \"http://$1/\"; \
    head -n 2 /tmp/fetched; tail -n +3 /tmp/fetched | sha256sum; }; ";

#[test]
fn pod_is_on_the_default_network_unless_told_otherwise() {
    let _outside = Outside::new();
    let host = Host::new(&[]);
    host.asks_for_nothing();
    let before = made();
    let script = format!(
        "{FETCH}ip -o -4 address show dev eth0 | awk '{{print $4}}'; fetch 10.99.0.1; cat /etc/resolv.conf"
    );
    let pod = finish(&mut host.pod_with(&[], &script)).expect_code(0);
    // Who is outside sees the host.
    let numbers = sh("seq 1 400000 | sha256sum");
    let servers = sh("grep '^nameserver' /etc/resolv.conf | grep -vE ' (127|::1)' || true");
    let out = pod.out();
    let (address, rest) = out.split_once('\n').expect("an address");
    assert!(address.starts_with("172.16.28."), "{out}");
    let posted = sh("seq 1 200000 | sha256sum");
    let seen = format!("10.99.0.2\n{posted}{numbers}");
    assert!(rest.starts_with(&seen), "{out}");
    servers
        .lines()
        .for_each(|server| assert!(rest.contains(server), "{out}"));
    // This one has a way to the host alone.
    let script = "ip -o route; ping -c 1 172.31.0.1 | grep -c 'bytes from'";
    let restricted = host.run("default-restricted", script);
    let restricted = restricted.expect_code(0).out();
    let is_restricted = !restricted.contains("default") && restricted.ends_with("\n1\n");
    assert!(is_restricted, "{restricted}");
    finish(&mut host.fairing(&["gc"])).expect_code(0);
    assert_eq!(made(), before);
}

#[test]
fn pod_of_an_ordinary_user_reaches_what_the_host_reaches() {
    let _outside = Outside::new();
    let home = Home::new(&["odd"]);
    let before = made();
    let numbers = sh("seq 1 400000 | sha256sum");
    let posted = sh("seq 1 200000 | sha256sum");
    let script = format!(
        "{FETCH}ip -o address show dev eth0 scope global | awk '{{sub(\"/.*\", \"\", $4); print $4}}'; \
         fetch 10.99.0.1; fetch '[fd99::1]'; \
         mkdir /www; seq 1 400000 >/www/numbers; echo ready; exec httpd -f -p 80 -h /www"
    );
    let flags = ["--net=default", "--user=0", "--group=0", "-p=18082:80"];
    let mut pod = Running::start(&mut home.run(&kvm_group(), &flags, &script));
    for line in [
        "10.99.0.2",
        "fd99::2",
        "10.99.0.2",
        posted.trim_end(),
        numbers.trim_end(),
        "[fd99:0000:0000:0000:0000:0000:0000:0002]",
        posted.trim_end(),
        numbers.trim_end(),
        "ready",
    ] {
        assert_eq!(pod.line(), line);
    }
    for place in ["127.0.0.1", "[::1]", "10.99.0.2"] {
        let curl = "curl --silent --show-error --retry 9 --retry-connrefused -g";
        let fetched = sh(&format!("{curl} http://{place}:18082/numbers | sha256sum"));
        assert_eq!(fetched, numbers, "{place}");
    }
    let list = finish(home.fairing(&kvm_group()).args(["list", "--no-legend"]));
    let list = list.expect_code(0).out();
    assert!(list.contains("default:ip4=10.99.0.2"), "{list}");
    let uuid = list.split_whitespace().next().expect("a pod");
    let status = finish(home.fairing(&kvm_group()).args(["status", uuid])).expect_code(0);
    let path = status.value("network-path");
    assert!(path.starts_with("user mode, by passt"), "{path}");
    // A second one on the same port, and one without root on a network that takes it.
    for (net, told) in [
        (
            "user",
            "take port 0.0.0.0:18082/tcp of the host: Address already in use",
        ),
        ("default-restricted", "networks of the host take root"),
    ] {
        let net = format!("--net={net}");
        let refused = finish(&mut home.run(&kvm_group(), &[&net, "-p=18082:80"], "true"));
        let refused = refused.expect_code(254);
        assert!(refused.err().contains(told), "{}", refused.err());
    }
    // However the pod ends, so does its way.
    let passt = || sh(&format!("pgrep --count --uid {USER} passt || true"));
    assert_eq!(passt(), "1\n");
    sh(&format!("kill -9 {}", pod.pid()));
    pod.finish();
    wait_until("passt has ended", || passt() == "0\n");
    assert_eq!(made(), before);
}

#[test]
fn pod_on_the_hosts_network_reaches_its_loopback_and_listens_at_its_ports() {
    let outside = Outside::new();
    let host = Host::new(&[]);
    let answer = outside.answer.path().join("answer");
    let socat = format!(
        "exec socat -d -d TCP4-LISTEN:7001,fork,bind=127.0.0.1 EXEC:{} 2>&1",
        answer.display()
    );
    let own = listening(&socat);
    let posted = sh("seq 1 200000 | sha256sum");
    for (net, told) in [("host", "127.0.0.1\n"), ("user", "")] {
        let script = format!(
            "{FETCH}fetch 10.99.0.9; gateway=$(ip route | awk '/^default/ {{print $3}}'); \
             timeout 20 wget -qO - http://$gateway:7001/ | head -n 1"
        );
        let out = host.run(net, &script).expect_code(0).out();
        let lines: Vec<_> = out.split_inclusive('\n').collect();
        assert_eq!(lines[..2], ["10.99.0.2\n", &*posted], "{net}: {out}");
        assert_eq!(lines[3..].concat(), told, "{net}: {out}");
    }
    own.signal("TERM");
    own.finish();
    let script =
        "mkdir /www; echo reached >/www/index.html; echo ready; exec httpd -f -p 18083 -h /www";
    let ports = json!([{"name": "http", "protocol": "tcp", "port": 18083}]);
    let mut server = Running::start(&mut host.web("host", script, &ports, &json!([])));
    assert_eq!(server.line(), "ready");
    let curl = "curl --silent --show-error --retry 9 --retry-connrefused";
    let outside = "ip netns exec test-outside";
    assert_eq!(
        sh(&format!("{outside} {curl} http://10.99.0.2:18083/")),
        "reached\n"
    );
    server.signal("TERM");
    server.finish();
    finish(&mut host.fairing(&["gc"])).expect_code(0);
}

/// A name server, at the address and port that it is given, by which each name has the address 192.0.2.7.
const NAMES: &str = r#"use Socket; $| = 1; my ($ip, $port) = @ARGV;
socket(S, PF_INET, SOCK_DGRAM, 0); bind(S, sockaddr_in($port, inet_aton($ip))) or die "bind: $!"; print "listening on\n";
while (my $from = recv(S, my $asked, 512, 0)) {
    my ($question) = $asked =~ /^.{12}(.*?\0....)/s;
    my $answers = unpack('n', substr($question, -4)) == 1;
    my $answer = $answers ? pack('n3Nn', 0xc00c, 1, 1, 9, 4) . inet_aton('192.0.2.7') : '';
    send(S, substr($asked, 0, 2) . pack('n5', 0x8180, 1, $answers, 0, 0) . $question . $answer, 0, $from);
}
"#;

#[test]
fn datagrams_reach_the_pod_by_passt_and_its_questions_a_name_server_that_only_the_host_reaches() {
    let _outside = Outside::new();
    let host = Host::new(&[]);
    let folder = temporary("fairing-names-");
    let place = |name: &str| folder.path().join(name).display().to_string();
    fs::write(place("names"), NAMES).expect("a script");
    fs::write(place("resolv"), "nameserver 127.0.0.77\n").expect("a configuration");
    let own = listening(&format!("exec perl {} 127.0.0.77 53", place("names")));
    let pod = host.pod("user", "nslookup -type=a only.host");
    let bind = format!("mount --bind {} /etc/resolv.conf", place("resolv"));
    let asked = finish(&mut where_mounted(&bind, &pod)).expect_code(0);
    assert!(
        asked.out().contains("Address: 192.0.2.7\n"),
        "{}",
        asked.out()
    );
    own.signal("TERM");
    own.finish();

    let volume = format!("-v={}:/names", folder.path().display());
    let mut pod = host.fairing(&["run", "--rm", "--net=host", "-p=18085:53/udp", &volume]);
    pod.arg(test_image("debian.tar"))
        .args(["--exec=/bin/sh", "--", "-c"]);
    pod.arg(proved("exec perl /names/names 0.0.0.0 53"));
    let mut server = Running::start(&mut pod);
    assert_eq!(server.line(), "listening on");
    let question = r"\0M\1\0\0\1\0\0\0\0\0\0\4only\4host\0\0\1\0\1";
    for address in ["127.0.0.1", "10.99.0.2"] {
        let ask = format!(
            "exec 3<>/dev/udp/{address}/18085; printf '{question}' >&3; timeout 60 dd bs=512 count=1 <&3 2>/dev/null | tail -c 4 | od -An -tx1"
        );
        let answer = finish(Command::new("bash").args(["-ec", &ask])).expect_code(0);
        assert_eq!(answer.out(), " c0 00 02 07\n", "{address}");
    }
    server.signal("TERM");
    server.finish();
    finish(&mut host.fairing(&["gc"])).expect_code(0);
}

/// A command where a script has mounted what only the command sees.
fn where_mounted(script: &str, command: &Command) -> Command {
    let mut mounted = Command::new("unshare");
    let script = format!("{script}; exec \"$@\"");
    mounted.args(["--mount", "sh", "-ec", &script, "sh"]);
    mounted.arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        mounted.env(key, value.unwrap_or_default());
    }
    mounted
}

/// A plugin as clouds have them: an address that is on no network, and a gateway that nobody answers for.
const CLOUD: &str = r#"#!/bin/sh -e
[ $CNI_COMMAND != DEL ] || exec ip link delete test-cloud
inside="ip -n ${CNI_NETNS##*/}"
ip link add test-cloud type veth peer name $CNI_IFNAME netns ${CNI_NETNS##*/}
ip address add 10.98.21.1/32 dev test-cloud; ip link set test-cloud up; ip route add 10.98.21.2 dev test-cloud
$inside link set $CNI_IFNAME up; $inside address add 10.98.21.2/32 dev $CNI_IFNAME
$inside route add default via 169.254.1.1 dev $CNI_IFNAME onlink mtu 1300
$inside neighbour add 169.254.1.1 lladdr $(cat /sys/class/net/test-cloud/address) dev $CNI_IFNAME nud permanent
echo '{"cniVersion": "1.0.0"}'
"#;

#[test]
fn gateway_that_is_a_permanent_neighbour_beyond_all_networks_is_the_pods_too() {
    let network =
        json!({"cniVersion": "1.0.0", "name": "cloud", "plugins": [{"type": "test-cloud"}]});
    let host = Host::new(&[network]);
    let before = made();
    let plugin = host.0.path().join("cloud");
    fs::write(&plugin, CLOUD).expect("a script");
    let place = format!(
        "mount -t tmpfs none /opt; mkdir -p /opt/cni/bin; install {} /opt/cni/bin/test-cloud",
        plugin.display()
    );
    let script = "ip route; ping -c 1 -s 3000 10.98.21.1 | grep -c 'bytes from'";
    let pod = finish(&mut where_mounted(&place, &host.pod("cloud", script))).expect_code(0);
    let told = "default via 169.254.1.1 dev eth0 onlink \n1\n";
    assert_eq!(pod.out(), told, "{}", pod.err());
    wait_until("what the plugin made is gone", || made() == before);
}

#[test]
fn each_cpu_of_a_machine_sends_by_a_queue_of_its_own() {
    let host = Host::new(&[bridge("several", &["10.98.18.0/24"])]);
    let before = made();
    // Two servers, each of which has one CPU alone.
    let script = "ls /sys/class/net/eth0/queues | tr '\\n' ' '; mkdir /www; seq 1 2000 >/www/numbers; echo; \
        taskset 2 httpd -f -p 81 -h /www & exec taskset 4 httpd -f -p 82 -h /www";
    let mut server = Running::start(&mut host.pod_with(&["--net=several", "--cpu=3"], script));
    assert_eq!(server.line(), "rx-0 rx-1 rx-2 tx-0 tx-1 tx-2 ");
    let uuid = host.only_pod();
    let status = finish(&mut host.fairing(&["status", &uuid])).expect_code(0);
    // Of the card's threads, one for each pair of queues and one that controls them, how often each has waited.
    let waits = || -> Vec<u32> {
        let told = sh(&format!(
            "cd /proc/{}/task; for task in $(ls | sort -n); do
                [ $(cat $task/comm) != net ] || awk '/^voluntary/ {{print $2}}' $task/status
            done",
            status.value("pid")
        ));
        told.lines()
            .map(|line| line.parse().expect("a number"))
            .collect()
    };
    let curl = "curl --silent --show-error --retry 9 --retry-connrefused";
    let numbers = sh("for fetch in $(seq 60); do seq 1 2000; done | sha256sum");
    for (port, own, others) in [(81, 1, 2), (82, 2, 1)] {
        let earlier = waits();
        let url = format!("'http://10.98.18.2:{port}/numbers?[1-60]'");
        assert_eq!(sh(&format!("{curl} {url} | sha256sum")), numbers);
        let waits = waits();
        let waited: Vec<_> = waits.iter().zip(&earlier).map(|(b, a)| b - a).collect();
        tell(&format!(
            "while CPU {own} answered, each thread of the card has waited so often: {waited:?}"
        ));
        assert_eq!((waited.len(), waited[3]), (4, 0));
        // The host spreads new connections over all of them; what comes in is acknowledged by the first CPU.
        assert!(waited[own] > 2 * waited[others], "{waited:?}");
    }
    server.signal("TERM");
    server.finish();
    finish(&mut host.fairing(&["gc"])).expect_code(0);
    assert_eq!(made(), before);
}

#[test]
fn plugins_are_told_the_addresses_the_hardware_address_and_the_rate_that_a_pod_asks_for() {
    let mut network = bridge("able", &[]);
    network["plugins"][0]["capabilities"] = json!({"ips": true});
    network["plugins"][0]["ipam"] = json!({"type": "static"});
    let able =
        |kind: &str, capability: &str| json!({"type": kind, "capabilities": {capability: true}});
    let network = chained(
        network,
        [able("tuning", "mac"), able("bandwidth", "bandwidth")],
    );
    let host = Host::new(&[network]);
    let before = made();
    let script = "cat /sys/class/net/eth0/address; \
        ip -o -4 address show dev eth0 | awk '{print $4}'; exec sleep 9999";
    let isolators =
        json!([{"name": "resource/network-bandwidth", "value": {"default": true, "limit": "1M"}}]);
    let net = "able:IP=10.98.19.7/24;MAC=02:98:00:00:00:09";
    let mut pod = Running::start(&mut host.web(net, script, &json!([]), &isolators));
    assert_eq!(
        [pod.line(), pod.line()],
        ["02:98:00:00:00:09", "10.98.19.7/24"]
    );
    let rates = sh("tc qdisc show | grep -o 'tbf.* rate [^ ]*' | grep -o 'rate .*'");
    assert_eq!(rates, "rate 8Mbit\n".repeat(2));
    pod.signal("TERM");
    pod.finish();
    finish(&mut host.fairing(&["gc"])).expect_code(0);
    assert_eq!(made(), before);
}

#[test]
fn network_bandwidth_of_a_pod_bounds_what_it_sends() {
    let host = Host::new(&[bridge("slow", &["10.98.14.0/24"])]);
    let script = "mkdir /www; seq 1 100000 >/www/numbers; echo ready; exec httpd -f -p 80 -h /www";
    let isolators = json!([{"name": "resource/network-bandwidth", "value": {"default": true, "limit": "100k"}}]);
    let mut server = Running::start(&mut host.web("slow", script, &json!([]), &isolators));
    assert_eq!(server.line(), "ready");
    let curl = "curl --silent --show-error --retry 9 --retry-connrefused";
    let timed = format!(
        "{curl} -o /dev/null -w '%{{size_download}} %{{time_total}}' http://10.98.14.2/numbers"
    );
    let told = sh(&timed);
    let (bytes, seconds) = told.split_once(' ').expect("two figures");
    assert_eq!(bytes, "588895");
    // No clock of the host is fast enough to fail this by being slow.
    let seconds: f64 = seconds.parse().expect("a time");
    assert!(seconds > 5.0, "{seconds} s for {bytes} bytes at 100 kB/s");
    server.signal("TERM");
    server.finish();
    finish(&mut host.fairing(&["gc"])).expect_code(0);
}

#[test]
fn pod_that_takes_anothers_hardware_address_is_heard_by_nobody_where_its_plugin_forbids_that() {
    let mut network = bridge("watched", &["10.98.17.0/24"]);
    network["plugins"][0]["macspoofchk"] = json!(true);
    let host = Host::new(&[network]);
    let before = made();
    let script = "ping -c 1 -W 5 10.98.17.1 | grep -c 'bytes from'; ip link set eth0 down; \
        ip link set eth0 address 02:00:00:00:00:55; ip link set eth0 up; ip route add default via 10.98.17.1; \
        ping -c 1 -W 5 10.98.17.1 | grep -c 'bytes from'";
    let capable = "--caps-retain=CAP_NET_ADMIN,CAP_NET_RAW";
    let liar = finish(&mut host.pod_with(&["--net=watched", capable], script)).expect_code(1);
    assert_eq!(liar.out(), "1\n0\n", "{}", liar.err());
    finish(&mut host.fairing(&["gc"])).expect_code(0);
    assert_eq!(made(), before);
}

#[test]
fn starts_that_are_killed_at_any_moment_leave_nothing_on_the_host() {
    let network = ported("killing", &["10.98.15.0/24"]);
    let host = Host::new(&[network, ptp("beside", &["10.98.16.0/24"])]);
    let start = || {
        let mut start = host.fairing(&[
            "run",
            "--net=killing,beside",
            "-p=18090:80",
            "busybox",
            "--",
        ]);
        start.args(["/bin/sh", "-c", &proved("true")]);
        start
    };
    let before = made();
    // A whole one says how long there is something to kill, and makes what all others share.
    let begun = Instant::now();
    finish(&mut start()).expect_code(0);
    let span = begun.elapsed();
    finish(&mut host.fairing(&["list"])).expect_code(0);
    wait_until("it has left nothing", || made() == before);
    // Of what has lost its last port the kernel tells a while later.
    let mut shared = state();
    wait_until("nothing changes any more", || {
        thread::sleep(Duration::from_secs(1));
        let earlier = std::mem::replace(&mut shared, state());
        earlier == shared
    });
    assert!(shared.contains("CNI-HOSTPORT-DNAT"), "{shared}");
    let mut random = Random::seeded();
    let mut killed = 0;
    for round in 0..rounds(
        "starts on the network, most of them killed in the short run and a third in the long one",
        5,
        100,
    ) {
        let is_killed = round < 4 || round % 3 == 0;
        let mut starting = start();
        starting.stdout(Stdio::null()).stderr(Stdio::null());
        // The pod's process alone: what it has executed goes on.
        let mut child = starting.spawn().expect("the command starts");
        if is_killed {
            thread::sleep(random.moment(span));
            let _ = child.kill();
            killed += 1;
        }
        child.wait().expect("its end");
        finish(&mut host.fairing(&["list"])).expect_code(0);
        wait_until("the kernel has taken the pod's interfaces away", || {
            made() == before
        });
        let begun = Instant::now();
        while state() != shared && begun.elapsed() < Duration::from_secs(20) {}
        assert_eq!(state(), shared, "round {round}");
    }
    tell(&format!(
        "{killed} of them killed within {} ms",
        span.as_millis()
    ));
    finish(&mut host.fairing(&["gc", "--grace-period=0s"])).expect_code(0);
    assert_eq!(made(), before);
}
