//! Two tenants on one host: what one of them does within his limits, however hostile, does not reach the other's work.

use std::cell::Cell;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use tests::pod::Pod;
use tests::running::Running;
use tests::{rounds, run_sh, tell};

/// What a tenant gets.
const LIMITS: [&str; 5] = [
    "--cpu=250m",
    "--memory=96Mi",
    "--pids-limit=100",
    "--ulimit=nofile=512:512",
    "--scratch-size=64Mi",
];

/// Uses the CPU as far as it may.
const BUSY: &str = "echo ready; while :; do :; done";

/// Takes everything it can get, again and again: disk, memory, descriptors, processes. An interactive shell goes on where it
/// cannot fork.
const HOSTILE: &str = "again() { yes \"$1\" | sh -i >/dev/null 2>&1 & }; \
    again 'dd if=/dev/zero of=/fill bs=1M; rm /fill'; \
    again 'tail /dev/zero'; \
    again 'find / -xdev | xargs -n 400 tail -f -n 0 & sleep 3; kill $!'; \
    sleep 3; again '(sleep 5 | sleep 5) &'; \
    echo ready; exec sleep 100000";

/// A server and its client on the loopback: for each number on stdin, so many requests; prints how many of them failed, and the
/// time before and after them in seconds and hundredths.
const NEIGHBOUR: &str = "mkdir /www; echo hello >/www/index.html; httpd -p 127.0.0.1:8080 -h /www; \
    until wget -qO- http://127.0.0.1:8080/ >/dev/null; do usleep 100000; done; echo ready; \
    while read count; do \
        failed=0; i=0; read begin rest </proc/uptime; \
        while [ $i -lt $count ]; do \
            [ \"$(wget -qO- http://127.0.0.1:8080/)\" = hello ] || failed=$((failed+1)); i=$((i+1)); \
        done; \
        read end rest </proc/uptime; echo $failed $begin $end; \
    done";

/// A pod beside the neighbour, which does nothing at all but while it is let.
struct Tenant {
    pod: Pod,
    /// CPU time that it had used before the first trial.
    used: Duration,
    /// Time of all trials.
    let_for: Cell<Duration>,
}

impl Tenant {
    fn start(script: &str) -> Self {
        let pod = Pod::start(&LIMITS, script);
        let mut tenant = Self {
            pod,
            used: Duration::ZERO,
            let_for: Cell::default(),
        };
        tenant.freeze(true);
        tenant.used = tenant.used();
        tenant
    }

    fn file(&self, name: &str) -> String {
        format!("/sys/fs/cgroup/fairing/{}/{name}", self.pod.uuid())
    }

    fn freeze(&self, frozen: bool) {
        let state = if frozen { "1" } else { "0" };
        fs::write(self.file("cgroup.freeze"), state).expect("the pod has a cgroup");
    }

    /// CPU time that it has used.
    fn used(&self) -> Duration {
        let statistics = fs::read_to_string(self.file("cpu.stat")).expect("the pod has a cgroup");
        let mut lines = statistics.lines();
        let used = lines.find_map(|line| line.strip_prefix("usage_usec "));
        let used = used.and_then(|used| used.parse().ok());
        Duration::from_micros(used.expect("a number"))
    }

    /// How long `count` requests take the neighbour beside it, seconds; none may fail.
    fn beside(&self, neighbour: &mut Running, count: usize) -> f64 {
        let begin = Instant::now();
        self.freeze(false);
        neighbour.write(&format!("{count}\n"));
        let line = neighbour.line();
        self.freeze(true);
        self.let_for.set(self.let_for.get() + begin.elapsed());
        let [failed, begin, end] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line:?}");
        };
        assert_eq!(failed, "0", "requests failed");
        let moment = |text: &str| -> f64 { text.parse().expect("seconds") };
        moment(end) - moment(begin)
    }

    /// It was at work all the time. On an emulated host it gets far less than its quarter of a CPU beside the neighbour.
    fn end(self) {
        let (used, time) = (self.used() - self.used, self.let_for.get());
        assert!(used * 200 > time, "it used {used:?} of {time:?}");
        self.freeze(false);
        self.pod.end().expect_code(143);
    }
}

/// Does the same with both: what has a quarter of a CPU takes its time.
fn at_once<T: Send, R: Send>(both: [T; 2], act: impl Fn(T) -> R + Sync) -> [R; 2] {
    thread::scope(|scope| {
        let act = &act;
        let begun = both.map(|one| scope.spawn(move || act(one)));
        begun.map(|thread| thread.join().expect("it succeeds"))
    })
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

#[test]
fn neighbour_of_a_hostile_tenant_has_no_failed_request_and_at_most_twice_the_time() {
    let trials = rounds("trials beside each tenant", 3, 5);
    let count = rounds("requests of a trial", 50, 200);
    let mut neighbour = Running::with_stdin(&mut run_sh(&["--rm", "-i"], NEIGHBOUR));
    assert_eq!(neighbour.line(), "ready");
    let tenants = at_once([BUSY, HOSTILE], Tenant::start);
    // By turns: what else the host does meanwhile meets both alike.
    let mut trial = |_| {
        tenants
            .each_ref()
            .map(|tenant| tenant.beside(&mut neighbour, count))
    };
    let times: Vec<_> = (0..trials).map(&mut trial).collect();
    at_once(tenants, Tenant::end);
    neighbour.finish().expect_code(0);
    let [busy, hostile] =
        [0, 1].map(|tenant| median(times.iter().map(|times| times[tenant]).collect()));
    tell(&format!(
        "{count} requests: {busy:.1} s beside a busy tenant, {hostile:.1} s beside a hostile one (medians of {trials})"
    ));
    assert!(hostile < 2.0 * busy, "{times:?}");
}
