//! The services that a service's processes may reach, and after which they are first started.

use super::{ServiceConfig, validate::length_problem};
use crate::{ids::ServiceName, settings::Problem};

/// Most services that one service may need, and start after, each.
pub const MAX_NEEDS: usize = 128;

/// What is wrong with the needs of a service. Whether the services exist, only the cluster knows.
pub(super) fn problems(config: &ServiceConfig) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (key, services) in [
        ("needs", &config.needs),
        ("start_after", &config.start_after),
    ] {
        problems.extend(length_problem(key, "services", services.len(), MAX_NEEDS));
        problems.extend(repeated(key, services));
    }
    if config.start_after.contains(&config.name) {
        let message = format!("{} cannot start after itself", config.name);
        problems.push(Problem::new("start_after", message));
    }
    problems
}

/// What is checked when a configuration is deployed.
pub(super) fn deploy_problems(config: &ServiceConfig) -> Option<Problem> {
    let is_unused = config.nearest && config.all_ports().is_empty();
    is_unused.then(|| {
        let message = "has no effect without a port: nothing connects to a service that has none";
        Problem::new("nearest", message)
    })
}

fn repeated(key: &str, services: &[ServiceName]) -> Option<Problem> {
    let mut all = services.iter().enumerate();
    let (_, twice) = all.find(|(index, service)| services[..*index].contains(service))?;
    Some(Problem::new(key, format!("{twice} is named twice")))
}

#[cfg(test)]
mod tests {
    use crate::{
        service::{Effect, ServiceConfig},
        settings::{Validate, parse},
    };

    fn config(more: &str) -> ServiceConfig {
        let text = format!("name = \"a\"\nconcurrency = 1\nport = 80\n{more}");
        parse("a", &text).unwrap()
    }

    #[test]
    fn needs_are_bounded_and_named_once() {
        let many: Vec<String> = (0..129).map(|number| format!("\"s{number}\"")).collect();
        let many = format!("needs = [{}]", many.join(", "));
        for (text, key) in [
            ("needs = [\"b\", \"c\", \"b\"]", "needs"),
            ("start_after = [\"b\", \"b\"]", "start_after"),
            ("start_after = [\"a\"]", "start_after"),
            (&many, "needs"),
        ] {
            let text = format!("name = \"a\"\nconcurrency = 1\nport = 80\n{text}");
            let refused = parse::<ServiceConfig>("a", &text).unwrap_err();
            assert!(refused.to_string().contains(key), "{refused}");
        }
        assert!(config("needs = [\"a\", \"b\"]").validate().is_ok());
    }

    #[test]
    fn the_nearest_process_needs_a_port_and_is_no_matter_of_the_process() {
        let usual = config("");
        let nearest = config("nearest = true");
        assert_eq!(nearest.agent_keys().count(), 0);
        assert_eq!(nearest.for_agents(), usual.for_agents());
        assert_eq!(usual.change_to(&nearest), Effect::Routes);
        let text = "name = \"a\"\nconcurrency = 1\nnearest = true";
        let refused = parse::<ServiceConfig>("a", text).unwrap_err();
        assert!(refused.to_string().contains("nearest"), "{refused}");
    }

    #[test]
    fn only_agents_that_know_needs_get_a_process_that_has_some() {
        let needy = config("needs = [\"b\"]\nstart_after = [\"b\"]");
        assert_eq!(needy.agent_keys().collect::<Vec<_>>(), ["needs"]);
        assert!(needy.for_agents().start_after.is_empty());
        let later = config("start_after = [\"b\"]");
        assert_eq!(later.agent_keys().count(), 0);
        assert_eq!(config("").change_to(&later), Effect::Nothing);
        assert_eq!(later.change_to(&needy), Effect::Paths);
        assert!(later.same_process(&needy) && !later.differs_in_routes_only(&needy));
    }
}
