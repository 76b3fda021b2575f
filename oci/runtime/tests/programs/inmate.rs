//! The program inside the tests' containers. Its first argument selects what it inspects or does.

use std::{
    env, fs,
    io::Write,
    process::{Command, ExitCode},
};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["exit", code] => return ExitCode::from(code.parse().unwrap_or(99)),
        ["wait"] => wait(),
        ["wait-after", text] => {
            println!("{text}");
            wait();
        }
        ["alternate", lines] => alternate(lines.parse().unwrap_or_default()),
        ["count"] => count(),
        ["cat", path] => show(fs::read_to_string(path)),
        ["ls", path] => show(list(path)),
        ["links", paths @ ..] => paths.iter().for_each(|path| show_line(fs::read_link(path))),
        ["write", path, text] => show(fs::write(path, text).map(|()| "written".to_owned())),
        ["owner", path] => show(fs::metadata(path).map(|found| {
            use std::os::unix::fs::MetadataExt;
            format!("{}:{}", found.uid(), found.gid())
        })),
        ["env", name] => println!("{}", env::var(name).unwrap_or_default()),
        ["cwd"] => show_line(env::current_dir()),
        ["fds"] => show(list("/proc/self/fd")),
        ["spam", bytes] => spam(bytes.parse().unwrap_or_default()),
        ["hog"] => hog(),
        ["hog-child"] => {
            let child = Command::new("/inmate").arg("hog").status();
            println!("outlived {child:?}");
        }
        ["fork-bomb"] => fork_bomb(),
        ["die", signal] => die(signal.parse().unwrap_or_default()),
        ["calls"] => calls(),
        ["become", id] => change_ids(id.parse().unwrap_or_default()),
        ["become-and-write", id] => {
            change_ids(id.parse().unwrap_or_default());
            show_line(fs::write("/dev/stdout", "written again\n"));
        }
        ["chroot", path] => show_line(nix::unistd::chroot(*path).map_err(Into::into)),
        ["move", from, to] => {
            show_line(fs::write(from, "moved").and_then(|()| fs::rename(from, to)));
        }
        ["node", path] => show_line(make_node(path)),
        ["mount", path] => show_line(
            nix::mount::mount(
                Some("tmpfs"),
                *path,
                Some("tmpfs"),
                nix::mount::MsFlags::empty(),
                None::<&str>,
            )
            .map_err(Into::into),
        ),
        ["fill", path] => show_line(fill(path)),
        ["spawn", arguments @ ..] => show_line(Command::new("/inmate").args(arguments).status()),
        ["listen", port] => show_line(std::net::TcpListener::bind(format!("0.0.0.0:{port}"))),
        ["leave", arguments @ ..] => drop(Command::new("/inmate").args(arguments).spawn()),
        ["orphans", count] => orphans(count.parse().unwrap_or_default()),
        ["open", path] => return ExitCode::from(u8::from(fs::File::open(path).is_err())),
        ["become-and-wait", id] => {
            change_ids(id.parse().unwrap_or_default());
            println!("changed");
            wait();
        }
        ["leave-child"] => drop(Command::new("/inmate").arg("wait").spawn()),
        other => println!("unknown: {other:?}"),
    }
    ExitCode::SUCCESS
}

fn wait() {
    loop {
        nix::unistd::pause();
    }
}

/// Writes numbered lines to stdout and stderr in turns, each when the one before has been read.
fn alternate(lines: u32) {
    for number in 0..lines {
        let line = format!("line {number}\n");
        if number % 2 == 0 {
            rustix::io::write(rustix::stdio::stdout(), line.as_bytes()).ok();
            wait_until_read(rustix::stdio::stdout());
        } else {
            rustix::io::write(rustix::stdio::stderr(), line.as_bytes()).ok();
            wait_until_read(rustix::stdio::stderr());
        }
    }
}

fn wait_until_read(pipe: std::os::fd::BorrowedFd<'_>) {
    while rustix::io::ioctl_fionread(pipe).is_ok_and(|unread| unread > 0) {
        std::thread::yield_now();
    }
}

/// Writes numbers until it is killed.
fn count() {
    let short = rustix::time::Timespec {
        tv_sec: 0,
        tv_nsec: 5_000_000,
    };
    for number in 1u64.. {
        println!("{number}");
        rustix::event::poll(&mut [], Some(&short)).ok();
    }
}

fn show(result: std::io::Result<String>) {
    match result {
        Ok(text) => println!("{text}"),
        Err(error) => println!("error: {error}"),
    }
}

fn show_line<T: std::fmt::Debug>(result: std::io::Result<T>) {
    show(result.map(|value| format!("{value:?}")));
}

fn list(path: &str) -> std::io::Result<String> {
    let mut names: Vec<String> = fs::read_dir(path)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<std::io::Result<_>>()?;
    names.sort();
    Ok(names.join(" "))
}

fn spam(bytes: usize) {
    let mut out = std::io::stdout().lock();
    let line = [b"0123456789abcde".as_slice(), b"\n"].concat();
    for _ in 0..bytes / line.len() {
        if out.write_all(&line).is_err() {
            return;
        }
    }
}

fn hog() {
    let mut all = Vec::new();
    loop {
        all.push(vec![1u8; 1 << 20]);
    }
}

fn fork_bomb() {
    let mut children = Vec::new();
    loop {
        match Command::new("/inmate").arg("wait").spawn() {
            Ok(child) => children.push(child),
            Err(error) => {
                println!("{} children, then: {error}", children.len());
                return wait();
            }
        }
    }
}

/// Leaves processes that end without being waited for.
fn orphans(count: u32) {
    for _ in 0..count {
        let mut parent = Command::new("/inmate");
        parent.args(["leave", "exit", "0"]);
        // Until earlier ones have been reaped, the limit of processes may be reached.
        while parent.status().is_err() {
            std::thread::yield_now();
        }
    }
    println!("{count} orphans");
    wait();
}

fn die(signal: i32) {
    if let Ok(signal) = nix::sys::signal::Signal::try_from(signal) {
        // (The first process of a pid namespace is immune to its own signals.)
        nix::sys::signal::raise(signal).ok();
    }
}

/// Behaves like a server that starts as root: changes a file's owner, then becomes that user.
fn change_ids(id: u32) {
    use nix::unistd::{Gid, Uid, chown, setgroups, setresgid, setresuid};
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    println!("chown: {:?}", chown("/tmp", Some(uid), Some(gid)));
    println!("setgroups: {:?}", setgroups(&[gid]));
    println!("setgid: {:?}", setresgid(gid, gid, gid));
    println!("setuid: {:?}", setresuid(uid, uid, uid));
    println!("write: {:?}", fs::write("/tmp/mine", "mine").is_ok());
}

/// A copy of `/dev/null`.
fn make_node(path: &str) -> std::io::Result<()> {
    let (kind, number) = (
        rustix::fs::FileType::CharacterDevice,
        rustix::fs::makedev(1, 3),
    );
    Ok(rustix::fs::mknodat(
        rustix::fs::CWD,
        path,
        kind,
        0o666.into(),
        number,
    )?)
}

/// Writes to a file until nothing more fits; how much did, in KiB.
fn fill(path: &str) -> std::io::Result<usize> {
    let mut file = fs::File::create(path)?;
    Ok((0..1 << 20)
        .take_while(|_| file.write_all(&[1; 1024]).is_ok())
        .count())
}

/// Tries system calls that the sandbox must refuse; prints one line for each.
fn calls() {
    use nix::{
        mount::{MsFlags, mount},
        sched::{CloneFlags, unshare},
        sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket},
        unistd::{Gid, Uid, chown, chroot, setgroups, setuid},
    };
    let nothing: Option<&str> = None;
    let plain = SockFlag::empty();
    let report = |name: &str, result: nix::Result<()>| println!("{name}: {result:?}");
    report(
        "mount",
        mount(
            Some("tmpfs"),
            "/tmp",
            Some("tmpfs"),
            MsFlags::empty(),
            nothing,
        ),
    );
    report("chroot", chroot("/tmp"));
    report("unshare-user", unshare(CloneFlags::CLONE_NEWUSER));
    report("unshare-mount", unshare(CloneFlags::CLONE_NEWNS));
    report("setuid", setuid(Uid::from_raw(7)));
    report("setgroups", setgroups(&[Gid::from_raw(7)]));
    report("chown", chown("/inmate", Some(Uid::from_raw(7)), None));
    report(
        "af-alg",
        socket(AddressFamily::Alg, SockType::SeqPacket, plain, None).map(drop),
    );
    report(
        "af-packet",
        socket(AddressFamily::Packet, SockType::Raw, plain, None).map(drop),
    );
    report(
        "af-vsock",
        socket(AddressFamily::Vsock, SockType::Stream, plain, None).map(drop),
    );
    report(
        "af-inet",
        socket(AddressFamily::Inet, SockType::Stream, plain, None).map(drop),
    );
    report(
        "raw-socket",
        socket(AddressFamily::Inet, SockType::Raw, plain, SockProtocol::Raw).map(drop),
    );
    let null = make_node("/tmp/null");
    report(
        "mknod",
        null.map_err(|error| nix::Error::from_raw(error.raw_os_error().unwrap_or_default())),
    );
}
