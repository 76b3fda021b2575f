//! `tucano deploy` against a controller: it sends the missing blobs only, and resumes after a cut.

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tucano_image_builder::{Compression, Entry, ImageSpec, Layer};
use tucano_testkit::{programs, wait_until};

const PATIENCE: Duration = Duration::from_secs(120);
const TOKEN: &str = "0123456789abcdef0123";

/// A controller on loopback; killed when dropped.
struct Controller {
    directory: TempDir,
    address: SocketAddr,
    child: Child,
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Controller {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = format!(
            "data_dir = \"data\"\ntoken = \"{TOKEN}\"\n[api]\nlisten = \"stdin\"\n[balancer]\nspawn = false\n\
             [[topology]]\nkind = \"ctl\"\nip = \"127.0.0.1\"\n[[topology]]\nkind = \"worker\"\nip = \"127.0.0.11\"\n"
        );
        let path = directory.path().join("ctl.toml");
        fs::write(&path, config).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let child = Command::new(programs().join("tucano_ctld"))
            .arg("--config")
            .arg(path)
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stderr(log)
            .spawn()
            .unwrap();
        let controller = Self {
            directory,
            address,
            child,
        };
        wait_until("the controller's answer", PATIENCE, || {
            controller.tucano(address, &["nodes"]).status.success()
        });
        controller
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs the command line against what answers at this address.
    fn tucano(&self, api: SocketAddr, arguments: &[&str]) -> Output {
        Command::new(programs().join("tucano"))
            .args(["--api", &format!("http://{api}"), "--token", TOKEN])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Deploys an image as `hello`; gives its digest, and what was said.
    #[track_caller]
    fn deploy(&self, api: SocketAddr, config: &Path, image: &Path) -> (Value, String) {
        let (config, image) = (config.to_str().unwrap(), image.to_str().unwrap());
        let arguments = ["--json", "deploy", config, "--no-wait", "--image", image];
        let output = self.tucano(api, &arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        (answer["image"].clone(), said)
    }

    fn config(&self, image: &str) -> PathBuf {
        let path = self.path(&format!("{}.toml", image.replace([':', '/'], "-")));
        let text = format!("name = \"hello\"\nconcurrency = 1\nport = 8080\nimage = {image:?}\n");
        fs::write(&path, text).unwrap();
        path
    }
}

/// Hands on to a controller, counts what is sent to it, and cuts some connections that have sent much.
struct Proxy {
    address: SocketAddr,
    sent: Arc<AtomicU64>,
    cuts_left: Arc<AtomicU64>,
}

impl Proxy {
    fn start(to: SocketAddr, cuts: u64, at: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            sent: Arc::default(),
            cuts_left: Arc::new(AtomicU64::new(cuts)),
        };
        let (sent, cuts_left) = (proxy.sent.clone(), proxy.cuts_left.clone());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(to) else {
                    return;
                };
                let (mut back, mut from) =
                    (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || std::io::copy(&mut from, &mut back));
                let (sent, cuts_left) = (sent.clone(), cuts_left.clone());
                thread::spawn(move || hand_on(client, server, &sent, &cuts_left, at));
            }
        });
        proxy
    }
}

fn hand_on(
    mut client: TcpStream,
    mut server: TcpStream,
    sent: &AtomicU64,
    cuts_left: &AtomicU64,
    at: u64,
) {
    let mut buffer = vec![0; 32 << 10];
    let mut here = 0;
    while let Ok(read @ 1..) = client.read(&mut buffer) {
        sent.fetch_add(read as u64, Relaxed);
        here += read as u64;
        if server.write_all(&buffer[..read]).is_err() {
            break;
        }
        let one_less = |left: u64| left.checked_sub(1);
        if here > at && cuts_left.fetch_update(Relaxed, Relaxed, one_less).is_ok() {
            break;
        }
    }
    for stream in [client, server] {
        stream.shutdown(Shutdown::Both).ok();
    }
}

fn noise(bytes: usize, seed: u64) -> Layer {
    let mut state = seed;
    let noise: Vec<u8> = (0..bytes)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        })
        .collect();
    Layer::new(&[Entry::file("noise", noise)], Compression::Gzip).unwrap()
}

fn own(content: &str) -> Layer {
    let file = Entry::file("hello", content.to_owned()).mode(0o755);
    Layer::new(&[file], Compression::Gzip).unwrap()
}

#[test]
fn only_missing_blobs_are_sent_and_a_cut_upload_resumes() {
    const BASE: usize = 12 << 20;
    let controller = Controller::start();
    let image = |content: &str| {
        let spec = ImageSpec::new("hello")
            .layer(noise(BASE, 1))
            .layer(own(content));
        spec.build().unwrap()
    };
    let first = image("one");
    let archive = controller.path("one.tar");
    fs::write(&archive, first.archive().unwrap()).unwrap();
    let proxy = Proxy::start(controller.address, 3, 2 << 20);
    let config = controller.config("one.tar");
    let (digest, _) = controller.deploy(proxy.address, &config, &archive);
    assert_eq!(digest, first.manifest_digest);
    assert_eq!(proxy.cuts_left.load(Relaxed), 0);
    let sent = proxy.sent.load(Relaxed) as usize;
    assert!((BASE..BASE * 2).contains(&sent), "{sent}");

    // A directory whose lower layer the controller has.
    let second = image("two");
    let layout = controller.path("two");
    second.write_directory(&layout).unwrap();
    let proxy = Proxy::start(controller.address, 0, 0);
    let (digest, said) = controller.deploy(proxy.address, &config, &layout);
    assert_eq!(digest, second.manifest_digest);
    assert!(said.contains("already has 1 of 3 blobs"), "{said}");
    let sent = proxy.sent.load(Relaxed) as usize;
    assert!(sent < BASE / 10, "{sent}");

    // What is stored needs no file at all.
    for stored in [
        first.manifest_digest.clone(),
        format!("tucano/images@{}", second.manifest_digest),
    ] {
        let (digest, _) = controller.deploy(controller.address, &config, Path::new(&stored));
        assert!(stored.ends_with(digest.as_str().unwrap()));
    }
}

/// The layout of an image as `docker save` of older versions writes it.
fn saved(config: &[u8], layers: &[&[u8]], tags: &[&str]) -> Vec<u8> {
    let names: Vec<String> = (0..layers.len())
        .map(|n| format!("{n}/layer.tar"))
        .collect();
    let manifest =
        json!([{"Config": "config.json", "RepoTags": tags, "Layers": names}]).to_string();
    let mut files: Vec<(&str, &[u8])> = vec![("config.json", config)];
    files.extend(names.iter().map(String::as_str).zip(layers.iter().copied()));
    files.push(("manifest.json", manifest.as_bytes()));
    tucano_image_builder::layout::archive_of(&files).unwrap()
}

#[test]
fn docker_archives_are_sent_by_blob_and_compressed_archives_whole() {
    let controller = Controller::start();
    let file = Entry::file("hello", "x").mode(0o755);
    let layer = Layer::new(&[file], Compression::None).unwrap();
    let built = ImageSpec::new("hello").layer(layer).build().unwrap();
    let manifest = &built.files[&format!("blobs/{}", built.manifest_digest.replace(':', "/"))];
    let manifest: Value = serde_json::from_slice(manifest).unwrap();
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap();
        built.files[&format!("blobs/{}", digest.replace(':', "/"))].clone()
    };
    let (config, layer) = (blob(&manifest["config"]), blob(&manifest["layers"][0]));
    let archive = controller.path("saved.tar");
    fs::write(&archive, saved(&config, &[&layer], &["hello:1"])).unwrap();
    let (digest, _) =
        controller.deploy(controller.address, &controller.config("hello:1"), &archive);
    assert!(digest.as_str().unwrap().starts_with("sha256:"));
    let (_, said) = controller.deploy(controller.address, &controller.config("hello:1"), &archive);
    assert!(said.contains("already has 2 of 2 blobs"), "{said}");

    let other = controller.config("hello:2");
    let arguments = [
        "deploy",
        other.to_str().unwrap(),
        "--no-wait",
        "--image",
        archive.to_str().unwrap(),
    ];
    let refused = controller.tucano(controller.address, &arguments);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(3), "{said}");
    assert!(
        said.contains("hello:1") && said.contains("hello:2"),
        "{said}"
    );

    let compressed = controller.path("image.tar.gz");
    let whole = Compression::Gzip
        .compress(&built.archive().unwrap())
        .unwrap();
    fs::write(&compressed, whole).unwrap();
    let config = controller.config("image.tar.gz");
    let (digest, said) = controller.deploy(controller.address, &config, &compressed);
    assert_eq!(digest, built.manifest_digest);
    assert!(!said.contains("blobs already"), "{said}");
}

#[test]
fn a_service_is_rolled_back_from_the_command_line() {
    let controller = Controller::start();
    let config = controller.config("x.tar");
    let mut digests = Vec::new();
    for content in ["one", "two"] {
        let image = ImageSpec::new("hello").layer(own(content)).build().unwrap();
        let path = controller.path(content);
        image.write_directory(&path).unwrap();
        digests.push(controller.deploy(controller.address, &config, &path).0);
    }
    let back = controller.tucano(
        controller.address,
        &["--json", "rollback", "hello", "--no-wait"],
    );
    let answer: Value = serde_json::from_slice(&back.stdout).unwrap();
    assert_eq!(answer["image"], digests[0]);
    let shown = controller.tucano(controller.address, &["revisions", "hello"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert_eq!(shown.lines().count(), 4, "{shown}");
    let lost = controller.tucano(controller.address, &["rollback", "hello", "9", "--no-wait"]);
    assert_eq!(lost.status.code(), Some(7), "{lost:?}");
}
