//! `restart`: new processes for a service as it is.

use tucano_api::ids::ServiceName;

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
    deploy::finish_answer(client, global, &answer, wait).await
}
