//! Programs as people run them, in pods that talk to each other, and containers inside a pod: the long run alone.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use tests::running::Running;
use tests::{
    DEADLINE, Finished, fairing_in, finish, finish_within, proved, rounds, tell, temporary,
    wait_until,
};

/// Serves files, sums, names and shells, and says when it does.
const SERVER: &str = "set -e; export PATH=/usr/sbin:/usr/bin:/sbin:/bin; mkdir -p /run/sshd /root/.ssh; \
    rm /etc/ssh/ssh_host_*; ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key; \
    install -m 600 /share/key.pub /root/.ssh/authorized_keys; \
    head -c 200000000 /dev/urandom >/var/www/html/large; sha256sum </var/www/html/large >/share/sum; \
    /usr/sbin/sshd; nginx; iperf3 -s -D; \
    dnsmasq --no-resolv --address=/pod.example/192.0.2.77 --listen-address=10.98.20.2 --bind-interfaces; \
    echo ready; exec sleep infinity";

/// What came by HTTP over either version of IP, by rsync and by name.
const CLIENT: &str = "set -e; export PATH=/usr/sbin:/usr/bin:/sbin:/bin; server=10.98.20.2; \
    for host in $server '[fd98:20::2]'; do curl -sSg http://$host/large | sha256sum; done; \
    install -m 600 /share/key /root/key; \
    ssh='ssh -i /root/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR'; \
    rsync -e \"$ssh\" root@$server:/var/www/html/large /root/large; sha256sum </root/large; \
    $ssh root@$server hostname; host -t A pod.example $server | tail -n 1; \
    ping -q -c 2 -s 65000 $server | grep -o '2 received'; ping -q -c 2 -s 65000 fd98:20::2 | grep -o '2 received'; \
    wrk -t 1 -c 16 -d 5 http://$server/ | grep -E 'Requests/sec|Non-2xx|Socket errors'; \
    for how in '' -R '-P 4' '-P 4 -R' '-u -b 10M' '-u -b 10M -R'; do \
    iperf3 -c $server -t 3 $how -J | \
    sed -n 's/.*\"bits_per_second\":[^0-9]*\\([0-9]*\\).*/\\1/p' | tail -n 1 | sed \"s/^/iperf3 $how /\"; done";

/// A place with the image, and a folder that pods share.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(temporary("fairing-programs-"));
        let net = place.path("etc/net.d");
        fs::create_dir_all(&net).expect("a folder");
        fs::create_dir(place.path("share")).expect("a folder");
        let routes = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
        let ranges = json!([[{"subnet": "10.98.20.0/24"}], [{"subnet": "fd98:20::/64"}]]);
        let network = json!({"cniVersion": "1.0.0", "name": "programs", "plugins": [
            {"type": "bridge", "bridge": "testbr-programs", "isGateway": true,
             "ipam": {"type": "host-local", "ranges": ranges, "routes": routes}}]});
        fs::write(net.join("programs.conflist"), network.to_string()).expect("a network");
        let image = std::env::var_os("FAIRING_TEST_NETWORKED").expect("run scripts/system-tests");
        let mut import = place.fairing(&["image", "import", "--name=networked"]);
        finish_within(4 * DEADLINE, import.arg(image)).expect_code(0);
        place
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn fairing(&self, words: &[&str]) -> Command {
        let mut command = fairing_in(&self.path("store"));
        command.arg("--local-config").arg(self.path("etc"));
        command.args(words);
        command
    }

    fn pod(&self, flags: &[&str], script: &str) -> Command {
        // Without a parent that would outlive it.
        let mut command = self.fairing(&["run", "--memory=1Gi"]);
        command.arg(format!("-v={}:/share", self.path("share").display()));
        command.args(flags).args(["networked", "--exec", "/bin/sh"]);
        command.args(["--", "-c", &proved(script)]);
        command
    }

    #[track_caller]
    fn run(&self, flags: &[&str], script: &str) -> Finished {
        finish_within(4 * DEADLINE, &mut self.pod(flags, script)).expect_code(0)
    }
}

#[test]
fn programs_in_pods_find_what_they_find_in_containers() {
    for _ in 0..rounds("programs in pods on networks", 0, 1) {
        let place = Place::new();
        let key = place.path("share/key");
        finish(
            Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(key),
        )
        .expect_code(0);
        talk(&place);
        contain(&place);
    }
}

/// What of a process is resident outside mappings as large as a machine's memory, KiB.
fn resident_kib(pid: u32) -> u64 {
    let maps = fs::read_to_string(format!("/proc/{pid}/smaps")).expect("a process");
    let (mut is_large, mut sum) = (false, 0);
    for line in maps.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        let figure = || words[1].parse::<u64>().expect("a number");
        match words[0] {
            "Size:" => is_large = figure() > 256 << 10,
            "Rss:" if !is_large => sum += figure(),
            _ => {}
        }
    }
    sum
}

/// Two pods talk, quietly and then while a third floods them and the host.
fn talk(place: &Place) {
    let on = ["--net=programs", "--hostname=server"];
    let mut server = Running::start(&mut place.pod(&on, SERVER));
    assert_eq!(server.line(), "ready");
    let client = place.run(&["--net=programs"], CLIENT);
    let out = client.out();
    let sum = fs::read_to_string(place.path("share/sum")).expect("a sum");
    let expected = format!(
        "{sum}{sum}{sum}server\npod.example has address 192.0.2.77\n2 received\n2 received\nRequests/sec:"
    );
    assert!(out.starts_with(&expected), "{out}");
    let figures = &out[expected.len()..];
    tell(&format!(
        "requests a second by wrk, then bits a second by iperf3, all on an emulated host:{figures}"
    ));
    let sums = figures.lines().filter(|line| line.starts_with("iperf3"));
    let is_sum = |line: &str| line.rsplit(' ').next().is_some_and(|bits| bits.len() > 5);
    assert_eq!(sums.filter(|line| is_sum(line)).count(), 6, "{out}");
    let flood = "export PATH=/usr/bin:/bin; echo ready; iperf3 -c 10.98.20.2 -u -b 0 -l 1400 -t 9999 --bidir >/dev/null";
    let mut flooding = Running::start(&mut place.pod(&["--net=programs"], flood));
    assert_eq!(flooding.line(), "ready");
    let packets = || -> u64 {
        let ports = fs::read_dir("/sys/class/net/testbr-programs/brif").expect("a bridge");
        let count = |port: std::fs::DirEntry| -> u64 {
            let file = Path::new("/sys/class/net").join(port.file_name());
            let text = fs::read_to_string(file.join("statistics/rx_packets")).expect("a port");
            text.trim().parse().expect("a number")
        };
        ports.map(|port| count(port.expect("a port"))).sum()
    };
    let before = packets();
    wait_until("there is a flood", || packets() > before + 5000);
    let fetch = "curl -sS http://10.98.20.2/large | head -c 2000000 | wc -c";
    let fetched = finish(Command::new("sh").args(["-c", fetch])).expect_code(0);
    assert_eq!(fetched.out(), "2000000\n", "{}", fetched.err());
    tell(&format!(
        "flooded: {} packets from pods meanwhile; memory beside the machine's of who floods and who is flooded: {} and {} KiB",
        packets() - before,
        resident_kib(flooding.pid()),
        resident_kib(server.pid())
    ));
    for pod in [flooding, server] {
        assert!(
            resident_kib(pod.pid()) < 64 << 10,
            "{} KiB",
            resident_kib(pod.pid())
        );
        pod.signal("KILL");
        pod.finish();
    }
    finish(&mut place.fairing(&["gc", "--grace-period=0s"])).expect_code(0);
}

/// podman in a pod: its storage on the pod's disk, its networks in the pod's, its limits in the pod's cgroup.
fn contain(place: &Place) {
    let script = "set -e; export PATH=/usr/sbin:/usr/bin:/sbin:/bin; mkdir -p /root/files/bin; cp /bin/busybox /root/files/bin/; \
        tar -C /root/files -c . | podman import -q - inner >/dev/null 2>&1; \
        podman info --format '{{.Store.GraphDriverName}} {{.Host.CgroupsVersion}} {{.Host.NetworkBackend}}' 2>/dev/null; \
        podman run --rm --memory=64m inner /bin/busybox sh -c 'b=/bin/busybox; $b cat /sys/fs/cgroup/memory.max; \
        $b timeout 60 nc 10.98.20.1 7002 </dev/zero || true' 2>/dev/null";
    let mut host = Command::new("sh");
    host.args([
        "-c",
        "exec socat -d -d TCP4-LISTEN:7002 SYSTEM:'echo $SOCAT_PEERADDR' 2>&1",
    ]);
    // Its bridge is there once a pod has been on it.
    let mut host = Running::start(&mut host);
    while !host.line().contains("listening on") {}
    let mut pod = place.fairing(&[
        "--insecure-options=paths,capabilities",
        "run",
        "--rm",
        "--memory=1Gi",
        "--net=programs",
    ]);
    pod.args([
        "--volume=storage,kind=empty",
        "networked",
        "--mount=volume=storage,target=/var/lib/containers",
    ]);
    pod.args(["--exec", "/bin/sh", "--", "-c", &proved(script)]);
    let told = finish_within(4 * DEADLINE, &mut pod).expect_code(0);
    let out = told.out();
    let address = out
        .strip_prefix("overlay v2 netavark\n67108864\n")
        .unwrap_or_default();
    assert!(address.starts_with("10.98.20."), "{out}");
    host.finish();
    wait_until("the pod's interfaces are gone", || {
        finish(&mut place.fairing(&["gc"])).expect_code(0);
        fs::read_dir("/sys/class/net/testbr-programs/brif")
            .expect("a bridge")
            .next()
            .is_none()
    });
}
