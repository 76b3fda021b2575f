//! `adopt`: takes over what runs on nodes that are on hold.

use tucano_api::state::{AdoptableNode, AdoptableService, Adoption};

use crate::{Error, args::Global, client::Client, output};

const PATH: &str = "/v1/adoption";

/// Shows what can be adopted; with `yes`, adopts it and shows what is still on hold.
pub(super) async fn run(client: &Client, global: &Global, yes: bool) -> Result<(), Error> {
    let text = match yes {
        true => client.post(PATH, String::new()).await?,
        false => client.get_text(PATH).await?,
    };
    if global.json {
        return output::data(&text);
    }
    let adoption: Adoption = client.parse(&text)?;
    output::data(&match yes {
        true => result(&adoption),
        false => preview(&adoption),
    })
}

fn preview(adoption: &Adoption) -> String {
    if adoption.nodes.is_empty() {
        return "no node is on hold: there is nothing to adopt".to_owned();
    }
    format!(
        "{}\n\nNothing is changed yet. `tucano adopt --yes` configures these services here and manages the nodes again; it \
         ends no process. If the controller's database was lost, restore a backup instead where there is one.",
        describe(adoption)
    )
}

fn result(left: &Adoption) -> String {
    if left.nodes.is_empty() {
        return "adopted: no node is on hold any more".to_owned();
    }
    format!("still on hold:\n{}", describe(left))
}

fn describe(adoption: &Adoption) -> String {
    let nodes = adoption.nodes.iter().map(describe_node);
    let services = adoption.services.iter().map(describe_service);
    nodes.chain(services).collect::<Vec<_>>().join("\n")
}

fn describe_node(node: &AdoptableNode) -> String {
    let ids: Vec<String> = node.processes.iter().map(ToString::to_string).collect();
    let what = match (&node.obstacle, ids.is_empty()) {
        (Some(obstacle), _) => format!("cannot be adopted: {obstacle}"),
        (None, true) => "it runs nothing".to_owned(),
        (None, false) => format!("it runs {}", ids.join(" ")),
    };
    format!("node {}: {}; {what}", node.name, node.cause)
}

fn describe_service(service: &AdoptableService) -> String {
    let revisions: Vec<String> = service.revisions.iter().map(ToString::to_string).collect();
    let here = match service.configured {
        true => "configured here, too",
        false => "not configured here",
    };
    format!(
        "service {}: revision {}, processes {}, concurrency {}; {here}",
        service.name,
        revisions.join(" "),
        service.processes,
        service.concurrency
    )
}

#[cfg(test)]
mod tests;
