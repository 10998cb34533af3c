//! The whole machine with guests of a few bytes: every end but those that need a kernel. Needs /dev/kvm, any KVM.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kvm_ioctls::Kvm;
use vmm::end::{End, Ended};
use vmm::machine::{Config, Devices, Machine};
use vmm::running::{Running, ThreadKind};

const LOAD: u64 = 0x10_0000;
/// mov al, 0x2a; mov dx, 0x600; out dx, al
const POWER_OFF_42: [u8; 7] = [0xb0, 0x2a, 0x66, 0xba, 0x00, 0x06, 0xee];
/// mov al, 0xfe; out 0x64, al
const RESET: [u8; 4] = [0xb0, 0xfe, 0xe6, 0x64];
/// hlt; jmp back
const HALT: [u8; 3] = [0xf4, 0xeb, 0xfd];
/// jmp to itself
const SPIN: [u8; 2] = [0xeb, 0xfe];

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    file
}

/// A 64-bit ELF file whose one segment is `code`.
fn elf(code: &[u8]) -> File {
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(16, 0);
    bytes.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    bytes.extend(LOAD.to_le_bytes());
    bytes.extend(64u64.to_le_bytes());
    bytes.extend([0; 12]);
    bytes.extend([64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend([1, 0, 0, 0, 7, 0, 0, 0]);
    for value in [
        120,
        LOAD,
        LOAD,
        code.len() as u64,
        code.len() as u64,
        0x1000,
    ] {
        bytes.extend(value.to_le_bytes());
    }
    assert_eq!(bytes.len(), 120);
    bytes.extend(code);
    file(&bytes)
}

fn machine(code: &[u8], cpus: u8, pluggable_mib: u32) -> Machine {
    let config = Config {
        cpus,
        memory_mib: 16,
        pluggable_mib,
        kernel: elf(code),
        initramfs: file(b"initramfs"),
        debug: false,
        console: None,
        extra_command_line: String::new(),
    };
    Machine::new(
        &Kvm::new().expect("these tests need /dev/kvm"),
        config,
        Devices::new(),
    )
    .unwrap()
}

fn start(code: &[u8], cpus: u8) -> Running {
    machine(code, cpus, 0).start(|_| Ok(())).unwrap()
}

fn run(code: &[u8]) -> Ended {
    ended(start(code, 1))
}

fn ended(running: Running) -> Ended {
    assert!(readable(&running, 10_000));
    running.join()
}

fn readable(running: &Running, timeout_ms: i32) -> bool {
    let mut set = vmm_sys_util::epoll::EpollEvent::default();
    let epoll = vmm_sys_util::epoll::Epoll::new().unwrap();
    let event = vmm_sys_util::epoll::EpollEvent::new(vmm_sys_util::epoll::EventSet::IN, 0);
    let fd = running.end_event().as_raw_fd();
    epoll
        .ctl(vmm_sys_util::epoll::ControlOperation::Add, fd, event)
        .unwrap();
    epoll
        .wait(timeout_ms, std::slice::from_mut(&mut set))
        .unwrap()
        == 1
}

#[test]
fn end_port_write_ends_with_its_code_and_counts_one_exit() {
    let ended = run(&POWER_OFF_42);
    assert_eq!(ended.end, End::PoweredOff(42));
    assert_eq!(ended.exits, 1);
}

#[test]
fn keyboard_reset_without_panic_is_a_reset() {
    assert_eq!(run(&RESET).end, End::Reset);
}

#[test]
fn console_text_before_reset_is_a_panic_with_last_words() {
    let mut code = vec![0x66, 0xba, 0xf8, 0x03]; // mov dx, 0x3f8
    for byte in b"Kernel panic - x\n" {
        code.extend([0xb0, *byte, 0xee]); // mov al, byte; out dx, al
    }
    code.extend(RESET);
    let ended = run(&code);
    assert_eq!(ended.end, End::Panicked);
    assert_eq!(ended.last_words, "Kernel panic - x\n");
}

#[test]
fn fault_without_handlers_is_a_triple_fault() {
    // An empty IDT, then ud2.
    let mut code = vec![0x6a, 0, 0x6a, 0, 0x0f, 0x01, 0x1c, 0x24]; // push 0; push 0; lidt [rsp]
    code.extend([0x0f, 0x0b]);
    assert_eq!(run(&code).end, End::TripleFault);
}

#[test]
fn halted_and_spinning_machines_stop_when_told() {
    for (code, cpus) in [(&HALT[..], 1), (&SPIN[..], 1), (&HALT[..], 3)] {
        let running = start(code, cpus);
        assert!(!readable(&running, 0));
        let begin = Instant::now();
        running.stop();
        assert!(readable(&running, 0));
        assert_eq!(running.join().end, End::Stopped);
        assert!(begin.elapsed() < Duration::from_secs(2));
    }
}

#[test]
fn stop_race_with_start_is_never_lost() {
    for _ in 0..50 {
        assert_eq!(start(&SPIN, 1).join().end, End::Stopped);
    }
}

#[test]
fn every_thread_is_confined_before_the_owner_and_the_guest() {
    static KINDS: Mutex<Vec<ThreadKind>> = Mutex::new(Vec::new());
    let running = machine(&POWER_OFF_42, 2, 0).start(|kind| {
        KINDS.lock().unwrap().push(kind);
        Ok(())
    });
    assert_eq!(ended(running.unwrap()).end, End::PoweredOff(42));
    assert_eq!(
        *KINDS.lock().unwrap(),
        [ThreadKind::Vcpu, ThreadKind::Vcpu, ThreadKind::Owner]
    );
}

#[test]
fn thread_that_cannot_be_confined_fails_the_start() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let error = machine(&SPIN, 2, 0).start(|_| match CALLS.fetch_add(1, Ordering::SeqCst) {
        0 => Err(anyhow::anyhow!("no filter")),
        _ => Ok(()),
    });
    let error = format!("{:#}", error.err().unwrap());
    assert!(error.contains("no filter"), "{error}");
}

#[test]
fn too_many_cpus_or_too_little_memory_are_said() {
    let config = |cpus, memory_mib, initramfs_bytes| Config {
        cpus,
        memory_mib,
        pluggable_mib: 0,
        kernel: elf(&SPIN),
        initramfs: file(&vec![0; initramfs_bytes]),
        debug: false,
        console: None,
        extra_command_line: String::new(),
    };
    let kvm = Kvm::new().unwrap();
    let error = |config| {
        format!(
            "{:#}",
            Machine::new(&kvm, config, Devices::new()).err().unwrap()
        )
    };
    assert!(error(config(33, 16, 0)).contains("1 to 32"));
    assert!(error(config(0, 16, 0)).contains("1 to 32"));
    assert!(error(config(1, 2, 2 << 20)).contains("too small"));
    assert!(error(config(1, 1, 0)).contains("too large for the machine's memory"));
}

#[test]
fn boot_cpu_finds_boot_parameters_and_initramfs() {
    // rsi is the zero page: its ramdisk_image is where the initramfs is; its first byte becomes the code.
    let mut code = vec![0x8b, 0x9e, 0x18, 0x02, 0, 0]; // mov ebx, [rsi + 0x218]
    code.extend([0x8a, 0x03, 0x66, 0xba, 0x00, 0x06, 0xee]); // mov al, [rbx]; mov dx, 0x600; out dx, al
    assert_eq!(run(&code).end, End::PoweredOff(b'i'));
}

#[test]
fn memory_that_is_not_plugged_keeps_nothing_for_the_guest_that_writes_there() {
    // Maps 2 MiB of its memory at 4 GiB by a table of its own, writes the code there, and ends with what it reads.
    let end = |mapped: u64| {
        let mut code = vec![0x48, 0xb8]; // mov rax, mapped | PRESENT | WRITABLE | LARGE_PAGE
        code.extend((mapped | 0x83).to_le_bytes());
        code.extend([0x48, 0x89, 0x04, 0x25, 0, 0, 1, 0]); // mov [0x1_0000], rax
        code.extend([0x48, 0xc7, 0x04, 0x25, 0x20, 0xa0, 0, 0, 3, 0, 1, 0]); // mov qword [0xa020], 0x1_0003
        code.extend([0x48, 0xb8, 0, 0, 0, 0, 1, 0, 0, 0]); // mov rax, 0x1_0000_0000
        code.extend([0xc6, 0x00, 42, 0x8a, 0x00]); // mov byte [rax], 42; mov al, [rax]
        code.extend([0x66, 0xba, 0x00, 0x06, 0xee]); // mov dx, 0x600; out dx, al
        let running = machine(&code, 1, 128).start(|_| Ok(())).unwrap();
        ended(running).end
    };
    assert_eq!(end(8 << 20), End::PoweredOff(42));
    // Where memory to plug begins. KVM ends the guest; software that stands in for it need not.
    assert_ne!(end(4 << 30), End::PoweredOff(42));
}

#[test]
fn probe_ends_within_a_second_and_says_why_not() {
    let begin = Instant::now();
    let probe = vmm::probe::probe(&Kvm::new().unwrap()).unwrap();
    assert!(begin.elapsed() < Duration::from_secs(1));
    assert_eq!(probe.boots_kernels, probe.reason.is_none());
    let mut cpuinfo = String::new();
    File::open("/proc/cpuinfo")
        .unwrap()
        .read_to_string(&mut cpuinfo)
        .unwrap();
    // Hardware virtualisation shows in the CPU's flags, where this process is not itself hidden from them.
    if cpuinfo
        .split_whitespace()
        .any(|flag| flag == "vmx" || flag == "svm")
    {
        assert!(probe.boots_kernels, "{probe:?}");
    }
    println!("{probe:?}");
}
