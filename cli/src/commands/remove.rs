//! `rm`: removes a service.

use tucano_api::{ids::ServiceName, units::Span};

use crate::{
    Error,
    args::{Global, Wait},
    client::Client,
    output,
};

pub(super) async fn run(
    client: &Client,
    global: &Global,
    name: &ServiceName,
    wait: Wait,
) -> Result<(), Error> {
    let query = match wait.no_wait {
        true => String::new(),
        false => format!("?wait=true&timeout={}ms", Span(wait.timeout).as_millis()),
    };
    let answer = client
        .delete(&format!("/v1/services/{name}{query}"), wait.timeout)
        .await?;
    if global.json {
        return output::data(&answer);
    }
    output::data(&format!("{name} is removed"))
}
