//! A package manager in a root that is a folder of the host.

use tests::mounted::Mounted;
use tests::{fairing_in, finish_within, proved, rounds, temporary, test_image};

/// Debian's cron makes a group, a program that runs as that group, and links for its service.
const INSTALL: &str = "set -e; grep -q ' / virtiofs' /proc/mounts; export DEBIAN_FRONTEND=noninteractive; \
    apt-get install -qq -y /debs/*.deb >/tmp/log 2>&1 || { cat /tmp/log; exit 1; }; \
    dpkg-query -W -f='${Package} ${db:Status-Status}\\n' cron cron-daemon-common sensible-utils; dpkg --audit; dpkg --verify cron; \
    getent group crontab | cut -d: -f1; stat -c '%G %a' /usr/bin/crontab; echo '1 2 3 4 5 true' | crontab -; crontab -l";

#[test]
fn debian_package_is_installed_in_a_shared_root_with_what_it_needs() {
    for _ in 0..rounds("installations in a shared Debian root", 0, 1) {
        // An overlay, as the shared root is one, lies on no overlay.
        let folder = temporary("fairing-packages-");
        let disk = Mounted::ext4(folder.path(), "disk");
        let mut command = fairing_in(&disk.path().join("store"));
        command.args(["run", "--rm", "--rootfs=shared"]);
        command.arg(format!("-v={}:/debs:ro", test_image("debs").display()));
        command.arg(test_image("debian.tar"));
        command.args(["--exec", "/bin/sh", "--", "-c", &proved(INSTALL)]);
        let finished = finish_within(6 * tests::DEADLINE, &mut command);
        assert_eq!(
            finished.out(),
            "cron installed\ncron-daemon-common installed\nsensible-utils installed\n\
             crontab\ncrontab 2755\n1 2 3 4 5 true\n",
            "{}",
            finished.err()
        );
        finished.expect_code(0);
    }
}
