//! dev
pub(crate) async fn run(
    api: &std::net::SocketAddr,
    dev: &crate::args::Dev,
) -> Result<(), crate::Error> {
    drop((api, dev));
    Ok(())
}
