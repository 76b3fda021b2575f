//! The attribute `zbus::proxy` without D-Bus: see the crate `zbus` beside it.

use proc_macro::TokenStream;

/// Replaces the description of systemd's interface by the one client that [zbus](../zbus) has for it.
#[proc_macro_attribute]
pub fn proxy(_arguments: TokenStream, _interface: TokenStream) -> TokenStream {
    "pub use ::zbus::blocking::ManagerProxyBlocking;"
        .parse()
        .unwrap_or_default()
}
