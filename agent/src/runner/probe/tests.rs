use std::net::Ipv4Addr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tucano_api::units::Span;

use super::*;

fn failed() -> Result<(), String> {
    Err("no".into())
}

#[test]
fn one_success_makes_healthy_and_three_consecutive_failures_unhealthy() {
    let mut health = HealthTracker::new(Health::Starting);
    let first = health.record(failed()).unwrap();
    assert_eq!(
        (first.health, first.reason.as_deref()),
        (Health::Starting, Some("no"))
    );
    assert_eq!(health.record(failed()), None, "nothing new");
    assert_eq!(health.record(Ok(())).unwrap().health, Health::Healthy);
    for _ in 0..2 {
        assert_eq!(health.record(failed()), None);
    }
    assert_eq!(health.record(Ok(())), None);
    for _ in 0..2 {
        assert_eq!(health.record(failed()), None);
    }
    assert_eq!(health.record(failed()).unwrap().health, Health::Unhealthy);
    assert_eq!(health.record(Ok(())).unwrap().health, Health::Healthy);
}

#[test]
fn a_starting_process_is_probed_more_often_than_a_healthy_one() {
    let interval = Duration::from_secs(5);
    assert_eq!(
        HealthTracker::new(Health::Starting).pause(interval),
        STARTING_INTERVAL
    );
    assert_eq!(
        HealthTracker::new(Health::Healthy).pause(interval),
        interval
    );
    let short = Duration::from_millis(20);
    assert_eq!(HealthTracker::new(Health::Starting).pause(short), short);
}

/// A prober of a server that sends `answer` to each request, or never answers if it is empty.
async fn prober(answer: &'static str, http: Option<&str>) -> Prober {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut silent = Vec::new();
        while let Ok((mut client, _)) = listener.accept().await {
            if answer.is_empty() {
                silent.push(client);
            } else {
                let mut request = [0; 1024];
                assert!(client.read(&mut request).await.unwrap() > 0);
                client.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    tucano_tls::install_provider();
    Prober {
        address: Some(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)),
        ports: Vec::new(),
        host: None,
        config: Config {
            http: http.map(str::to_owned),
            timeout: Span::millis(200),
            ..Config::default()
        },
        home: PathBuf::new(),
        runtime: Arc::new(PathBuf::new()),
        client: client().unwrap(),
        id: "hello-1".parse().unwrap(),
        freezer: Arc::default(),
    }
}

#[tokio::test]
async fn a_listening_port_is_healthy_and_a_closed_one_is_named() {
    let mut prober = prober("", None).await;
    prober.probe().await.unwrap();
    prober.address = Some(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1));
    let reason = prober.probe().await.unwrap_err();
    assert!(reason.contains("port 1 does not answer"), "{reason}");
}

#[tokio::test]
async fn a_process_without_a_port_is_healthy_while_it_runs() {
    let mut prober = prober("", None).await;
    prober.address = None;
    prober.probe().await.unwrap();
}

#[tokio::test]
async fn every_port_with_a_probe_has_to_answer_it() {
    let bad = "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n";
    let (mut own, silent, other) = (
        prober("", None).await,
        prober("", None).await,
        prober(bad, None).await,
    );
    let health = |http: Option<&str>| PortHealth {
        http: http.map(str::to_owned),
        tcp: http.is_none().then_some(true),
    };
    own.ports = vec![(silent.address.unwrap(), health(None))];
    own.probe().await.unwrap();
    own.ports = vec![(other.address.unwrap(), health(Some("/ready")))];
    let reason = own.probe().await.unwrap_err();
    assert_eq!(reason, "GET /ready answered with status 503");
}

#[tokio::test]
async fn http_health_follows_the_status() {
    let good = "HTTP/1.1 302 Found\r\nlocation: http://192.0.2.1/\r\ncontent-length: 0\r\n\r\n";
    prober(good, Some("/x")).await.probe().await.unwrap();
    let bad = "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n";
    let reason = prober(bad, Some("/x")).await.probe().await.unwrap_err();
    assert_eq!(reason, "GET /x answered with status 503");
    let reason = prober("", Some("/x")).await.probe().await.unwrap_err();
    assert!(reason.contains("did not answer within 200ms"), "{reason}");
}

/// The head of the request that the prober sends.
async fn request_of(change: impl FnOnce(&mut Prober)) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut prober = prober("", Some("/x")).await;
    let port = listener.local_addr().unwrap().port();
    prober.address = Some(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port));
    prober.config.timeout = Span::secs(60);
    change(&mut prober);
    let probe = async { prober.probe().await.unwrap() };
    let serve = async {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut head = [0; 4096];
        let length = client.read(&mut head).await.unwrap();
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        client.write_all(answer).await.unwrap();
        String::from_utf8(head[..length].to_vec()).unwrap()
    };
    tokio::join!(probe, serve).1.to_ascii_lowercase()
}

#[tokio::test]
async fn http_probes_carry_the_configured_host_and_headers() {
    let request = request_of(|prober| {
        prober.host = Some("www.example.org".to_owned());
        let headers = &mut prober.config.headers;
        headers.insert("X-Forwarded-Proto".to_owned(), "https".to_owned());
        headers.insert("User-Agent".to_owned(), "other".to_owned());
    });
    let request = request.await;
    assert!(
        request.contains("\r\nhost: www.example.org\r\n"),
        "{request}"
    );
    assert!(
        request.contains("\r\nx-forwarded-proto: https\r\n"),
        "{request}"
    );
    assert!(request.contains("\r\nuser-agent: other\r\n"), "{request}");
    assert_eq!(request.matches("user-agent:").count(), 1, "{request}");
    assert_eq!(request.matches("\r\nhost:").count(), 1, "{request}");
    let request = request_of(|_| {}).await;
    assert!(request.contains("\r\nhost: 127.0.0.1:"), "{request}");
}

#[test]
fn the_host_of_probes_is_the_configured_one_or_the_services_first() {
    let config = |more: &str| {
        let text = format!("name = \"a\"\nconcurrency = 1\nport = 80\n{more}");
        tucano_api::settings::parse::<ServiceConfig>("a", &text).unwrap()
    };
    assert_eq!(host_of(&config("")), None);
    let hosts = "hosts = [\"a.example\", \"b.example\"]\n";
    assert_eq!(host_of(&config(hosts)).as_deref(), Some("a.example"));
    let both = format!("{hosts}health = {{ http = \"/\", host = \"c.example\" }}");
    assert_eq!(host_of(&config(&both)).as_deref(), Some("c.example"));
}
