//! The certificate of a balancer on another machine than the controller's. Its key never leaves the directory:
//!
//! - `key.pem`: the key, generated at the first start.
//! - `request.pem`: the request that the sysadmin has signed, once.
//! - `certificate.pem`: the certificate that the sysadmin puts there; later ones come from the controller.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::sleep;
use tracing::{info, warn};
use tucano_api::{agent::Certificate, balancer::BalancerCertificateRequest};
use tucano_tls::{Certificates, Error, Identity, leaf::Files};

use super::{controller::Controller, poll};
use crate::errors::chain;

/// How often a missing certificate is looked for.
const MISSING_INTERVAL: Duration = Duration::from_secs(1);
/// How often the remaining life of a certificate is looked at.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// The key and certificate of this balancer.
#[derive(Debug)]
pub struct OwnCertificate {
    files: Files,
    directory: PathBuf,
    certificates: Arc<Certificates>,
}

impl OwnCertificate {
    /// Opens the directory, or creates it with a key and a request to be signed.
    ///
    /// # Errors
    /// Files that cannot be read or written.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let own = Self {
            files: Files::open(directory)?,
            directory: directory.to_owned(),
            certificates: Arc::default(),
        };
        own.files.write_request()?;
        own.reload()?;
        Ok(own)
    }

    /// The certificate that is presented.
    pub fn certificates(&self) -> &Arc<Certificates> {
        &self.certificates
    }

    /// The balancer's name in the certificate; `None` without a valid one.
    pub fn name(&self) -> Option<String> {
        let leaf = self.certificates.current()?;
        match leaf.identity() {
            Some(Identity::Balancer(name)) if leaf.validity().ends > SystemTime::now() => {
                Some(name.clone())
            }
            _ => None,
        }
    }

    /// Waits for the first certificate, and renews it in time, until the future is dropped.
    pub async fn keep_current(self: Arc<Self>, controller: Controller) {
        let mut is_told = false;
        loop {
            if self.name().is_none()
                && let Err(error) = self.reload()
            {
                warn!(cause = %chain(&error), "cannot read the certificate");
            }
            let Some(name) = self.name() else {
                if !std::mem::replace(&mut is_told, true) {
                    self.tell_missing();
                }
                sleep(MISSING_INTERVAL).await;
                continue;
            };
            is_told = false;
            let leaf = self.certificates.current();
            if leaf.is_some_and(|leaf| leaf.validity().is_due(SystemTime::now()))
                && let Err(problem) = self.renew(&name, &controller).await
            {
                warn!(
                    balancer = name,
                    "the certificate cannot be renewed: {problem}"
                );
            }
            sleep(CHECK_INTERVAL).await;
        }
    }

    fn tell_missing(&self) {
        let directory = self.directory.display();
        warn!(
            "there is no valid certificate, without which the controller shows no routes: add this balancer's name to \
             balancers in [api] of ctl.toml, run `tucano balancer-certificate NAME --request request.pem` with {directory}/request.pem, \
             and put what it prints into {directory}/certificate.pem"
        );
    }

    /// Reads the certificate that is stored.
    fn reload(&self) -> Result<(), Error> {
        if let Some(leaf) = self.files.leaf()?
            && matches!(leaf.identity(), Some(Identity::Balancer(_)))
        {
            self.certificates.set(leaf);
        }
        Ok(())
    }

    async fn renew(&self, name: &str, controller: &Controller) -> Result<(), String> {
        let request = BalancerCertificateRequest {
            name: name.parse().map_err(|error| format!("{error}"))?,
            request: self.files.request().map_err(|error| error.to_string())?,
        };
        let answer = poll::certificate(controller, &request).await;
        let Certificate { certificate } = answer.map_err(|error| chain(&error))?;
        let leaf = self.files.store(&certificate);
        self.certificates
            .set(leaf.map_err(|error| error.to_string())?);
        info!(balancer = name, "the certificate is renewed");
        Ok(())
    }
}
