//! `balancer-certificate`: the first certificate of a balancer on another machine.

use std::{fs, path::Path};

use tucano_api::{agent::Certificate, balancer::BalancerCertificateRequest, ids::BalancerName};

use crate::{Error, args::Global, client::Client, output};

/// Sends the balancer's request to the controller, and prints the certificate (PEM).
pub(super) async fn run(
    client: &Client,
    global: &Global,
    name: BalancerName,
    request: &Path,
) -> Result<(), Error> {
    let request = BalancerCertificateRequest {
        name,
        request: fs::read_to_string(request).map_err(Error::input("read", request))?,
    };
    let body = serde_json::to_string(&request).unwrap_or_default();
    let text = client.post("/v1/balancer_certificates", body).await?;
    if global.json {
        return output::data(&text);
    }
    let Certificate { certificate } = client.parse(&text)?;
    output::data(certificate.trim_end())
}
