//! What goes between machines is TLS, and who is not vouched for goes no further.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    process::{Command, Output},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tucano_testkit::{needs, programs, tool};
use tucano_tests::{CLUSTER, Cluster, Options, cluster::TOKEN, images, user::connect};

const HELLO: &str = "name = \"hello\"\nconcurrency = 2\nport = 8080\nmemory = \"32MiB\"\n";

fn small() -> Options {
    Options {
        workers: 2,
        ..Options::default()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// curl from beside the hosts, without any certificate of the cluster's unless an argument names it.
fn curl(cluster: &Cluster, arguments: &[&str]) -> Output {
    cluster
        .on_network("curl")
        .args(["-sS", "--max-time", "20", "-w", "\n%{http_code}"])
        .args(["-H", &format!("Authorization: Bearer {TOKEN}")])
        .args(arguments)
        .output()
        .unwrap()
}

/// The certificate that is presented there, as openssl shows it.
fn presented(cluster: &Cluster, address: &str) -> String {
    let script = format!(
        "openssl s_client -connect {address} -CAfile {} -verify_return_error </dev/null | openssl x509 -noout -text",
        cluster.ca_file().display()
    );
    let output = cluster.on_network("sh").args(["-c", &script]).output();
    text(&output.unwrap().stdout)
}

#[test]
fn nothing_between_machines_is_plain() {
    if !needs(&CLUSTER) || !needs(&[tool("openssl")]) {
        return;
    }
    let cluster = Cluster::start(&small());
    cluster.deploy_healthy(HELLO, &images::sample("hello"));
    let (ctl, w1) = (cluster.ctl().ip(), cluster.worker(0).ip());
    // Plain requests are told what to do, and no more.
    for place in [
        format!("{ctl}:7070/v1/state"),
        format!("{w1}:7071/v1/identity"),
    ] {
        let refused = text(&curl(&cluster, &[&format!("http://{place}")]).stdout);
        assert!(
            refused.contains("use https://")
                && refused.contains("tls = \\\"off\\\"")
                && refused.ends_with("\n400"),
            "{place}: {refused}"
        );
    }
    // Who has no copy of the authority's certificate is told so by its own tools.
    let api = cluster.api();
    let stranger = curl(&cluster, &[&format!("{api}/v1/state")]);
    assert_eq!(stranger.status.code(), Some(60), "{stranger:?}");
    let ca_file = cluster.ca_file().display().to_string();
    let known = curl(
        &cluster,
        &["--cacert", &ca_file, &format!("{api}/v1/state")],
    );
    assert!(text(&known.stdout).ends_with("\n200"), "{known:?}");
    // Certificates are for who presents them.
    let agents = presented(&cluster, &format!("{w1}:7071"));
    assert!(agents.contains(&format!("IP Address:{w1}\n")), "{agents}");
    assert!(!agents.contains(&ctl.to_string()), "{agents}");
    assert!(
        agents.contains("CA:FALSE") || !agents.contains("CA:TRUE"),
        "{agents}"
    );
    let controllers = presented(&cluster, &format!("{ctl}:7070"));
    assert!(
        controllers.contains(&format!("IP Address:{ctl}")) && controllers.contains("DNS:localhost"),
        "{controllers}"
    );
    // On loopback all is as it was: no certificate, and both ways.
    let agent = cluster.output_on(0, "curl", &["-sS", "http://127.0.0.1:7071/healthz"]);
    assert_eq!(agent, "ok\n");
    for key in ["ctl/tls/ca-key.pem", "w1-data/tls/key.pem"] {
        let mode = fs::metadata(cluster.path(key))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    let logs = cluster.logs();
    assert!(
        !logs.contains("PRIVATE KEY") && !logs.contains(TOKEN),
        "{logs}"
    );
}

#[test]
fn the_command_line_says_what_to_do_about_who_it_does_not_know() {
    if !needs(&CLUSTER) || !needs(&[tool("openssl")]) {
        return;
    }
    let cluster = Cluster::start(&small());
    let tucano = |arguments: &[&str]| {
        let mut command = cluster.on_network(programs().join("tucano"));
        command
            .env("TUCANO_TOKEN", TOKEN)
            .env_remove("TUCANO_CA_FILE");
        let output = command.args(arguments).output().unwrap();
        (output.status.code(), text(&output.stderr))
    };
    let api = cluster.api();
    let ca_file = cluster.ca_file().display().to_string();
    let known = tucano(&["--api", &api, "--ca-file", &ca_file, "nodes"]);
    assert_eq!(known.0, Some(0), "{known:?}");
    let other = cluster.path("other.pem");
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ])
        .args(["-subj", "/CN=another", "-keyout", "/dev/null", "-out"])
        .arg(&other)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let other = other.display().to_string();
    let stranger = tucano(&["--api", &api, "--ca-file", &other, "nodes"]);
    assert!(
        stranger.0 == Some(5) && stranger.1.contains("--ca-file"),
        "{stranger:?}"
    );
    let absent = tucano(&["--api", &api, "--ca-file", "/no/such", "nodes"]);
    assert!(
        absent.0 == Some(2) && absent.1.contains("copy"),
        "{absent:?}"
    );
    let plain = tucano(&["--api", &api.replace("https", "http"), "nodes"]);
    assert!(
        plain.0 == Some(3) && plain.1.contains("use https://"),
        "{plain:?}"
    );
}

#[test]
fn the_registry_takes_and_gives_images_by_tls() {
    if !needs(&CLUSTER) || !needs(&[tool("skopeo")]) {
        return;
    }
    let cluster = Cluster::start(&small());
    let certificates = cluster.path("certificates");
    fs::create_dir(&certificates).unwrap();
    fs::copy(cluster.ca_file(), certificates.join("ca.crt")).unwrap();
    let certificates = certificates.display().to_string();
    let pushed = format!("docker://{}:7070/hello:1", cluster.ctl().ip());
    let archive = format!("oci-archive:{}", images::sample("hello").display());
    let credentials = format!("anybody:{TOKEN}");
    let copy = |arguments: &[&str]| {
        let mut skopeo = cluster.on_network("skopeo");
        skopeo
            .args(["copy", "--quiet"])
            .args(arguments)
            .output()
            .unwrap()
    };
    let stranger = copy(&["--dest-creds", &credentials, &archive, &pushed]);
    assert!(
        text(&stranger.stderr).contains("certificate"),
        "{stranger:?}"
    );
    let push = [
        "--dest-creds",
        &credentials,
        "--dest-cert-dir",
        &certificates,
        &archive,
        &pushed,
    ];
    let output = copy(&push);
    assert!(output.status.success(), "{output:?}");
    let back = format!("oci-archive:{}", cluster.path("back.tar").display());
    let pull = [
        "--src-creds",
        &credentials,
        "--src-cert-dir",
        &certificates,
        &pushed,
        &back,
    ];
    let output = copy(&pull);
    assert!(output.status.success(), "{output:?}");
    // Agents fetch its blobs by TLS, too: they have no other way.
    let body = "{\"name\": \"hello\", \"concurrency\": 2, \"port\": 8080, \"image\": \"hello:1\", \"memory\": \"32MiB\"}";
    let answer = cluster.curl(
        &["-H", "Content-Type: application/json", "-d", body],
        "/v1/services?wait=true&timeout=60s",
    );
    assert_eq!(answer.status, 201, "{answer:?}");
}

/// A request for a certificate, as an agent on that worker would send it.
fn ask(cluster: &Cluster, from: usize, body: &str) -> String {
    let url = format!("{}/v1/certificates", cluster.api());
    let ca_file = cluster.ca_file().display().to_string();
    let token = "Authorization: Bearer the-agents-token-of-a-test-cluster";
    let arguments = [
        "-sS",
        "--max-time",
        "20",
        "--cacert",
        &ca_file,
        "-H",
        token,
        "-d",
        body,
        &url,
    ];
    cluster.output_on(from, "curl", &arguments)
}

#[test]
fn a_worker_gets_no_certificate_but_its_own_and_cannot_answer_for_another() {
    if !needs(&CLUSTER) || !needs(&[tool("openssl")]) {
        return;
    }
    let mut cluster = Cluster::start(&small());
    let made = Command::new("openssl")
        .args([
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ])
        .args([
            "-subj",
            "/CN=w",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            "/dev/null",
        ])
        .output()
        .unwrap();
    let request = text(&made.stdout);
    let body = |ip: &str| serde_json::json!({ "ip": ip, "request": request }).to_string();
    let [w1, w2] = [0, 1].map(|index| cluster.worker(index).ip().to_string());
    let own = ask(&cluster, 0, &body(&w1));
    assert!(own.contains("BEGIN CERTIFICATE"), "{own}");
    let another = ask(&cluster, 0, &body(&w2));
    assert!(another.contains("another_address"), "{another}");
    for nobodys in [cluster.ctl().ip().to_string(), "10.9.9.9".to_owned()] {
        let refused = ask(&cluster, 0, &body(&nobodys));
        assert!(refused.contains("unknown_node"), "{refused}");
    }
    for nonsense in ["{", "{\"ip\": \"10.0.0.1\", \"request\": \"x\"}"] {
        let refused = ask(&cluster, 0, nonsense);
        assert!(refused.contains("\"error\""), "{refused}");
    }
    let nonsense = serde_json::json!({ "ip": w1, "request": "x" }).to_string();
    let refused = ask(&cluster, 0, &nonsense);
    assert!(refused.contains("invalid_certificate_request"), "{refused}");

    // An agent that presents another's certificate is not believed; one whose own is gone gets another.
    cluster.kill_agent(0);
    for name in ["key.pem", "certificate.pem"] {
        let from = cluster.agent_data(1).join("tls").join(name);
        fs::copy(from, cluster.agent_data(0).join("tls").join(name)).unwrap();
    }
    cluster.wait("the first worker to be missing", || {
        (cluster.state()?.alive_nodes.len() == 1).then_some(())
    });
    cluster.start_agent(0);
    cluster.wait_for_alive(2);
    let now = presented(&cluster, &format!("{w1}:7071"));
    assert!(now.contains(&format!("IP Address:{w1}\n")), "{now}");
}

#[test]
fn the_silent_and_those_who_talk_nonsense_hold_nobody_up() {
    if !needs(&CLUSTER) {
        return;
    }
    let mut options = small();
    options.ctl_settings.insert_str(
        0,
        "limits = { connections = 40, header_timeout = \"2s\" }\n",
    );
    let cluster = Cluster::start(&options);
    let ca = fs::read(cluster.ca_file()).unwrap();
    for address in [(cluster.ctl().ip(), 7070), (cluster.worker(0).ip(), 7071)] {
        let address = SocketAddr::new(address.0.into(), address.1);
        let ca = ca.clone();
        let served = cluster.user().run(async move {
            let mut silent = Vec::new();
            for n in 0..120_u8 {
                let mut stream = TcpStream::connect(address).await?;
                // Nothing, a begun handshake, and garbage.
                match n % 3 {
                    0 => {}
                    1 => stream.write_all(&[0x16, 3, 1]).await?,
                    _ => stream.write_all(&[0x16, 0xff, 0xff, 0xff, 0xff, n]).await?,
                }
                silent.push(stream);
            }
            let mut good = connect(&ca, address).await?;
            good.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                .await?;
            let mut said = Vec::new();
            good.read_to_end(&mut said).await?;
            std::io::Result::Ok(text(&said))
        });
        let served = served.unwrap();
        assert!(served.starts_with("HTTP/1.1 200"), "{address}: {served}");
    }
    // The agents' reports came through meanwhile.
    cluster.wait_for_alive(2);
}

#[test]
fn with_tls_off_on_both_sides_all_is_plain_and_workers_may_change_one_by_one() {
    if !needs(&CLUSTER) {
        return;
    }
    let mut options = small();
    options.api_settings = "tls = \"off\"".to_owned();
    let mut cluster = Cluster::start(&options);
    cluster.deploy_healthy(HELLO, &images::sample("hello"));
    let ctl = cluster.ctl().ip();
    let plain = curl(&cluster, &[&format!("http://{ctl}:7070/v1/state")]);
    assert!(text(&plain.stdout).ends_with("\n200"), "{plain:?}");
    // The harness's agents speak TLS; this one does not any more.
    let settings = cluster.path("w1.toml");
    let tls = fs::read_to_string(&settings).unwrap();
    fs::write(
        &settings,
        tls.replace("https://", "http://") + "tls = \"off\"\n",
    )
    .unwrap();
    cluster.kill_agent(0);
    cluster.start_agent(0);
    let w1 = cluster.worker(0).ip();
    cluster.wait("the plain agent", || {
        let answer = curl(&cluster, &[&format!("http://{w1}:7071/healthz")]);
        text(&answer.stdout).starts_with("ok").then_some(())
    });
    cluster.patch("hello", "{\"concurrency\": 4}");
    cluster.wait_for_healthy("hello", 4);
    assert_eq!(cluster.placement("hello").len(), 2);
    // And back.
    fs::write(&settings, tls).unwrap();
    cluster.kill_agent(0);
    cluster.start_agent(0);
    cluster.patch("hello", "{\"concurrency\": 6}");
    cluster.wait_for_healthy("hello", 6);
}

#[test]
fn reports_do_not_shake_hands_each_time() {
    if !needs(&CLUSTER) || !needs(&[tool("ss")]) {
        return;
    }
    let mut options = small();
    options.agent_settings = "publish_interval = \"100ms\"\n".to_owned();
    let cluster = Cluster::start(&options);
    let ports = || {
        let filter = format!("dst {}:7070", cluster.ctl().ip());
        let listed = cluster.output_on(0, "ss", &["-Htn", "state", "established", &filter]);
        let mut ports: Vec<String> = listed
            .lines()
            .filter_map(|line| line.split_whitespace().nth(2).map(str::to_owned))
            .collect();
        ports.sort();
        ports
    };
    let before = cluster.wait("a connection of the agent's", || {
        let ports = ports();
        (ports.len() == 1).then_some(ports)
    });
    let started = cluster.state().unwrap();
    cluster.wait("many more reports", || {
        let now = cluster.state()?;
        let passed = |state: &tucano_api::state::State| {
            state
                .alive_nodes
                .iter()
                .map(|node| node.reported_at.0)
                .min()
        };
        (passed(&now)? > passed(&started)? + 2000).then_some(())
    });
    assert_eq!(ports(), before);
}
