//! A pod of a user without root, who is a member of the group that may use /dev/kvm.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use tests::home::{Home, USER, kvm_group};
use tests::running::Running;
use tests::{fairing_in, finish, image_files, proved, test_image};

#[test]
fn pod_of_an_ordinary_user_keeps_owners_and_runs_jailed_under_his_uid() {
    let home = Home::new(&["odd"]);
    let script = "id -u; cd /odd; stat -c '%u:%g %a' owned setuid; stat -c '%F %t:%T' null disk; read line; exit 9";
    let mut pod = Running::with_stdin(&mut home.run(&kvm_group(), &[], script));
    // The image's own user, and what his like may not make on the host.
    let seen = [
        "1000",
        "4000000000:1234 640",
        "0:0 4755",
        "character special file 1:3",
        "block special file 103:11170",
    ];
    seen.iter().for_each(|line| assert_eq!(pod.line(), *line));
    check_jail(pod.pid());
    let list = finish(home.fairing(&kvm_group()).args(["list", "--no-legend"]))
        .expect_code(0)
        .out();
    let uuid = list.split_whitespace().next().expect("a pod");
    let status = finish(home.fairing(&kvm_group()).args(["status", uuid]))
        .expect_code(0)
        .out();
    assert!(
        status.contains("state=running") && status.contains(&format!("pid={}", pod.pid())),
        "{status}"
    );
    assert!(
        status.contains(USER) && !status.contains("unknown"),
        "{status}"
    );
    pod.finish().expect_code(9);
    let status = finish(home.fairing(&kvm_group()).args(["status", uuid]))
        .expect_code(0)
        .out();
    assert!(status.contains("app-odd=9"), "{status}");
    finish(home.fairing(&kvm_group()).args(["rm", uuid])).expect_code(0);
}

#[test]
fn folder_shared_by_an_ordinary_user_has_his_files_as_the_pods_roots() {
    let home = Home::new(&["odd"]);
    let folder = home.path("shared");
    fs::create_dir(&folder).expect("a folder");
    fs::write(folder.join("mine"), "mine\n").expect("a file");
    Home::give(&folder);
    let volume = format!("--volume=data,kind=host,source={}", folder.display());
    let mut command = home.fairing(&kvm_group());
    command.args(["run", "--rm", "--user=0", "--group=0", "--stage1"]);
    command.arg(home.path("stage1-kvm")).arg(&volume);
    command
        .arg(home.path("odd"))
        .arg("--mount=volume=data,target=/data");
    let script = "stat -c %u:%g /data/mine; cat /data/mine; echo new >/data/new; chown 5 /data/new 2>/dev/null || echo one user";
    let finished = finish(command.args(["--", "/bin/sh", "-c", &proved(script)]));
    assert_eq!(
        finished.out(),
        "0:0\nmine\none user\n",
        "{}",
        finished.err()
    );
    let new = fs::metadata(folder.join("new")).expect("the new file");
    assert_eq!(new.uid().to_string(), USER);
}

#[test]
fn folder_shared_by_a_user_with_subordinate_ids_has_files_of_every_owner() {
    let home = Home::new(&["odd"]);
    let etc = home.path("etc");
    finish(Command::new("cp").args(["-a", "/etc"]).arg(&etc)).expect_code(0);
    for (file, line) in [
        ("passwd", format!("few:x:{USER}:{USER}::/:/bin/sh")),
        ("subuid", "few:300000:65536".to_owned()),
        ("subgid", format!("{USER}:400000:65536")),
    ] {
        let known = fs::read_to_string(etc.join(file)).unwrap_or_default();
        fs::write(etc.join(file), format!("{known}{line}\n")).expect("a file of names");
    }
    // The user's command, where the host's /etc is that one.
    let fairing = |words: &[&str]| {
        let command = home.fairing(&kvm_group());
        let mut beside = Command::new("unshare");
        let script = "mount --bind \"$0\" /etc && exec \"$@\"";
        beside.args(["--mount", "sh", "-c", script]).arg(&etc);
        beside.arg(command.get_program()).args(command.get_args());
        finish(beside.env("HOME", home.path("")).args(words))
    };
    let stage1 = format!("--stage1={}", home.path("stage1-kvm").display());
    let doctor = fairing(&["doctor", &stage1]);
    let told = "your subordinate ids own the others";
    assert!(doctor.out().contains(told), "{}", doctor.out());

    let folder = home.path("shared");
    fs::create_dir(&folder).expect("a folder");
    Home::give(&folder);
    let volume = format!("-v={}:/data", folder.display());
    let image = home.path("odd");
    let run = |user: &str, script: &str| {
        let user = [format!("--user={user}"), format!("--group={user}")];
        let image = image.to_str().expect("a path of ours");
        let words = ["run", "--rm", &stage1, &volume, image, &user[0], &user[1]];
        let script = proved(script);
        let words = [&words[..], &["--", "/bin/sh", "-c", &script]].concat();
        fairing(&words).expect_code(0).out()
    };
    let seen = run(
        "0",
        "cd /data; stat -c %u:%g .; echo new > new; chown 5:6 new; mkdir -m 777 all; stat -c %u:%g new",
    );
    assert_eq!(seen, "0:0\n5:6\n");
    run("7", "echo made > /data/all/made");
    let owner = |name: &str| {
        let file = fs::metadata(folder.join(name)).expect("what a pod made");
        (file.uid(), file.gid())
    };
    let user = USER.parse().expect("a uid");
    assert_eq!(owner("all"), (user, user));
    assert_eq!(owner("new"), (300_004, 400_005));
    assert_eq!(owner("all/made"), (300_006, 400_006));
}

#[test]
fn user_outside_the_devices_group_is_told_what_to_do() {
    let home = Home::new(&["odd"]);
    let refused = finish(&mut home.run(USER, &[], "echo ran")).expect_code(254);
    assert!(
        refused.err().contains("/dev/kvm") && refused.err().contains("usermod -aG kvm"),
        "{}",
        refused.err()
    );
}

#[test]
fn import_by_an_ordinary_user_gives_the_bytes_of_roots() {
    for name in ["odd", "giant.docker", "layers"] {
        let home = Home::new(&[name]);
        finish(
            home.fairing(USER)
                .args(["image", "import"])
                .arg(home.path(name)),
        )
        .expect_code(0);
        let roots = home.path("roots");
        finish(
            fairing_in(&roots)
                .args(["image", "import"])
                .arg(test_image(name)),
        )
        .expect_code(0);
        let files = [home.path("store"), roots].map(|dir| image_files(&dir));
        for (ours, theirs) in files[0].iter().zip(&files[1]) {
            finish(Command::new("cmp").args([ours, theirs])).expect_code(0);
        }
        assert_eq!(files[0].len(), files[1].len());
    }
}

fn check_jail(pid: u32) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the pod's process");
    let has = |line: &str| {
        assert!(
            status.lines().any(|known| known == line),
            "no {line:?} in {status}"
        );
    };
    has(&format!("Uid:\t{USER}\t{USER}\t{USER}\t{USER}"));
    ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]
        .iter()
        .for_each(|set| has(&format!("{set}:\t0000000000000000")));
    has("NoNewPrivs:\t1");
    has("Seccomp:\t2");
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/user")).expect("a namespace");
    assert_ne!(namespace(&pid.to_string()), namespace("self"));
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("its mounts");
    let points: Vec<_> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .collect();
    assert_eq!(points, ["/"]);
}

#[test]
fn pod_of_an_ordinary_user_takes_apps_but_no_folders_and_gives_their_files() {
    let home = Home::new(&["odd"]);
    let fairing = |words: &[&str]| {
        let mut command = home.fairing(&kvm_group());
        command.args(words);
        command
    };
    let stage1 = format!("--stage1={}", home.path("stage1-kvm").display());
    let started = finish(&mut fairing(&["app", "sandbox", "-d", &stage1])).expect_code(0);
    let (out, image) = (started.out(), home.path("odd"));
    let (uuid, image) = (out.trim(), image.to_str().expect("a path of ours"));
    let add = ["app", "add", uuid, image, "--exec=/bin/sh"];
    let add = |flags: &[&str]| {
        let script = proved("id -u; echo left > /tmp/left; exit 9");
        let mut command = fairing(&add);
        finish(command.args(flags).args(["--", "-c", &script]))
    };
    let refused = add(&["--name=two", "-v=/tmp:/s"]).expect_code(254);
    assert!(refused.err().contains("without root"), "{}", refused.err());
    add(&["--name=one"]).expect_code(0);
    finish(&mut fairing(&["app", "start", uuid, "--app=one"])).expect_code(0);
    let status = || finish(&mut fairing(&["app", "status", uuid, "--app=one"])).expect_code(0);
    tests::wait_until("the app has ended", || status().value("state") == "exited");
    assert_eq!(status().value("exit_code"), "9");
    let logs = finish(&mut fairing(&["logs", uuid])).expect_code(0);
    // The image's own user.
    assert_eq!(logs.out(), "1000\n");
    let all = |steps: &[&[&str]]| {
        steps.iter().for_each(|words| {
            finish(&mut fairing(words)).expect_code(0);
        });
    };
    add(&["--name=two"]).expect_code(0);
    all(&[&["app", "rm", uuid, "--app=two"], &["stop", uuid]]);

    // What it wrote is read out by a machine of the user's, too, in which the app was added.
    let [copy, image] = ["copy", "image.aci"].map(|name| home.path(name));
    let [copied, exported] = [&copy, &image].map(|path| path.to_str().expect("a path of ours"));
    let left = format!("{uuid}:/tmp/left");
    all(&[&["cp", &left, copied], &["export", uuid, exported]]);
    assert_eq!(fs::read_to_string(&copy).expect("a copy"), "left\n");
    assert_eq!(fs::metadata(&copy).expect("a copy").uid().to_string(), USER);
    let mut run = fairing(&["run", "--rm", &stage1, exported, "--exec=/bin/cat"]);
    assert_eq!(finish(run.args(["--", "/tmp/left"])).out(), "left\n");
    all(&[&["rm", uuid]]);
}
