//! Networks beside QEMU's and a plain namespace: what moving bytes and asking questions takes in each, by a clock that counts
//! instructions of guest and host together.
//!
//! Who is measured connects to this program on the host, which says what to do and looks at the clock.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use netlink::{Address, Netlink, Route};

use crate::chamber::mount_tmpfs;
use crate::counted::now_ns;
use crate::subject;

/// A tmpfs that goes with this process's mount namespace.
const FOLDER: &str = "/run/fairing-networks";
const PORT: u16 = 7100;
/// The peer's machine, and its host.
const PEER: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 97, 2, 2), Ipv4Addr::new(10, 97, 2, 1)];
const PREFIX: u8 = 24;

/// Bytes that are moved in each direction, and at once.
const BYTES: usize = 32 << 20;
const CHUNK_BYTES: usize = 64 << 10;
/// Questions of a byte, each answered before the next.
const QUESTIONS: u64 = 500;

/// Send so many bytes, take so many, answer so often.
const SEND: u8 = b's';
const TAKE: u8 = b't';
const ANSWER: u8 = b'a';

/// What was measured, instructions.
struct Talked {
    /// Moving a MiB out of it.
    sent_mib: u64,
    /// Moving one into it.
    taken_mib: u64,
    /// A question and its answer.
    answer: u64,
}

/// Measures all places, and prints a row for each.
pub fn measure(images: &str) -> Result<()> {
    mount_tmpfs(FOLDER, "60%")?;
    let shell = |script: &str| run(Command::new("sh").args(["-ec", script]));
    let path = |name: &str| format!("{FOLDER}/{name}");
    fs::create_dir_all(path("lib/fairing"))?;
    fs::create_dir_all(path("etc/net.d"))?;
    fs::create_dir_all(path("bin"))?;
    shell(&format!(
        "cp target/fairing {FOLDER}/bin; cp -a --sparse=always target/stage1-kvm {FOLDER}/lib/fairing
         cp target/bench/bench {FOLDER}/bench"
    ))?;
    let network = format!(
        r#"{{"cniVersion": "0.4.0", "name": "bench", "type": "ptp", "ipam": {{"type": "host-local",
            "dataDir": "{FOLDER}/leases", "subnet": "10.97.1.0/24", "routes": [{{"dst": "0.0.0.0/0"}}]}}}}"#
    );
    fs::write(path("etc/net.d/bench.conf"), network)?;
    let fairing = || {
        let mut command = Command::new(path("bin/fairing"));
        command.args(["--dir", &path("store"), "--local-config", &path("etc")]);
        command
    };
    run(fairing().args([
        "image",
        "import",
        "--name=busybox",
        &format!("{images}/busybox"),
    ]))?;
    shell(
        "ip netns add bench; ip link add bench0 type veth peer name eth0 netns bench
         ip address add 10.97.3.1/24 dev bench0; ip link set bench0 up
         ip -n bench address add 10.97.3.2/24 dev eth0; ip -n bench link set eth0 up
         ip tuntap add mode tap vnet_hdr name bench1; ip address add 10.97.2.1/24 dev bench1; ip link set bench1 up
         ip route add default via 10.97.3.2; modprobe vhost_net",
    )?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).context("listen")?;
    let pod = |net: &str, cpus: u8, host: &str| {
        let mut command = fairing();
        command.args(["run", "--rm", "--timeout=600s", "--insecure-options=none"]);
        command.args([format!("--net={net}"), format!("--cpu={cpus}")]);
        command.arg(format!("-v={FOLDER}:/mnt:ro"));
        command.args(["busybox", "--exec", "/mnt/bench", "--", "talk", host]);
        command
    };
    let mut namespace = Command::new("ip");
    namespace.args([
        "netns",
        "exec",
        "bench",
        &path("bench"),
        "talk",
        "10.97.3.1",
    ]);
    let image = Path::new(FOLDER).join("busybox.erofs");
    tests::image_disk(Path::new(&path("store")), &image)?;
    println!(
        "| thousands of instructions | a MiB out of it | a MiB into it | a question and its answer |\n|---|---|---|---|"
    );
    for (place, mut command) in [
        ("a namespace with veth", namespace),
        ("fairing, a plugin's network", pod("bench", 1, "10.97.1.1")),
        (
            "fairing, the same with two CPUs",
            pod("bench", 2, "10.97.1.1"),
        ),
        ("fairing, by passt", pod("host", 1, "10.97.3.2")),
        ("QEMU, tap", subject::qemu_with_network(&image, false)),
        (
            "QEMU, tap with vhost",
            subject::qemu_with_network(&image, true),
        ),
    ] {
        let child = command.stdin(Stdio::null()).spawn();
        let child = child.with_context(|| format!("start {place}"))?;
        let talked = talk_to(&listener, child).with_context(|| place.to_owned())?;
        let figures = [talked.sent_mib, talked.taken_mib, talked.answer];
        let figures = figures.map(|count| (count / 1000).to_string());
        println!("| {place} | {} |", figures.join(" | "));
    }
    Ok(())
}

/// Tells who connects what to do.
fn talk_to(listener: &TcpListener, mut child: Child) -> Result<Talked> {
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut timed = |stream: &mut TcpStream, what: u8, times: u64| -> Result<u64> {
        let begun = now_ns()?;
        stream.write_all(&[what])?;
        match what {
            SEND => (0..BYTES / CHUNK_BYTES).try_for_each(|_| stream.read_exact(&mut chunk))?,
            TAKE => {
                (0..BYTES / CHUNK_BYTES).try_for_each(|_| stream.write_all(&chunk))?;
                stream.read_exact(&mut [0])?;
            }
            _ => {
                for question in 0..QUESTIONS {
                    stream.read_exact(&mut [0])?;
                    if question + 1 < QUESTIONS {
                        stream.write_all(&[what])?;
                    }
                }
            }
        }
        Ok((now_ns()? - begun) / times)
    };
    let mib = (BYTES >> 20) as u64;
    // Each once unmeasured before.
    for (what, times) in [(SEND, mib), (TAKE, mib), (ANSWER, QUESTIONS)] {
        timed(&mut stream, what, times)?;
    }
    let talked = Talked {
        sent_mib: timed(&mut stream, SEND, mib)?,
        taken_mib: timed(&mut stream, TAKE, mib)?,
        answer: timed(&mut stream, ANSWER, QUESTIONS)?,
    };
    drop(stream);
    child.wait()?;
    Ok(talked)
}

/// Does what the program at `host` says, until that has enough.
pub fn talk(host: &str) -> Result<()> {
    let host: IpAddr = host.parse().context("an address")?;
    let mut stream = TcpStream::connect((host, PORT)).context("connect")?;
    stream.set_nodelay(true)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut what = [0];
    while stream.read(&mut what)? > 0 {
        match what[0] {
            SEND => (0..BYTES / CHUNK_BYTES).try_for_each(|_| stream.write_all(&chunk))?,
            TAKE => {
                (0..BYTES / CHUNK_BYTES).try_for_each(|_| stream.read_exact(&mut chunk))?;
                stream.write_all(&[0])?;
            }
            ANSWER => stream.write_all(&[0])?,
            other => bail!("{other} is nothing to do"),
        }
    }
    Ok(())
}

/// The same in the peer's machine, whose card is set up first.
pub fn talk_as_peer() -> Result<()> {
    let netlink = Netlink::open()?;
    let card = netlink.interface("eth0")?.index;
    netlink.set_up(card)?;
    let [own, host] = PEER.map(|ip| Address {
        ip: ip.into(),
        prefix: PREFIX,
    });
    netlink.add_address(card, own)?;
    let route = Route::on_link(Address {
        ip: Ipv4Addr::new(10, 97, 2, 0).into(),
        prefix: PREFIX,
    });
    netlink.add_route(card, &route)?;
    talk(&host.ip.to_string())
}

fn run(command: &mut Command) -> Result<()> {
    let done = command
        .output()
        .with_context(|| format!("start {command:?}"))?;
    let told = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{command:?}: {told}");
    Ok(())
}
