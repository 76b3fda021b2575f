//! Bad input: each a clear error, and no trace of it left.

use std::{fs, net::SocketAddr, path::PathBuf, process::Command};

use tokio::io::AsyncWriteExt;
use tucano_image_builder::{Compression, Entry, ImageSpec, Layer, Layout};
use tucano_testkit::{needs, programs};
use tucano_tests::{
    CLUSTER, Cluster, Options,
    cluster::TOKEN,
    images,
    user::{Answer, connect},
};

const HELLO: &str = "name = \"hello\"\nconcurrency = 1\nport = 8080\nmemory = \"32MiB\"\n";

/// A cluster without workers' work to do, and what its controller has on disk.
struct Controller {
    cluster: Cluster,
    before: Vec<String>,
}

impl Controller {
    fn start() -> Self {
        let cluster = Cluster::start(&Options {
            workers: 1,
            ..Options::default()
        });
        let before = files(&cluster);
        Self { cluster, before }
    }

    fn archive(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.cluster.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Deploys what must be refused with this status and these words, leaving nothing.
    fn refuses(&self, config: &str, archive: &std::path::Path, status: &[u16], words: &[&str]) {
        let answer = self.cluster.deploy(config, archive, "?wait=true");
        self.is_refusal(&answer, status, words);
    }

    fn is_refusal(&self, answer: &Answer, status: &[u16], words: &[&str]) {
        assert!(status.contains(&answer.status), "{answer:?}");
        for word in words {
            assert!(answer.body.contains(word), "no {word:?} in {answer:?}");
        }
        self.cluster.wait("the same files as before", || {
            (files(&self.cluster) == self.before).then_some(())
        });
        assert!(self.cluster.state().unwrap().configured_services.is_empty());
    }
}

/// Images and uploads on the controller's disk. Its other files come and go by themselves: the balancer's routes, the
/// database's journal.
fn files(cluster: &Cluster) -> Vec<String> {
    let output = Command::new("find")
        .arg(cluster.path("ctl/images"))
        .args(["-type", "f"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut files: Vec<String> = text.lines().map(str::to_owned).collect();
    files.sort();
    files
}

fn layout_with(entry: Entry) -> Layout {
    let layer = Layer::new(&[entry], Compression::Gzip).unwrap();
    ImageSpec::new("hello").layer(layer).build().unwrap()
}

#[test]
fn hostile_damaged_and_foreign_images_are_refused_without_leftovers() {
    if !needs(&CLUSTER) {
        return;
    }
    let ctl = Controller::start();
    let good = fs::read(images::sample("hello")).unwrap();

    let truncated = ctl.archive("truncated.tar", &good[..good.len() / 2]);
    ctl.refuses(HELLO, &truncated, &[400, 422], &["truncated"]);

    let mut layout = layout_with(Entry::file("x", *b"content"));
    let (blob, content) = layout
        .files
        .iter_mut()
        .filter(|(path, _)| path.starts_with("blobs/"))
        .max_by_key(|(_, c)| c.len())
        .unwrap();
    let last = content.len() - 1;
    content[last] ^= 1;
    let hex = blob.rsplit('/').next().unwrap().to_owned();
    let wrong = ctl.archive("wrong.tar", &layout.archive().unwrap());
    ctl.refuses(HELLO, &wrong, &[400, 422], &["digest", &hex[..12]]);

    let escaping = layout_with(Entry::file("../../etc/x", *b"content"));
    let escaping = ctl.archive("escaping.tar", &escaping.archive().unwrap());
    ctl.refuses(HELLO, &escaping, &[400, 422], &["../../etc/x"]);

    let layer = Layer::new(&[Entry::file("hello", *b"")], Compression::Gzip).unwrap();
    let foreign = ImageSpec::new("hello")
        .architecture("s390x")
        .layer(layer)
        .build()
        .unwrap();
    let foreign = ctl.archive("foreign.tar", &foreign.archive().unwrap());
    ctl.refuses(HELLO, &foreign, &[400, 422], &["s390x"]);

    let garbage = ctl.archive("garbage.tar", &[0x5a; 100_000]);
    ctl.refuses(HELLO, &garbage, &[400, 422], &[]);
}

#[test]
fn invalid_configurations_are_refused_with_advice_and_the_image_is_removed() {
    if !needs(&CLUSTER) {
        return;
    }
    let ctl = Controller::start();
    let image = images::sample("hello");
    for (config, words) in [
        (
            HELLO.replace("concurrency", "concurency"),
            ["concurency", "did you mean"],
        ),
        (
            HELLO.replace("concurrency = 1", "concurrency = 0"),
            [":2", "concurrency"],
        ),
        (HELLO.replace("8080", "0"), [":3", "not a port"]),
        (HELLO.replace("hello", "../hello"), ["name", "lower-case"]),
        ("\u{0}".repeat(10), ["config", ""]),
    ] {
        ctl.refuses(&config, &image, &[400, 422], &words);
    }
}

#[test]
fn two_services_cannot_have_one_host() {
    if !needs(&CLUSTER) {
        return;
    }
    let ctl = Controller::start();
    let image = images::sample("hello");
    let with_host = |name: &str| HELLO.replace("hello", name) + "hosts = [\"www.example.org\"]\n";
    ctl.cluster.deploy_healthy(&with_host("first"), &image);
    let answer = ctl.cluster.deploy(&with_host("second"), &image, "");
    assert_eq!(answer.status, 409, "{answer:?}");
    assert!(
        answer.body.contains("www.example.org") && answer.body.contains("first"),
        "{answer:?}"
    );
    assert_eq!(ctl.cluster.state().unwrap().configured_services.len(), 1);
    // Beneath another path prefix they can.
    let beneath = with_host("second") + "path_prefix = \"/second\"\n";
    ctl.cluster.deploy_healthy(&beneath, &image);
}

#[test]
fn an_upload_cut_off_half_way_leaves_nothing() {
    if !needs(&CLUSTER) {
        return;
    }
    let ctl = Controller::start();
    let image = fs::read(images::sample("hello")).unwrap();
    let head = format!(
        "POST /v1/services HTTP/1.1\r\nHost: ctl\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 9000000\r\n\
         Content-Type: multipart/form-data; boundary=b\r\n\r\n\
         --b\r\nContent-Disposition: form-data; name=\"config\"\r\n\r\n{HELLO}\r\n\
         --b\r\nContent-Disposition: form-data; name=\"image\"; filename=\"i\"\r\n\r\n"
    );
    let request = [head.as_bytes(), &image[..image.len() / 2]].concat();
    let address = SocketAddr::new(ctl.cluster.ctl().ip().into(), 7070);
    let ca = fs::read(ctl.cluster.ca_file()).unwrap();
    let sent = ctl.cluster.user().run(async move {
        let mut stream = connect(&ca, address).await?;
        stream.write_all(&request).await
    });
    sent.unwrap();
    let nothing = Answer {
        status: 0,
        body: String::new(),
    };
    ctl.is_refusal(&nothing, &[0], &[]);
}

#[test]
fn a_body_over_the_limit_is_refused() {
    if !needs(&CLUSTER) {
        return;
    }
    let mut options = Options {
        workers: 1,
        ..Options::default()
    };
    options.ctl_settings =
        "limits = { image_bytes = \"100KiB\" }\n".to_owned() + &options.ctl_settings;
    let cluster = Cluster::start(&options);
    let before = files(&cluster);
    let answer = cluster.deploy(HELLO, &images::sample("hello"), "");
    assert!(
        answer.status == 413 && answer.body.contains("limits.image_bytes"),
        "{answer:?}"
    );
    cluster.wait("the same files as before", || {
        (files(&cluster) == before).then_some(())
    });
}

#[test]
fn a_full_data_disk_refuses_deploys_only() {
    if !needs(&CLUSTER) {
        return;
    }
    let cluster = Cluster::start(&Options {
        workers: 1,
        ctl_disk: Some("12m"),
        ..Options::default()
    });
    cluster.deploy_healthy(HELLO, &images::sample("hello"));
    let filler = cluster.path("ctl/filler").display().to_string();
    let fill =
        format!("dd if=/dev/zero of={filler} bs=1k 2>/dev/null; truncate -s -100000 {filler}");
    let output = cluster.on_ctl("sh").args(["-c", &fill]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let second = HELLO.replace("\"hello\"", "\"second\"");
    let answer = cluster.deploy(&second, &images::sample("memory-hog"), "");
    assert!(
        answer.status == 507 && answer.body.contains("disk_full"),
        "{answer:?}\n{}",
        cluster.logs()
    );
    assert_eq!(cluster.state().unwrap().configured_services.len(), 1);
    assert_eq!(cluster.answering("hello", 3).len(), 1);
    // With room again, the same deploy is taken.
    let output = cluster.on_ctl("rm").arg(&filler).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    cluster.deploy_healthy(&second, &images::sample("memory-hog"));
}

#[test]
fn a_topology_with_two_controllers_is_refused_with_file_and_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ctl.toml");
    let text = "data_dir = \"/nowhere\"\n[[topology]]\nkind = \"ctl\"\nip = \"10.0.0.1\"\n\n\
                [[topology]]\nkind = \"ctl\"\nip = \"10.0.0.2\"\n";
    fs::write(&file, text).unwrap();
    let output = Command::new(programs().join("tucano_ctld"))
        .arg("--config")
        .arg(&file)
        .arg("--check")
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{error}");
    assert!(
        error.contains("ctl.toml:") && error.contains("ctl"),
        "{error}"
    );
    assert!(error.contains('7') || error.contains('6'), "{error}");
}
