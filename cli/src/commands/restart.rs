//! `restart`: new processes for a service as it is.

use tucano_api::{ids::ServiceName, state::Deployed};

use super::deploy;
use crate::{
    Error,
    args::{Global, Wait},
    client::Client,
};

pub(super) async fn run(
    client: &Client,
    global: &Global,
    name: &ServiceName,
    wait: Wait,
) -> Result<(), Error> {
    let path = format!("/v1/services/{name}/restart");
    let answer = client.post(&path, String::new()).await?;
    let deployed: Deployed = client.parse(&answer)?;
    let (deployed, result) = deploy::settle(client, deployed, wait).await;
    deploy::report(global, deployed, result)
}
