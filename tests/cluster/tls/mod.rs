//! What goes between machines is TLS, and who is not vouched for goes no further.

mod certificates;
mod change;
mod clients;
mod wire;

use std::process::Output;

use tucano_tests::{Cluster, Options, cluster::TOKEN};

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
