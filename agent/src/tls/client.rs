//! HTTP clients for requests to the controller.

use tucano_tls::Trust;

/// A client that follows no redirect, uses no proxy, and accepts only certificates of the cluster's authority.
///
/// # Errors
/// The authority's certificate is not valid PEM.
pub fn client(trust: Option<&Trust>) -> reqwest::Result<reqwest::ClientBuilder> {
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy();
    Ok(match trust {
        Some(trust) => client.tls_certs_only(reqwest::Certificate::from_pem_bundle(
            trust.pem().as_bytes(),
        )?),
        None => client,
    })
}
