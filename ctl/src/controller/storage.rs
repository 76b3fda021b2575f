//! The first stages: sockets, then everything durable.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use tokio::net::{TcpListener, UnixListener};

use super::StartError;
use crate::{
    config_mgr::Config,
    deployer::images::Images,
    http::server,
    store::{Store, Stored},
    tls::Tls,
};

/// Every socket of the controller, bound before anything is read or written.
pub(super) struct Sockets {
    pub(super) api: Vec<TcpListener>,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) routes: UnixListener,
    pub(super) routes_path: PathBuf,
}

impl Sockets {
    pub(super) async fn bind(config: &Config) -> Result<Self, StartError> {
        let (mut api, mut addresses) = (Vec::new(), Vec::new());
        for listen in &config.listen {
            let socket = server::bind(*listen).await?;
            addresses.extend(socket.local_addr());
            api.push(socket);
        }
        for address in &addresses {
            config
                .may_listen_on(*address)
                .map_err(StartError::Unprotected)?;
        }
        let routes_path = config.data_dir.join("ctl.sock");
        Ok(Self {
            api,
            addresses,
            routes: server::bind_unix(&routes_path)?,
            routes_path,
        })
    }
}

/// Everything durable.
pub(super) struct Storage {
    pub(super) tls: Arc<Tls>,
    pub(super) store: Store,
    pub(super) stored: Stored,
    pub(super) images: Arc<Images>,
}

impl Storage {
    pub(super) fn open(config: &Config) -> Result<Self, StartError> {
        let data_dir = &config.data_dir;
        // First the nodes that may go on with the token are stored: opening the database gives the cluster its identity.
        let tls = Tls::open(config, Store::age(data_dir))?;
        let (store, stored) = Store::open(data_dir, config.limits.database_bytes.0)?;
        let images = Images::open(&data_dir.join("images"), &config.limits)?;
        Ok(Self {
            tls: Arc::new(tls),
            store,
            stored,
            images: Arc::new(images),
        })
    }
}
