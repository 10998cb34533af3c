//! What fio writes, on a volume and on a pod's own root, is there: when it has been written, after nothing of it is cached any
//! more, and in another pod.

use std::fs;

use tests::mounted::Mounted;
use tests::{fairing_with_runtimes, finish_within, proved, rounds, tell, temporary};

/// Each block says where it belongs and has a checksum. Several processes, from the start to the end and across; past the
/// page cache, and through mappings.
const JOBS: &str = "\
[global]
size=${MIB}m
verify=crc32c
verify_fatal=1
verify_state_save=0
end_fsync=1
randseed=4

[sequential]
rw=write
bs=64k
numjobs=2

[random]
rw=randwrite
bs=4k
numjobs=2

[direct]
rw=randwrite
bs=16k
ioengine=libaio
iodepth=8
direct=1

[mapped]
rw=randwrite
bs=4k
ioengine=mmap
";

/// `try ARGUMENT…` runs the jobs in the working folder, and prints all only of those that fail.
const TRY: &str = "try() { fio --minimal \"$@\" /volume/jobs >/tmp/log 2>&1 || { cat /tmp/log; return 1; }; }; \
                   forget() { sync; echo 3 >/proc/sys/vm/drop_caches; }; set -e; ";

#[test]
fn blocks_written_to_a_volume_and_to_the_root_keep_their_checksums() {
    let mib = rounds("MiB in each of fio's six files", 2, 16);
    let folder = temporary("fairing-fio-");
    let disk = Mounted::ext4(folder.path(), "disk");
    fs::write(disk.path().join("jobs"), JOBS).expect("room for a file");
    let volume = format!("-v={}:/volume", disk.path().display());
    let run = |script: &str| {
        let mut command = fairing_with_runtimes();
        command.args(["run", "--rm", "--memory=700Mi", &volume]);
        let script = proved(&format!("export MIB={mib}; {TRY}{script}"));
        command.args(["runtimes", "--", "/bin/sh", "-c", &script]);
        let finished = finish_within(3 * tests::DEADLINE, &mut command);
        tell(&format!("{}{}", finished.out(), finished.err()));
        finished.expect_code(0)
    };
    run("for place in /volume /var/tmp; do cd $place; try; done; \
         forget; for place in /volume /var/tmp; do cd $place; try --verify_only; done");
    let direct = fs::metadata(disk.path().join("direct.0.0")).expect("what fio wrote");
    assert_eq!(direct.len(), u64::try_from(mib).expect("a size") << 20);
    // And one wrong byte is found.
    let damaged = run(
        "cd /volume; try --verify_only; printf X | dd of=random.1.0 bs=1 seek=5000 conv=notrunc 2>/dev/null; \
         forget; try --verify_only && exit 1; exit 0",
    );
    assert!(damaged.out().contains("verify failed"), "{}", damaged.out());
}
