use std::time::SystemTime;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::net::TcpListener;
use tokio_rustls::TlsConnector;

use super::*;
use crate::{Authority, Identity, Leaf, Validity, authority::Name};

fn authority() -> (tempfile::TempDir, Authority) {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::open(directory.path()).unwrap();
    (directory, authority)
}

fn with_leaf(authority: &Authority) -> Arc<Certificates> {
    let certificates = Arc::new(Certificates::default());
    let names = [Name::parse("127.0.0.1").unwrap()];
    let now = Validity::from(SystemTime::now());
    certificates.set(authority.issue(&Identity::Controller, &names, now).unwrap());
    certificates
}

/// The outcome on both ends of a connection whose client runs `act`.
async fn connect(
    sniffer: &ProtocolSniffer,
    act: impl AsyncFnOnce(TcpStream) -> io::Result<Vec<u8>>,
) -> (io::Result<Vec<u8>>, io::Result<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (server, _) = listener.accept().await.unwrap();
    let serve = async {
        let mut stream = sniffer.accept(server).await?;
        let mut said = [0; 5];
        stream.read_exact(&mut said).await?;
        stream.write_all(b"world").await?;
        stream.shutdown().await?;
        io::Result::Ok(said.to_vec())
    };
    tokio::join!(serve, act(client))
}

async fn hello(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
) -> io::Result<Vec<u8>> {
    stream.write_all(b"hello").await?;
    let mut said = Vec::new();
    stream.read_to_end(&mut said).await?;
    Ok(said)
}

fn connector(authority: &Authority) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap();
    roots.add(root).unwrap();
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

async fn by_tls(connector: TlsConnector, stream: TcpStream) -> io::Result<Vec<u8>> {
    let name = ServerName::try_from("127.0.0.1").unwrap();
    hello(connector.connect(name, stream).await?).await
}

#[tokio::test]
async fn tls_and_plain_share_a_port() {
    let (_directory, authority) = authority();
    let sniffer =
        ProtocolSniffer::new(with_leaf(&authority), None, PlainHttp::LoopbackOnly, "x").unwrap();
    let tls = connect(&sniffer, async |stream| {
        by_tls(connector(&authority), stream).await
    })
    .await;
    let plain = connect(&sniffer, hello).await;
    for (server, client) in [tls, plain] {
        assert_eq!(
            (server.unwrap(), client.unwrap()),
            (b"hello".to_vec(), b"world".to_vec())
        );
    }
}

#[tokio::test]
async fn a_client_has_the_identity_of_its_certificate_or_none() {
    let (_directory, authority) = authority();
    let (_other_directory, other) = super::tests::authority();
    let trust = Trust::from_pem(authority.pem()).unwrap();
    let certificates = with_leaf(&authority);
    let sniffer =
        ProtocolSniffer::new(certificates, Some(&trust), PlainHttp::LoopbackOnly, "x").unwrap();
    let identity_of = async |own: Option<Leaf>| {
        let certificates = Arc::new(Certificates::default());
        if let Some(leaf) = own {
            certificates.set(leaf);
        }
        let config = trust.client_config(certificates).unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, server) = (client.await.unwrap(), listener.accept().await.unwrap().0);
        let serve = async {
            let mut stream = sniffer.accept(server).await?;
            let identity = stream.identity();
            stream.write_all(b"ok").await?;
            stream.shutdown().await?;
            io::Result::Ok(identity)
        };
        tokio::join!(serve, by_tls(connector, client)).0
    };
    let now = SystemTime::now();
    let node = Identity::Node("w1".to_owned());
    let leaf = |authority: &Authority, issued| {
        let names = [Name::parse("10.0.0.11").unwrap()];
        let leaf = authority.issue(&node, &names, Validity::from(issued));
        Some(leaf.unwrap())
    };
    let own = identity_of(leaf(&authority, now)).await;
    assert_eq!(own.unwrap(), Some(node.clone()));
    assert_eq!(identity_of(None).await.unwrap(), None);
    // An expired certificate is not presented.
    let expired = now - Duration::from_secs(40 * 86_400);
    let expired = identity_of(leaf(&authority, expired)).await;
    assert_eq!(expired.unwrap(), None);
    let foreign = identity_of(leaf(&other, now)).await.unwrap_err();
    assert!(foreign.to_string().contains("UnknownIssuer"), "{foreign}");
}

#[tokio::test]
async fn a_client_with_another_authority_fails_the_handshake() {
    let (_directory, authority) = authority();
    let (_other_directory, other) = super::tests::authority();
    let sniffer =
        ProtocolSniffer::new(with_leaf(&authority), None, PlainHttp::LoopbackOnly, "x").unwrap();
    let (server, client) = connect(&sniffer, async |stream| {
        by_tls(connector(&other), stream).await
    })
    .await;
    assert!(server.is_err());
    let error = client.unwrap_err().to_string();
    assert!(error.contains("UnknownIssuer"), "{error}");
}

#[tokio::test]
async fn connections_without_a_certificate_or_with_garbage_are_refused() {
    let (_directory, authority) = authority();
    let none = ProtocolSniffer::new(Arc::default(), None, PlainHttp::LoopbackOnly, "x").unwrap();
    let (server, client) = connect(&none, async |stream| {
        by_tls(connector(&authority), stream).await
    })
    .await;
    assert!(
        server
            .unwrap_err()
            .to_string()
            .contains("no certificate yet")
    );
    assert!(client.is_err());
    let sniffer =
        ProtocolSniffer::new(with_leaf(&authority), None, PlainHttp::LoopbackOnly, "x").unwrap();
    let garbage = async |mut stream: TcpStream| {
        stream
            .write_all(&[0x16, 0xff, 0xff, 0xff, 0xff, 0, 1, 2, 3])
            .await?;
        let mut said = Vec::new();
        stream.read_to_end(&mut said).await.map(|_| said)
    };
    let (server, client) = connect(&sniffer, garbage).await;
    assert!(server.is_err());
    // At most a TLS alert.
    assert!(client.unwrap_or_default().len() < 16);
    let (server, _) = connect(&sniffer, async |stream| {
        drop(stream);
        Ok(Vec::new())
    })
    .await;
    assert!(server.is_err());
}

#[test]
fn plain_http_is_accepted_on_loopback_only() {
    for (local, is_loopback) in [
        ("127.0.0.1", true),
        ("127.8.8.8", true),
        ("::1", true),
        ("::ffff:127.0.0.1", true),
        ("10.0.0.1", false),
        ("fd00::1", false),
        ("::ffff:10.0.0.1", false),
    ] {
        let local = local.parse().unwrap();
        assert_eq!(
            PlainHttp::LoopbackOnly.is_accepted_on(local),
            is_loopback,
            "{local}"
        );
        assert!(PlainHttp::Everywhere.is_accepted_on(local));
    }
}

#[tokio::test]
async fn a_refusal_reaches_a_client_that_is_still_sending() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = tokio::spawn(async move {
        let mut stream = TcpStream::connect(address).await?;
        // More than all buffers on the path hold.
        let (mut from, mut to) = stream.split();
        let mut said = String::new();
        let sent = to.write_all(&[b'x'; 900_000]);
        let (_, read) = tokio::join!(sent, from.read_to_string(&mut said));
        read.map(|_| said)
    });
    let (mut server, _) = listener.accept().await.unwrap();
    refuse(&mut server, &refusal("[api] tls = \"off\" in ctl.toml"))
        .await
        .unwrap();
    drop(server);
    let said = client.await.unwrap().unwrap();
    let (head, body) = said.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    assert!(
        head.contains(&format!("Content-Length: {}\r\n", body.len())),
        "{head}"
    );
    assert!(
        body.contains("https://") && body.contains(r#"tls = \"off\""#),
        "{body}"
    );
}
