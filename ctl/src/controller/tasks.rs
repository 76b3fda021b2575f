//! The servers and the periodic work.

use std::{net::SocketAddr, sync::Arc};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{StartError, storage::Sockets};
use crate::http::{
    self, Api,
    server::{self, Bounds},
};

/// Most connections to the routes' socket: the balancer's, and those of local tools of the same user.
const ROUTE_CONNECTIONS: usize = 64;

/// The background tasks, which end together.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    pub(super) stop: CancellationToken,
    running: Vec<JoinHandle<()>>,
}

impl Tasks {
    pub(super) fn renew_certificate(
        &mut self,
        api: &Arc<Api>,
        listeners: &[SocketAddr],
    ) -> Result<(), StartError> {
        let renewal = api
            .tls
            .issue_and_renew(api.config.clone(), listeners.to_vec())?;
        self.until_stop(renewal);
        Ok(())
    }

    pub(super) fn serve(&mut self, api: &Arc<Api>, sockets: Sockets) -> Result<(), StartError> {
        let bounds = Bounds::from(&api.config.current().limits);
        let sniffer = api.tls.sniffer()?;
        for socket in sockets.api {
            let (router, stop) = (http::router(api.clone()), self.stop.clone());
            let config = api.config.clone();
            let is_worker = move |ip| config.current().topology.has_remote_worker(ip);
            self.spawn(server::serve_tcp(
                socket,
                sniffer.clone(),
                router,
                bounds,
                is_worker,
                stop,
            ));
        }
        let routes_bounds = Bounds {
            connections: ROUTE_CONNECTIONS,
            ..bounds
        };
        self.spawn(server::serve_unix(
            sockets.routes,
            sockets.routes_path,
            http::routes::router(api.clone()),
            routes_bounds,
            self.stop.clone(),
        ));
        Ok(())
    }

    /// Removes images that nothing refers to, and uploads that nobody continues.
    pub(super) fn clean_up(&mut self, api: &Arc<Api>) {
        let (images, state) = (api.deployer.images().clone(), api.state.clone());
        images.released();
        let registry = images.registry().clone();
        self.until_stop(async move { images.collect_garbage(&state).await });
        self.until_stop(async move { registry.give_up_uploads().await });
    }

    fn until_stop(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        let task = self.stop.clone().run_until_cancelled_owned(task);
        self.spawn(async move { task.await.unwrap_or_default() });
    }

    pub(super) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.running.push(tokio::spawn(task));
    }

    pub(super) async fn stop(self) {
        self.stop.cancel();
        for task in self.running {
            if let Err(error) = task.await {
                tracing::error!(%error, "a part of the controller failed");
            }
        }
    }
}
