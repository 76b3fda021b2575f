//! The one place that chooses the cryptography of TLS clients.

/// Makes ring the provider of this program. Again is fine.
pub(crate) fn install() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Another thread may have been first, with the same choice.
        drop(rustls::crypto::ring::default_provider().install_default());
    }
}
